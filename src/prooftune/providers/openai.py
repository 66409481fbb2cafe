"""OpenAI's chat models, and any server that speaks their protocol. The only file that imports the SDK ``openai``.

Source: https://developers.openai.com/api/reference.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from prooftune.errors import SpecError, TransientError
from prooftune.providers.batches import RESULTS_KEPT_S, BatchStatus, answer_through, batch_key, custom_id
from prooftune.providers.calls import TIMEOUT_S, Caller, Failure
from prooftune.providers.chat import KEYS, ChatAnswer, Prompt, as_dicts, in_order
from prooftune.types import Report, no_report

if TYPE_CHECKING:
    from openai import OpenAI

ADDRESS = "https://api.openai.com/v1"
"""Others of OpenAI's own, such as https://eu.api.openai.com/v1, keep data in a region."""
OWN = (".openai.com", ".openai.azure.com")
"""Ends of the hosts that serve OpenAI's own models."""
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
SEED = 7
"""OpenAI calls repeatability by it "best effort"."""
WITHOUT_ANSWERS = ("failed", "cancelled", "canceled")
"""A batch's last statuses when nothing was answered; Azure spells one of them in either way."""
UNREAD = ("pending", "running", "notRunning", "uploading")
"""Statuses of a file that Azure has not read yet."""
READ_WITHIN_S = 1800.0
READ_POLL_S = 1.0
LIMITS = ("max_completion_tokens", "max_tokens")
"""OpenAI's newer models take only the first; servers that followed the old protocol take only the second, and some ignore the first
without a word. So the hosts in ``OWN`` are asked with the first, all others with the second, until they refuse it."""


class _Content(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Content
    finish_reason: str | None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    """What we read of a chat completion. A server that does not count tokens is of no use here: costs rest on them."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage

    def answer(self, latency_s: float | None) -> ChatAnswer:
        choice = self.choices[0]
        refusal = choice.message.refusal is not None or choice.finish_reason == "content_filter"
        return ChatAnswer(
            text=choice.message.refusal or choice.message.content or "",
            prompt_tokens=self.usage.prompt_tokens,
            answer_tokens=self.usage.completion_tokens,
            finished=choice.finish_reason in ("stop", "eos") and not refusal,  # "eos": Together's word for a model that ended by itself
            latency_s=latency_s,
            refusal=refusal,
        )


class _Counts(BaseModel):
    completed: int | None = None
    """None = not said yet, as by Azure while it validates."""
    failed: int | None = None


class _Fault(BaseModel):
    message: str | None = None


class _Faults(BaseModel):
    data: list[_Fault] | None = None


class _Batch(BaseModel):
    """What we read of a batch."""

    id: str
    status: str
    created_at: datetime
    """Seconds since the epoch, or in words: Azure's documentation shows both."""
    metadata: dict[str, str] | None = None
    request_counts: _Counts | None = None
    output_file_id: str | None = None
    errors: _Faults | None = None


class _Page(BaseModel):
    data: list[_Batch]
    has_more: bool = False


class _File(BaseModel):
    id: str
    status: str | None = None


class _Response(BaseModel):
    status_code: int
    body: dict[str, Any]


class _Line(BaseModel):
    """A line of a batch's output."""

    custom_id: str
    response: _Response | None = None


@dataclass
class Parameters:
    """Which parameters a model takes, learnt from what it refuses.

    OpenAI's models that think refuse ``temperature`` and ``max_tokens``; older servers know no ``max_completion_tokens``, and some no
    ``seed``. No list of model names stays right for long, so the refusal itself is what tells: HTTP 400 or 422 that names a parameter.
    """

    limits: tuple[str, ...]
    """Names of the token limit, the likeliest first. A request never goes without one."""
    optional: Mapping[str, float]
    """Parameters to send as long as they are not refused."""
    refused: set[str] = field(default_factory=set)

    def values(self, max_tokens: int) -> dict[str, float]:
        """Return the parameters to send next."""
        limit = next((name for name in self.limits if name not in self.refused), self.limits[-1])
        return {limit: max_tokens} | {name: value for name, value in self.optional.items() if name not in self.refused}

    def adapt(self, sent: Mapping[str, Any], failure: Failure) -> bool:
        """Note the parameter that a refusal of ``sent`` names; return whether there is another way to ask."""
        if failure.status not in (400, 422):
            return False
        named = next((name for name in (*self.limits, *self.optional) if name in sent and _names(failure, name)), None)
        if named is None or (named in self.limits and not set(self.limits) - self.refused - {named}):
            return False
        self.refused.add(named)
        return True


def _names(failure: Failure, parameter: str) -> bool:
    if failure.parameter is not None:
        return failure.parameter == parameter
    return re.search(rf"\b{parameter}\b", failure.message) is not None


def open_client(where: str, provider: str, key: str, base_url: str | None = None) -> tuple[OpenAI, Caller]:
    """Return the SDK's client, its own retries off, and what makes its requests; nothing is sent yet.

    Raises:
        SpecError: no address is given for a provider other than OpenAI: what is meant for it must not go to OpenAI.
    """
    from openai import APIError, OpenAI

    if base_url is None and provider != "openai":
        raise SpecError(f"{where} has no address; set base_url, for Azure to https://NAME.openai.azure.com/openai/v1")
    client = OpenAI(api_key=key, base_url=base_url or ADDRESS, max_retries=0, timeout=TIMEOUT_S)
    return client, Caller(where, KEYS[provider], key, APIError)


class OpenAIChat:
    """A chat model of OpenAI or of a server with its protocol."""

    def __init__(
        self, model: str, key: str, base_url: str | None = None, provider: str = "openai", *, batches_at: str | None = None
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: As the provider calls it; at Azure the deployment that answers directly.
            key: Of the account.
            base_url: None = OpenAI's own address.
            provider: Whose server it is: it names the key's variable in errors.
            batches_at: Azure's deployment that takes batches, which answers nothing directly; None = ``model`` does both.
        """
        self.name = model
        self.batches_at = batches_at or model
        self.client, self.call = open_client(f"{provider} {model}" + (f" at {base_url}" if base_url else ""), provider, key, base_url)
        own = urlsplit(base_url or ADDRESS).hostname or ""
        self._parameters = Parameters(LIMITS if own.endswith(OWN) else LIMITS[::-1], {"temperature": 0, "seed": SEED})

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return in_order(partial(self.ask, max_tokens=max_tokens), prompts)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through the batch API: half the price, up to 24 hours."""
        queue = _Queue(self, prompts, max_tokens)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""
        sent: dict[str, Any] = {}

        def request() -> ChatAnswer:
            sent.clear()
            sent.update(self.body(prompt, max_tokens))
            response = self.client.chat.completions.with_raw_response.create(**sent)
            return _Completion.model_validate_json(response.text).answer(response.elapsed.total_seconds())

        def adapt(failure: Failure) -> bool:
            return self._parameters.adapt(sent, failure)

        return self.call(request, adapt=adapt)

    def body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """Return the request for one prompt, with the parameters that the model is known to take."""
        return {"model": self.name, "messages": as_dicts(prompt), **self._parameters.values(max_tokens)}


class _Queue:
    """One set of questions at OpenAI's batch API. A batch carries their digest as metadata."""

    def __init__(self, chat: OpenAIChat, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.key = batch_key(chat.batches_at, str(chat.client.base_url), prompts, max_tokens)
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._batches = chat.client.batches.with_raw_response

    def find(self) -> str | None:
        """Return the id of the batch with this digest, looking from the newest to those whose answers are gone."""
        after: dict[str, Any] = {}
        while True:
            page = self._chat.call(partial(self._page, after))
            for batch in page.data:
                if batch.created_at.timestamp() < time.time() - RESULTS_KEPT_S:
                    return None
                if (batch.metadata or {}).get("prooftune") == self.key and batch.status.lower() not in ("cancelling", *WITHOUT_ANSWERS):
                    return batch.id
            if not page.has_more or not page.data:
                return None
            after = {"after": page.data[-1].id}

    def _page(self, after: dict[str, Any]) -> _Page:
        return _Page.model_validate_json(self._batches.list(limit=100, **after).text)

    def submit(self) -> str:
        """Upload the questions (a failed upload leaves an unused file at worst) and create the batch, with a single attempt."""
        lines = [
            {"custom_id": custom_id(self.key, n), "method": "POST", "url": ENDPOINT, "body": self._body(prompt)}
            for n, prompt in enumerate(self._prompts)
        ]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        files = self._chat.client.files.with_raw_response
        upload = self._chat.call(lambda: _File.model_validate_json(files.create(file=(f"{self.key}.jsonl", data), purpose="batch").text))
        self._wait_until_read(upload)
        return self._chat.call.create(
            lambda: (
                _Batch.model_validate_json(
                    self._batches.create(
                        input_file_id=upload.id, endpoint=ENDPOINT, completion_window="24h", metadata={"prooftune": self.key}
                    ).text
                ).id
            )
        )

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        return self._chat.body(prompt, self._max_tokens) | {"model": self._chat.batches_at}

    def _wait_until_read(self, file: _File) -> None:
        """Wait while Azure reads the questions; elsewhere a file can be used as soon as it is there."""
        retrieve, started = self._chat.client.files.with_raw_response.retrieve, time.monotonic()
        while file.status in UNREAD:
            if time.monotonic() - started > READ_WITHIN_S:
                told = f"the questions in {file.id} are {file.status} after {READ_WITHIN_S / 60:.0f} minutes"
                raise TransientError(f"{told}; run the same command again later")
            time.sleep(READ_POLL_S)
            file = self._chat.call(partial(lambda name: _File.model_validate_json(retrieve(name).text), file.id))

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is. An unknown status is taken for one that does not last."""
        found = self._retrieve(batch)
        counts, word = found.request_counts or _Counts(), found.status.lower()
        why = "; ".join(fault.message or "no reason given" for fault in (found.errors.data if found.errors else None) or ())
        return BatchStatus(
            text=found.status,
            done=(counts.completed or 0) + (counts.failed or 0),
            ended=word in ("completed", "expired", *WITHOUT_ANSWERS),
            failed=why or word if word in WITHOUT_ANSWERS else "",
        )

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id. A batch in which no request succeeded has no output file."""
        output = self._retrieve(batch).output_file_id
        if output is None:
            return {}
        files = self._chat.client.files
        return self._chat.call(lambda: dict(_answers(files.content(output).text)))

    def _retrieve(self, batch: str) -> _Batch:
        return self._chat.call(lambda: _Batch.model_validate_json(self._batches.retrieve(batch).text))


def _answers(lines: str) -> Iterator[tuple[str, ChatAnswer]]:
    for text in lines.split("\n"):
        if text.strip():
            line = _Line.model_validate_json(text)
            if line.response is not None and line.response.status_code == 200:
                yield line.custom_id, _Completion.model_validate(line.response.body).answer(None)
