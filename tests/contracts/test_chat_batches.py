"""Questions through the batch APIs of OpenAI and Anthropic: in order, submitted once, asked anew where they are gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures_chat import CREATED, PATHS, PROVIDERS, ChatServer, Open, batched, prompts

from prooftune.errors import EnvironmentLacks
from prooftune.providers.chat import open_chat
from prooftune.types import Progress

pytest_plugins = ["fixtures_chat"]


# Batches


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_answers_in_order(provider: str, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """Results in any order are matched by custom id; progress is reported; one question was asked directly first."""
    chat_server.polls = 3
    seen: list[Progress] = []
    found = opened(provider).complete_batch(prompts(12), max_tokens=9, folder=tmp_path, report=seen.append)
    assert [answer.text for answer in found] == [f"echo: question {n}" for n in range(12)]
    assert {answer.latency_s for answer in found} == {None}
    assert [progress.done for progress in seen] == [0, 0, 12]
    assert len(chat_server.asked(CREATED[provider])) == 1
    assert len(chat_server.asked(PATHS[provider])) == 1


def test_a_batch_sends_what_the_model_takes(opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """What the first, direct question taught about parameters holds for the whole batch."""
    chat_server.order("400", containing="completions", message="`temperature` is not supported")
    opened("openai").complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    assert [set(body) for body in batched("openai", chat_server)] == [{"model", "messages", "max_tokens", "seed"}] * 2


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("lost", [False, True], ids=["ticket kept", "ticket lost"])
def test_a_batch_is_submitted_once(provider: str, lost: bool, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """A process that dies while it waits finds its batch again: by the id it wrote down, or at the provider if that is lost too."""
    chat_server.polls = 10**6

    def die(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(provider).complete_batch(prompts(3), max_tokens=9, folder=tmp_path, report=die)
    [ticket] = tmp_path.iterdir()
    [batch] = chat_server.batches
    assert json.loads(ticket.read_text()) == {"batch": batch}
    if lost:
        ticket.unlink()
    chat_server.batches[batch]["polls"] = chat_server.polls = 2
    looked_up = len(chat_server.asked(CREATED[provider], "GET"))
    found = opened(provider).complete_batch(prompts(3), max_tokens=9, folder=tmp_path)
    assert [answer.text for answer in found] == [f"echo: question {n}" for n in range(3)]
    assert len(chat_server.asked(CREATED[provider])) == 1
    assert len(chat_server.asked(CREATED[provider], "GET")) - looked_up == lost


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_lost_answer_to_submitting_is_no_second_batch(provider: str, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """The connection broke after the provider had made the batch: it is looked for and found, also by a later attempt, on any page."""
    chat_server.page = 1
    chat_server.order("lose answer", containing=CREATED[provider], method="POST")
    opened(provider).complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    [ticket] = tmp_path.iterdir()
    ticket.unlink()
    opened(provider).complete_batch(prompts(2), max_tokens=8, folder=tmp_path)  # another batch of the same size, and newer
    found = opened(provider).complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    assert [answer.text for answer in found] == ["echo: question 0", "echo: question 1"]
    assert len(chat_server.asked(CREATED[provider])) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_other_questions_are_another_batch(provider: str, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """A batch of the same size with other questions is not taken for ours."""
    chat_server.answer = lambda chat: chat[-1]["content"].upper()
    opened(provider).complete_batch(prompts(3), max_tokens=9, folder=tmp_path)
    found = opened(provider).complete_batch(prompts(4)[1:], max_tokens=9, folder=tmp_path)
    assert [answer.text for answer in found] == ["QUESTION 1", "QUESTION 2", "QUESTION 3"]
    assert len(chat_server.asked(CREATED[provider])) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_batch_leaves_unanswered_is_asked_directly(provider: str, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """A request that failed or expired inside the batch is neither lost nor made up."""
    chat_server.skip = lambda custom_id: custom_id.endswith("-1")
    found = opened(provider).complete_batch(prompts(3), max_tokens=9, folder=tmp_path)
    assert [answer.text for answer in found] == [f"echo: question {n}" for n in range(3)]
    assert [answer.latency_s is None for answer in found] == [True, False, True]


@pytest.mark.parametrize(
    ("provider", "ending", "why"), [("openai", "failed", "enqueued token limit"), ("anthropic", "cancelled", "cancelled")]
)
def test_a_batch_that_failed_can_be_submitted_anew(
    provider: str, ending: str, why: str, opened: Open, chat_server: ChatServer, tmp_path: Path
) -> None:
    """A batch that came to nothing is an error that says why, and does not stand in the way of the next."""
    chat_server.ending = ending
    with pytest.raises(EnvironmentLacks, match=why):
        opened(provider).complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    if provider == "openai":
        chat_server.batches["batch_0"]["metadata"] = {}  # the server shows one ending for all
    else:
        del chat_server.batches["msgbatch_0"]
        chat_server.batches["gone"] = {"id": "gone", "created_at": 0, "polls": 0, "requests": []}
    chat_server.ending = "completed"
    assert len(opened(provider).complete_batch(prompts(2), max_tokens=9, folder=tmp_path)) == 2
    assert len(chat_server.asked(CREATED[provider])) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("found", [False, True], ids=["submitted anew", "found again"])
def test_a_ticket_of_a_batch_that_is_gone_is_thrown_away(
    provider: str, found: bool, opened: Open, chat_server: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch id that the provider does not know does not fail for ever: the batch is looked up, or submitted again."""
    model = opened(provider)
    model.complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    [ticket] = tmp_path.iterdir()
    if found:
        ticket.write_text('{"batch": "batch_of_old"}')
        chat_server.order("404", containing="batch_of_old", message="No batch found with id")
    else:
        [(name, batch)] = chat_server.batches.items()
        chat_server.batches.clear()
        chat_server.batches["other"] = batch | {"id": "other", "metadata": {}, "requests": []}  # ids are given by count
        chat_server.order("404", containing=name, message="No batch found with id")
    answers = model.complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    assert [answer.text for answer in answers] == ["echo: question 0", "echo: question 1"]
    assert len(chat_server.asked(CREATED[provider])) == (1 if found else 2)
    assert "is gone" in caplog.text
    assert json.loads(ticket.read_text())["batch"] in chat_server.batches


@pytest.mark.parametrize("provider", PROVIDERS)
def test_results_that_are_gone_are_asked_for_anew(provider: str, opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """A batch that is still listed, but whose answers were deleted, is not waited for again."""
    model = opened(provider)
    model.complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    [name] = chat_server.batches
    chat_server.order("404", times=100, containing=f"{name}-output" if provider == "openai" else f"{name}/results", message="No such file")
    assert len(model.complete_batch(prompts(2), max_tokens=9, folder=tmp_path)) == 2
    assert len(chat_server.asked(CREATED[provider])) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_elsewhere_is_another_batch(provider: str, chat_server: ChatServer, tmp_path: Path) -> None:
    """A ticket of one server means nothing to another, although questions and model are the same."""
    address = getattr(chat_server, provider)
    for base_url in (address, address.replace("127.0.0.1", "localhost"), address):
        open_chat(provider, "judge-1", base_url).complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert len(chat_server.asked(CREATED[provider])) == 2


def test_nothing_to_ask_is_no_batch(opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """No prompts, no request."""
    assert opened("openai").complete_batch([], max_tokens=9, folder=tmp_path) == []
    assert chat_server.seen == []
