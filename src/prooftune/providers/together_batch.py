"""Together's chat models: asked through OpenAI's protocol, and in batches by an API that has only the idea in common with OpenAI's.

Source: https://docs.together.ai/docs/inference/batch/overview. The discount is up to one half, by model.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel, Field, RootModel

from prooftune.providers.batches import BatchStatus, answer_through, batch_key, custom_id
from prooftune.providers.chat import ChatAnswer, Prompt, read_key
from prooftune.providers.openai import OpenAIChat
from prooftune.providers.together_answers import FileList
from prooftune.providers.together_connection import Connection, parsed
from prooftune.providers.together_files import upload
from prooftune.providers.tuning import MARK
from prooftune.types import Report, no_report

ENDPOINT = "/v1/chat/completions"
PURPOSE = "batch-api"
ENDED = ("COMPLETED", "FAILED", "EXPIRED", "CANCELLED")
ENDS_TURN = ("stop", "eos")


class _Batch(BaseModel):
    id: str
    status: str
    progress: float | None = None
    """Per cent."""
    input_file_id: str | None = None
    output_file_id: str | None = None
    error: str | None = None


class _Batches(RootModel[list[_Batch]]):
    """All batches: the list has no pages."""


class _Created(BaseModel):
    job: _Batch


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage


class _Response(BaseModel):
    body: _Completion


class _Line(BaseModel):
    """A line of a batch's answers; what failed is in another file."""

    custom_id: str
    response: _Response

    def answer(self) -> ChatAnswer:
        choice, usage = self.response.body.choices[0], self.response.body.usage
        return ChatAnswer(
            text=choice.message.content or "",
            prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.completion_tokens,
            finished=choice.finish_reason in ENDS_TURN,
            latency_s=None,
        )


class TogetherChat:
    """A serverless model, or a deployment."""

    def __init__(self, model: str, base_url: str, api: Connection) -> None:
        """``base_url`` is that of the inference; ``api`` is for batches."""
        self.name = model
        self._openai = OpenAIChat(model, read_key("together"), base_url, "together")
        self._api = api

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""
        return self._openai.ask(prompt, max_tokens)

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return self._openai.complete(prompts, max_tokens=max_tokens)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through the batch API: cheaper for many models, up to 24 hours."""
        queue = _Queue(self._openai, prompts, max_tokens, self._api)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)


class _Queue:
    """One set of questions as a batch. A batch has no metadata: it is known by its input file, whose name holds their digest."""

    def __init__(self, chat: OpenAIChat, prompts: Sequence[Prompt], max_tokens: int, api: Connection) -> None:
        self.key = batch_key(chat.name, str(chat.client.base_url), prompts, max_tokens)
        self._file = f"{MARK}-{self.key}.jsonl"
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._api = api
        self._batches = api.client.batches

    def find(self) -> str | None:
        """Return the id of the batch of these questions that did not come to nothing."""
        files = self._api.read(FileList, self._api.client.files.with_raw_response.list).data
        ours = {file.id for file in files if (file.filename, file.purpose) == (self._file, PURPOSE)}
        known = self._api.read(_Batches, self._batches.with_raw_response.list).root if ours else []
        return next((one.id for one in known if one.input_file_id in ours and one.status not in ("FAILED", "CANCELLED")), None)

    def submit(self) -> str:
        """Upload the questions and create the batch, with a single attempt."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "questions.jsonl"
            with path.open("w", encoding="utf-8", newline="\n") as lines:
                for number, prompt in enumerate(self._prompts):
                    line = {"custom_id": custom_id(self.key, number), "body": self._chat.body(prompt, self._max_tokens)}
                    lines.write(json.dumps(line) + "\n")
            questions = upload(self._api, path, self._file, PURPOSE)
        wanted = {"endpoint": ENDPOINT, "input_file_id": questions, "completion_window": "24h"}
        return self._api.call.create(lambda: parsed(_Created, self._batches.with_raw_response.create(**wanted))).job.id

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is. An unknown status is taken for one that does not last."""
        found = self._retrieve(batch)
        return BatchStatus(
            text=found.status,
            done=int(len(self._prompts) * (found.progress or 0.0) / 100),
            ended=found.status in ENDED,
            failed=(found.error or found.status) if found.status in ("FAILED", "CANCELLED") else "",
        )

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id."""
        output = self._retrieve(batch).output_file_id
        if not output:
            return {}

        def request() -> dict[str, ChatAnswer]:
            text = self._api.client.files.content(output).read().decode()
            lines = [_Line.model_validate_json(line) for line in text.split("\n") if line.strip()]
            return {line.custom_id: line.answer() for line in lines}

        return self._api.call(request)

    def _retrieve(self, batch: str) -> _Batch:
        return self._api.read(_Batch, lambda: self._batches.with_raw_response.retrieve(batch))
