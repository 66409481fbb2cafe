"""A model behind an API as a contestant: room to think, and no answer paid for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures_chat import PATHS, PROVIDERS, ChatServer, prompts

from prooftune.errors import SpecError, TransientError
from prooftune.evaluation.answers.api_answerer import KEPT, ROOM_TO_THINK, api_answerer
from prooftune.providers.chat import REQUESTS_AT_ONCE
from prooftune.spec import Contestant
from prooftune.types import Message, Progress

pytest_plugins = ["fixtures_chat"]


# A contestant


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_api_model_is_a_contestant(provider: str, chat_server: ChatServer) -> None:
    """The rung larger_model gets answers in order, with tokens, latency and progress; a refusal is an answer."""
    said: list[Progress] = []
    contestant = Contestant.model_validate({"provider": provider, "model": "big", "base_url": getattr(chat_server, provider)})
    answerer = api_answerer(contestant)
    found = answerer.answer(prompts(3), max_new_tokens=5, report=said.append)
    assert (answerer.model, answerer.batch_size) == ("big", REQUESTS_AT_ONCE)
    assert [answer.text for answer in found] == [f"echo: question {n}" for n in range(3)]
    assert all(answer.finished and answer.latency_s > 0 and answer.prompt_tokens == 4 for answer in found)
    assert [progress.done for progress in said] == [1, 2, 3]
    assert answerer.answer([], max_new_tokens=5) == []
    chat_server.order("refusal")
    assert not answerer.answer(prompts(1), max_new_tokens=5)[0].finished


def larger(provider: str, server: ChatServer) -> Contestant:
    """Return a contestant at the server."""
    return Contestant.model_validate({"provider": provider, "model": "big", "base_url": getattr(server, provider)})


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("asked", "sent"), [(6, ROOM_TO_THINK), (5000, 5000)])
def test_a_contestant_has_room_to_think(provider: str, asked: int, sent: int, chat_server: ChatServer) -> None:
    """An API's limit covers what the model thinks first: the few tokens of an answer would leave a thinking model silent."""
    api_answerer(larger(provider, chat_server)).answer(prompts(2), max_new_tokens=asked)
    assert {body["max_tokens"] for body in chat_server.asked(PATHS[provider])} == {sent}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_contestant_that_only_thinks_is_an_error(provider: str, chat_server: ChatServer, tmp_path: Path) -> None:
    """Silence because the limit ran out is not scored as an answer; a few are, and refusals are no silence."""
    chat_server.answer = lambda chat: ""
    chat_server.order("truncated", times=2, containing=PATHS[provider])
    chat_server.order("refusal", times=3, containing=PATHS[provider])
    answerer = api_answerer(larger(provider, chat_server), tmp_path)
    assert len(answerer.answer(prompts(20), max_new_tokens=6)) == 20
    chat_server.order("truncated", containing=PATHS[provider])
    with pytest.raises(
        SpecError, match=r"left 3 of 21 answers empty: its 4096 tokens ran out .* baseline\.larger\.model .* baseline\.ladder"
    ):
        answerer.answer(prompts(21), max_new_tokens=6)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_that_were_paid_for_are_kept(provider: str, chat_server: ChatServer, tmp_path: Path) -> None:
    """A request that fails costs no answer to another, even one that overtook it; a line that was cut is asked again."""
    chat_server.answer = lambda chat: chat[-1]["content"].upper()
    chat_server.order("503", times=100, asking="'question 0'")
    contestant = larger(provider, chat_server)
    with pytest.raises(TransientError):
        api_answerer(contestant, tmp_path).answer(prompts(40), max_new_tokens=6)
    kept = (tmp_path / KEPT).read_bytes()
    count = kept.count(b"\n")
    assert count == sum(path == f"POST {PATHS[provider]}" for path, _ in chat_server.sent) >= REQUESTS_AT_ONCE - 1
    (tmp_path / KEPT).write_bytes(kept + kept[:30])
    chat_server.faults.clear()
    before = len(chat_server.seen)
    found = api_answerer(contestant, tmp_path).answer(prompts(40), max_new_tokens=6)
    assert [answer.text for answer in found] == [f"QUESTION {n}" for n in range(40)]
    assert len(chat_server.seen) - before == 40 - count
    assert api_answerer(contestant, tmp_path).answer(prompts(40), max_new_tokens=6) == found
    assert len(chat_server.seen) - before == 40 - count


@pytest.mark.parametrize("change", [{"model": "bigger"}, {"limit": 9000}, {"prompt": "another"}])
def test_what_is_asked_another_way_is_asked_again(change: dict[str, Any], chat_server: ChatServer, tmp_path: Path) -> None:
    """Kept answers are those of the same model to the same prompt with the same limit."""
    contestant, prompt = larger("openai", chat_server), prompts(1)
    api_answerer(contestant, tmp_path).answer(prompt, max_new_tokens=6)
    contestant = contestant.model_copy(update={"model": change.get("model", "big")})
    prompt = [[Message(role="user", content=change["prompt"])]] if "prompt" in change else prompt
    api_answerer(contestant, tmp_path).answer(prompt, max_new_tokens=change.get("limit", 6))
    assert len(chat_server.seen) == 2


def test_the_same_prompt_is_asked_once(chat_server: ChatServer) -> None:
    """Prompts that do not differ share an answer, and progress still ends at all of them."""
    said: list[Progress] = []
    found = api_answerer(larger("openai", chat_server)).answer([*prompts(2), *prompts(2)], max_new_tokens=6, report=said.append)
    assert [answer.text for answer in found] == ["echo: question 0", "echo: question 1"] * 2
    assert (len(chat_server.seen), said[-1].done) == (2, 4)


@pytest.mark.parametrize("contestant", [Contestant(model="smollm2"), Contestant(provider="openai")])
def test_a_contestant_needs_provider_and_model(contestant: Contestant) -> None:
    """A local model, or none, is no contestant behind an API."""
    with pytest.raises(SpecError, match="no contestant behind an API"):
        api_answerer(contestant)
