"""What the chat clients promise, against a server on a real socket, and what OpenAI's own description of its API says about it."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures_chat import CREATED, PATHS, PROVIDERS, Chat, ChatServer, Json, Open, batched, prompts
from tests_support import ROOT

from prooftune.errors import DataError, EnvironmentLacks, ProoftuneError, SpecError, TransientError
from prooftune.providers import calls
from prooftune.providers.calls import Failure, retry_after
from prooftune.providers.chat import REQUESTS_AT_ONCE, open_chat
from prooftune.providers.openai import Parameters
from prooftune.types import Message

pytest_plugins = ["fixtures_chat"]
DESCRIPTION = ROOT.parent / "shared" / "openapi" / "openai.json"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_come_in_order(provider: str, opened: Open, chat_server: ChatServer) -> None:
    """Answers, tokens and latencies belong to their prompts, whatever the order of arrival; only so many requests are under way."""
    chat_server.delay = lambda chat: 0.02 * (int(chat[-1]["content"].split()[-1]) % 3)
    found = list(opened(provider).complete(prompts(30), max_tokens=9))
    assert [answer.text for answer in found] == [f"echo: question {n}" for n in range(30)]
    assert {(answer.prompt_tokens, answer.answer_tokens, answer.finished, answer.refusal) for answer in found} == {(4, 3, True, False)}
    assert all(answer.latency_s is not None and 0 < answer.latency_s < 5 for answer in found)
    assert 1 < chat_server.most_under_way <= REQUESTS_AT_ONCE


@pytest.mark.parametrize("provider", PROVIDERS)
def test_requests_are_greedy_and_limited(provider: str, opened: Open, chat_server: ChatServer) -> None:
    """OpenAI's protocol gets temperature 0 and a seed; Anthropic's, which refuses both, neither, and the system message apart."""
    list(opened(provider).complete(prompts(1), max_tokens=9))
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "question 0"}
    wanted = {
        "openai": {"messages": [system, user], "temperature": 0, "seed": 7},
        "anthropic": {"messages": [user], "system": "Be brief."},
    }
    assert chat_server.asked(PATHS[provider]) == [{"model": "judge-1", "max_tokens": 9} | wanted[provider]]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ["429", "500", "529", "reset", "malformed", "not a reply", "cut"])
def test_what_may_pass_is_tried_again(provider: str, fault: str, opened: Open, chat_server: ChatServer) -> None:
    """Rate limits, server errors, broken connections and broken bodies are tried again, and then the answer is there."""
    chat_server.order(fault, times=2)
    [answer] = opened(provider).complete(prompts(1), max_tokens=9)
    assert answer.text == "echo: question 0"
    assert len(chat_server.seen) == 3


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ["429", "500", "reset", "malformed", "cut"])
def test_what_does_not_pass_is_transient(provider: str, fault: str, opened: Open, chat_server: ChatServer) -> None:
    """After a few attempts the stage's own retry takes over."""
    chat_server.order(fault, times=100, message="overloaded just now")
    with pytest.raises(TransientError, match=f"{provider} judge-1"):
        list(opened(provider).complete(prompts(1), max_tokens=9))
    assert len(chat_server.seen) == calls.ATTEMPTS


@pytest.mark.parametrize(("provider", "missing"), [("openai", "choices .* at least 1 item"), ("anthropic", "content .* valid array")])
def test_a_server_that_breaks_the_protocol_is_told_why(provider: str, missing: str, opened: Open, chat_server: ChatServer) -> None:
    """The error names the part of the answer that is missing or wrong, and none of its text."""
    chat_server.order("not a reply", times=100)
    with pytest.raises(TransientError, match=f"not what the API promises: {missing}"):
        list(opened(provider).complete(prompts(1), max_tokens=9))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_retry_after_is_honoured(provider: str, opened: Open, chat_server: ChatServer) -> None:
    """The next attempt comes no sooner than the server asks for."""
    chat_server.order("429", headers={"Retry-After": "0.4"})
    list(opened(provider).complete(prompts(1), max_tokens=9))
    assert chat_server.times[1] - chat_server.times[0] >= 0.4


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("header", ["86400", "1e300", "inf", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_retry_after_ends_the_attempt(
    provider: str, header: str, opened: Open, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for days inside a request; the error says what the server asked for."""
    monkeypatch.setattr(calls, "time", SimpleNamespace(sleep=lambda seconds: None))
    chat_server.order("429", headers={"Retry-After": header}, message="slow down")
    with pytest.raises(TransientError, match=r"asks to wait .* s.*429: slow down"):
        list(opened(provider).complete(prompts(1), max_tokens=9))
    assert len(chat_server.seen) == 1


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("soon", None), ("nan", None), ("-3", 0.0), ("2.5", 2.5)])
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    """Numbers are read, nonsense is not guessed at, and a time in the past is no wait."""
    assert retry_after(header) == seconds
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, SpecError, "correct the model"),
        (401, EnvironmentLacks, "_API_KEY is not accepted"),
        (403, EnvironmentLacks, "may not do this"),
        (404, SpecError, "no such model"),
        (413, SpecError, "too large"),
        (418, EnvironmentLacks, "refused"),
        (422, SpecError, "correct the model"),
    ],
)
def test_refusals_are_errors_of_ours(
    provider: str, status: int, kind: type[ProoftuneError], advice: str, opened: Open, chat_server: ChatServer
) -> None:
    """A refused request is not tried again; the error says what to do and keeps the provider's own words."""
    chat_server.order(str(status), message="the model judge-1 is out to lunch")
    with pytest.raises(kind, match=rf"{advice}.*{status}: the model judge-1 is out to lunch") as caught:
        list(opened(provider).complete(prompts(1), max_tokens=9))
    assert len(chat_server.seen) == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own


def test_an_empty_account_is_not_waited_for(opened: Open, chat_server: ChatServer) -> None:
    """OpenAI's 429 for an account without credit is no rate limit."""
    chat_server.order("429", more={"code": "insufficient_quota"})
    with pytest.raises(EnvironmentLacks, match="no credit left"):
        list(opened("openai").complete(prompts(1), max_tokens=9))
    assert len(chat_server.seen) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_refused_and_cut_answers_are_marked(provider: str, opened: Open, chat_server: ChatServer) -> None:
    """A refusal is told apart from an answer, and a cut answer from a finished one."""
    chat_server.order("refusal")
    [refused] = opened(provider).complete(prompts(1), max_tokens=9)
    assert (refused.refusal, refused.finished) == (True, False)
    chat_server.order("truncated")
    [cut] = opened(provider).complete(prompts(1), max_tokens=9)
    assert (cut.refusal, cut.finished, cut.text) == (False, False, "echo: question 0")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_after_an_error_nothing_further_is_asked(provider: str, opened: Open, chat_server: ChatServer) -> None:
    """A wrong key costs one round of requests, not one request a prompt."""
    chat_server.order("403", times=1000)
    with pytest.raises(EnvironmentLacks):
        list(opened(provider).complete(prompts(200), max_tokens=9))
    assert len(chat_server.seen) < 100


# What models refuse


def refusing(*names: str) -> Callable[[ChatServer], None]:
    """Order refusals of these parameters, one after the other, in OpenAI's words."""

    def order(server: ChatServer) -> None:
        for name in names:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            server.order("400", containing="completions", message=message, more={"param": name})

    return order


def test_parameters_that_a_model_refuses_are_not_sent_again(opened: Open, chat_server: ChatServer) -> None:
    """A thinking model behind a gateway gets max_completion_tokens and no temperature; later requests start from what was learnt."""
    refusing("max_tokens", "temperature")(chat_server)
    model = opened("openai")
    list(model.complete(prompts(1), max_tokens=9))
    list(model.complete(prompts(1), max_tokens=9))
    sent = [set(body) - {"model", "messages"} for body in chat_server.asked(PATHS["openai"])]
    assert sent == [
        {"max_tokens", "temperature", "seed"},
        {"max_completion_tokens", "temperature", "seed"},
        {"max_completion_tokens", "seed"},
        {"max_completion_tokens", "seed"},
    ]


def test_no_request_goes_without_a_limit(opened: Open, chat_server: ChatServer) -> None:
    """Where both names of the limit are refused, that is the error: an unlimited answer has an unlimited price."""
    refusing("max_tokens", "max_completion_tokens")(chat_server)
    with pytest.raises(SpecError, match="max_completion_tokens"):
        list(opened("openai").complete(prompts(1), max_tokens=9))


@pytest.mark.parametrize(
    ("base_url", "limit"),
    [
        (None, "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
        ("https://openai.com.example.org/v1", "max_tokens"),
    ],
)
def test_openai_itself_gets_the_new_name(base_url: str | None, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own addresses are asked with max_completion_tokens, others with what every server knows."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    model: Any = open_chat("openai", "judge-1", base_url)
    assert set(model.body([], 5)) == {"model", "messages", "temperature", "seed", limit}


def test_only_a_refusal_of_a_parameter_changes_the_request() -> None:
    """Server errors and refusals of something else do not; a refusal that names the parameter does."""
    own = Parameters(("max_completion_tokens", "max_tokens"), {})
    assert own.values(3) == {"max_completion_tokens": 3}
    assert not own.adapt({"max_completion_tokens": 3}, Failure("max_completion_tokens", status=500))
    assert not own.adapt({"max_completion_tokens": 3}, Failure("the prompt is too long", status=400))
    assert own.adapt({"max_completion_tokens": 3}, Failure("Unrecognised: max_completion_tokens", status=422))
    assert own.values(3) == {"max_tokens": 3}


# Keys


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_missing_key_is_said(provider: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its key no client opens, not even for a server on this machine."""
    variable = f"{provider.upper()}_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    with pytest.raises(EnvironmentLacks, match=f"{variable} is not set.*set it in the environment"):
        open_chat(provider, "judge-1", "http://127.0.0.1:9")


@pytest.mark.parametrize("planted", ["sk-canary\x07", "sk-canary two", "sk-cänary"])
def test_an_impossible_key_is_refused_unseen(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that no header can hold would be quoted by the HTTP library's error; it never gets there."""
    monkeypatch.setenv("OPENAI_API_KEY", planted)
    with pytest.raises(EnvironmentLacks, match="characters that no key has") as caught:
        open_chat("openai", "judge-1")
    assert "nary" not in str(caught.value)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_key_is_nowhere_to_be_read(
    provider: str, opened: Open, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that echoes the key, and every library at its most talkative, still put it into no message, chain, repr or log line."""
    caplog.set_level(logging.DEBUG)
    chat_server.order("500")
    list(opened(provider).complete(prompts(1), max_tokens=9))
    for fault in ("400", "500", "reset"):
        chat_server.order(fault, times=calls.ATTEMPTS, message=f"bad key {chat_server.key}", headers={"Retry-After": "0"})
        with pytest.raises(ProoftuneError) as caught:
            list(opened(provider).complete(prompts(1), max_tokens=9))
        assert chat_server.key not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    other = "sk-another-canary-77e1"
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"{other}\r\n")
    model = opened(provider)
    with pytest.raises(EnvironmentLacks, match=r"is not accepted.*Incorrect API key provided: \[key\]"):
        list(model.complete(prompts(1), max_tokens=9))
    told = caplog.text + repr(model) + repr(vars(model))
    assert chat_server.key not in told
    assert other not in told


def test_unusable_addresses_are_refused(chat_server: ChatServer) -> None:
    """An unknown provider and a base_url that is none are errors of the spec."""
    with pytest.raises(SpecError, match="no chat API"):
        open_chat("acme", "m")
    with pytest.raises(SpecError, match="is no address"):
        open_chat("openai", "m", "127.0.0.1:80")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_environment_does_not_redirect_data(provider: str, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without base_url data goes to the provider, even where the SDK's own variable names another server."""
    monkeypatch.setenv(f"{provider.upper()}_BASE_URL", getattr(chat_server, provider))
    model: Any = open_chat(provider, "judge-1")
    assert model.client.base_url.host == f"api.{provider}.com"


def test_tool_messages_cannot_be_sent(opened: Open) -> None:
    """A tool's result needs the id of its call, which examples do not hold."""
    with pytest.raises(DataError, match="role 'tool'"):
        list(opened("openai").complete([[Message(role="tool", content="4")]], max_tokens=9))


# OpenAI's description


def errors_by(description: Json, schema: str, value: object) -> list[str]:
    """Return what a value breaks of a schema in the description."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    registry: Any = Registry().with_resource("openai", Resource(contents=description, specification=DRAFT202012))
    validator = Draft202012Validator({"$ref": f"openai#/components/schemas/{schema}"}, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="OpenAI's OpenAPI document is not beside the checkout (../shared/openapi/openai.json)")
def test_openai_traffic_is_as_described(opened: Open, chat_server: ChatServer, tmp_path: Path) -> None:
    """Every request that the client sends and every answer that the stand-in gives is valid by OpenAI's own description of its API."""
    description = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    model = opened("openai")
    list(model.complete(prompts(2), max_tokens=9))
    refusing("max_tokens")(chat_server)
    model.complete_batch(prompts(2), max_tokens=9, folder=tmp_path)
    checked = [("CreateChatCompletionRequest", body) for body in chat_server.asked(PATHS["openai"])]
    checked += [("CreateChatCompletionRequest", body) for body in batched("openai", chat_server)]
    checked += [("CreateBatchRequest", body) for body in chat_server.asked(CREATED["openai"])]
    for where, answer in chat_server.sent:
        method, path = where.split()
        kind = {PATHS["openai"]: "CreateChatCompletionResponse", "/v1/files": "OpenAIFile", "/v1/batches": "Batch"}.get(path, "Batch")
        checked.append(("ListBatchesResponse" if where == "GET /v1/batches" else kind, answer))
        assert method in ("GET", "POST")
    assert {"OpenAIFile", "Batch", "CreateBatchRequest", "ListBatchesResponse"} <= {schema for schema, _ in checked}
    assert [(schema, errors) for schema, value in checked if (errors := errors_by(description, schema, value))] == []


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="OpenAI's OpenAPI document is not beside the checkout (../shared/openapi/openai.json)")
def test_the_description_refuses_what_is_wrong() -> None:
    """The check above can fail."""
    description = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    assert errors_by(description, "CreateChatCompletionRequest", {"model": "m"})
    assert errors_by(description, "CreateBatchRequest", {"input_file_id": "f", "endpoint": "/v1/nowhere", "completion_window": "24h"})
    assert errors_by(description, "Batch", {"id": "b"})


def test_chats_are_what_the_server_gets(opened: Open, chat_server: ChatServer) -> None:
    """Text of any script arrives as it was."""
    told: list[Chat] = []

    def remember(chat: Chat) -> str:
        told.append(chat)
        return "ok"

    chat_server.answer = remember
    text = "ä \u202e 🙂 \x00 \r\n \u2028 end"
    list(opened("openai").complete([[Message(role="user", content=text)]], max_tokens=5))
    assert told == [[{"role": "user", "content": text}]]
