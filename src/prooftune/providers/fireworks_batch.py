"""Fireworks' chat models: asked through OpenAI's protocol, and in batches through jobs on datasets, at half the price.

Source: https://docs.fireworks.ai/guides/batch-inference.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from pydantic import BaseModel, Field

from prooftune.providers.batches import BatchStatus, answer_through, batch_key, custom_id
from prooftune.providers.calls import NotFoundError
from prooftune.providers.chat import COMPATIBLE, ChatAnswer, Prompt, read_key
from prooftune.providers.fireworks_answers import STATUSES, BatchAnswer, last
from prooftune.providers.fireworks_connection import Connection
from prooftune.providers.fireworks_datasets import Datasets
from prooftune.providers.openai import OpenAIChat
from prooftune.providers.tuning import ENDED, MARK, status_of
from prooftune.types import Report, no_report

RESULTS = "BIJOutputSet.jsonl"
"""File of an output dataset with the answers, those too that a job has when it expires; what failed is in another."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Response(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage


class _Line(BaseModel):
    """A line of a batch's answers; unlike OpenAI's, its response is the completion itself."""

    custom_id: str
    response: _Response

    def answer(self) -> ChatAnswer:
        choice, usage = self.response.choices[0], self.response.usage
        return ChatAnswer(
            text=choice.message.content or "",
            prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.completion_tokens,
            finished=choice.finish_reason == "stop",
            latency_s=None,
        )


class FireworksChat:
    """A base model, or an adapter on a deployment."""

    def __init__(self, model: str, base_url: str | None, api: Connection, datasets: Datasets) -> None:
        """``base_url`` is that of the inference, null = Fireworks' own; ``api`` and ``datasets`` are for batches."""
        self.name = model
        self._openai = OpenAIChat(model, read_key("fireworks"), base_url or COMPATIBLE["fireworks"], "fireworks")
        self._api = api
        self._datasets = datasets

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""
        return self._openai.ask(prompt, max_tokens)

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return self._openai.complete(prompts, max_tokens=max_tokens)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through a batch inference job: half the price, up to 24 hours."""
        queue = _Queue(self._openai, prompts, max_tokens, self._api, self._datasets)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)


class _Queue:
    """One set of questions as a batch inference job. Its id is their digest and a number, raised where the job before came to nothing."""

    def __init__(self, chat: OpenAIChat, prompts: Sequence[Prompt], max_tokens: int, api: Connection, datasets: Datasets) -> None:
        self.key = batch_key(chat.name, str(chat.client.base_url), prompts, max_tokens)
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._api = api
        self._datasets = datasets

    def find(self) -> str | None:
        """Return the id of the job of these questions that did not come to nothing."""
        return next((last(job.name) for job in self._known() if not _came_to_nothing(job)), None)

    def submit(self) -> str:
        """Upload the questions as a dataset and create the job under the first free id: a repeated request creates no second one."""
        job = f"{MARK}-{self.key}-{sum(1 for _ in self._known()) + 1}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "questions.jsonl"
            with path.open("w", encoding="utf-8", newline="\n") as lines:
                lines.writelines(json.dumps(self._line(number, prompt)) + "\n" for number, prompt in enumerate(self._prompts))
            dataset = self._datasets.ensure(f"{MARK}-{self.key}-in", path)
        model = self._chat.name.partition("#")[0]  # a batch needs no deployment
        jobs = self._api.client.batch_inference_jobs
        self._api.make(lambda: jobs.create(batch_inference_job_id=job, model=model, input_dataset_id=dataset))
        return job

    def status(self, batch: str) -> BatchStatus:
        """Return how far the job is. An unknown state is taken for one that does not last."""
        found = self._job(batch)
        return BatchStatus(
            text=found.state,
            done=found.job_progress.total_processed_requests if found.job_progress else 0,
            ended=status_of(found.state, STATUSES) in ENDED,
            failed=found.told if _came_to_nothing(found) else "",
        )

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id."""
        output = self._job(batch).output_dataset_id
        text = self._datasets.text(last(output), RESULTS) if output else ""
        lines = [_Line.model_validate_json(line) for line in text.split("\n") if line.strip()]
        return {line.custom_id: line.answer() for line in lines}

    def _known(self) -> Iterator[BatchAnswer]:
        """Yield the jobs of these questions, from the first."""
        for number in count(1):
            try:
                yield self._job(f"{MARK}-{self.key}-{number}")
            except NotFoundError:
                return

    def _line(self, number: int, prompt: Prompt) -> dict[str, object]:
        body = self._chat.body(prompt, self._max_tokens)
        del body["model"]  # the job names it
        return {"custom_id": custom_id(self.key, number), "body": body}

    def _job(self, job: str) -> BatchAnswer:
        return self._api.read(BatchAnswer, lambda: self._api.client.batch_inference_jobs.with_raw_response.get(job))


def _came_to_nothing(job: BatchAnswer) -> bool:
    return status_of(job.state, STATUSES) in ("failed", "cancelled") and job.state != "JOB_STATE_EXPIRED"
