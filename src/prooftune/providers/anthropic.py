"""Anthropic's chat models. The only file that imports the SDK ``anthropic``.

Since API version 2026-10-21 every request that holds ``temperature`` is refused, and there is no seed: two calls may answer differently.
Source: https://platform.claude.com/docs/en/api.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prooftune.providers.batches import RESULTS_KEPT_S, BatchStatus, answer_through, batch_key, custom_id, wait_for
from prooftune.providers.calls import TIMEOUT_S, Caller, NotFoundError
from prooftune.providers.chat import KEYS, ChatAnswer, Prompt, as_dicts, in_order
from prooftune.types import Report, no_report

ADDRESS = "https://api.anthropic.com"


class _Block(BaseModel):
    type: str
    text: str = ""


class _Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Reply(BaseModel):
    """What we read of a message."""

    content: list[_Block]
    stop_reason: str | None
    usage: _Usage

    def answer(self, latency_s: float | None) -> ChatAnswer:
        usage = self.usage
        return ChatAnswer(
            text="".join(block.text for block in self.content if block.type == "text"),
            prompt_tokens=usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0),
            answer_tokens=usage.output_tokens,
            finished=self.stop_reason in ("end_turn", "stop_sequence"),
            latency_s=latency_s,
            refusal=self.stop_reason == "refusal",
        )


class _Counts(BaseModel):
    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class _Batch(BaseModel):
    """What we read of a batch."""

    id: str
    processing_status: str
    created_at: datetime
    request_counts: _Counts


class _Page(BaseModel):
    data: list[_Batch]
    has_more: bool = False


class _Result(BaseModel):
    type: str
    message: _Reply | None = None


class _Line(BaseModel):
    """A line of a batch's results."""

    custom_id: str
    result: _Result


class AnthropicChat:
    """A chat model of Anthropic, or of a server with its protocol."""

    def __init__(self, model: str, key: str, base_url: str | None = None) -> None:
        from anthropic import Anthropic, APIError

        self.name = model
        self.client = Anthropic(api_key=key, base_url=base_url or ADDRESS, max_retries=0, timeout=TIMEOUT_S)
        self.call = Caller(f"anthropic {model}" + (f" at {base_url}" if base_url else ""), KEYS["anthropic"], key, APIError)

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return in_order(partial(self.ask, max_tokens=max_tokens), prompts)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through the batch API: half the price, up to 24 hours."""
        queue = _Queue(self, prompts, max_tokens, report)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""

        def request() -> ChatAnswer:
            response = self.client.messages.with_raw_response.create(**self.body(prompt, max_tokens))
            return _Reply.model_validate_json(response.text()).answer(response.elapsed.total_seconds())

        return self.call(request)

    def body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """Return the request for one prompt; the system message stands apart."""
        messages = as_dicts(prompt)
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        turns = [message for message in messages if message["role"] != "system"]
        return {"model": self.name, "max_tokens": max_tokens, "messages": turns} | ({"system": system} if system else {})


class _Queue:
    """One set of questions at Anthropic's batch API. A batch has no metadata: its digest stands in the custom id of each question."""

    def __init__(self, chat: AnthropicChat, prompts: Sequence[Prompt], max_tokens: int, report: Report) -> None:
        self.key = batch_key(chat.name, str(chat.client.base_url), prompts, max_tokens)
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._report = report
        self._batches = chat.client.messages.batches.with_raw_response

    def find(self) -> str | None:
        """Return the id of the batch with this digest, looking from the newest to those whose answers are gone.

        Custom ids can be read only when a batch has ended. So one with as many questions that is still under way is waited for first:
        it may be ours, and a wait costs less than a second bill.
        """
        after: dict[str, Any] = {}
        while True:
            page = self._chat.call(partial(self._page, after))
            for batch in page.data:
                if batch.created_at < datetime.now(UTC) - timedelta(seconds=RESULTS_KEPT_S):
                    return None
                if batch.request_counts.total == len(self._prompts) and self._is_ours(batch):
                    return batch.id
            if not page.has_more or not page.data:
                return None
            after = {"after_id": page.data[-1].id}

    def _is_ours(self, batch: _Batch) -> bool:
        if batch.processing_status == "canceling" or batch.request_counts.canceled:
            return False
        if wait_for(self, batch.id, len(self._prompts), self._report).failed:
            return False
        try:
            return any(line.custom_id.startswith(f"{self.key}-") for line in self._results(batch.id))
        except NotFoundError:  # its results were deleted: it is good for no answer, whoever's it is
            return False

    def _page(self, after: dict[str, Any]) -> _Page:
        return _Page.model_validate_json(self._batches.list(limit=100, **after).text())

    def submit(self) -> str:
        """Create the batch, with a single attempt."""
        requests: list[Any] = [
            {"custom_id": custom_id(self.key, n), "params": self._chat.body(prompt, self._max_tokens)}
            for n, prompt in enumerate(self._prompts)
        ]
        return self._chat.call.create(lambda: _Batch.model_validate_json(self._batches.create(requests=requests).text()).id)

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is."""
        found = self._chat.call(lambda: _Batch.model_validate_json(self._batches.retrieve(batch).text()))
        counts = found.request_counts
        return BatchStatus(
            text=found.processing_status,
            done=counts.total - counts.processing,
            ended=found.processing_status == "ended",
            failed="it was cancelled" if counts.canceled else "",
        )

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id."""
        lines = self._results(batch)
        return {line.custom_id: line.result.message.answer(None) for line in lines if line.result.message is not None}

    def _results(self, batch: str) -> list[_Line]:
        """Return the lines of the batch's results; read whole, so that a connection that breaks halfway is one that is tried again."""
        import httpx2

        address = f"/v1/messages/batches/{batch}/results"

        def request() -> list[_Line]:
            text = self._chat.client.get(address, cast_to=httpx2.Response).text
            return [_Line.model_validate_json(line) for line in text.split("\n") if line.strip()]

        return self._chat.call(request)
