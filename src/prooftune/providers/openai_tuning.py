"""OpenAI's fine-tuning API, spoken through the client of ``providers/openai.py``; Azure's differs in what the hooks at the end say.

Source: https://developers.openai.com/api/reference/resources/fine_tuning, and the SDK's own types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError
from prooftune.providers import openai_rows
from prooftune.providers.calls import NotFoundError
from prooftune.providers.chat import ChatModel, read_key
from prooftune.providers.listing import Unreadable, surely
from prooftune.providers.openai import ADDRESS, OpenAIChat, open_client
from prooftune.providers.openai_answers import (
    RUN_KEY,
    CheckpointAnswer,
    EventAnswer,
    JobAnswer,
    ModelAnswer,
    Page,
    listed,
    numbers,
    plain,
    readable,
)
from prooftune.providers.openai_files import TuningFiles
from prooftune.providers.openai_rows import Rules
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order, Status, suffix_of
from prooftune.spec import Objective, Provider

STATUSES: Mapping[str, Status] = {
    "validating_files": "waiting",
    "queued": "waiting",
    "running": "running",
    "paused": "paused",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""All that the SDK's type knows, and ``paused``, which it does not although there is a request for it."""
SUFFIX_MAX = 64
LAST_JOB = date(2027, 1, 6)
SHUTDOWN = date(2027, 1, 14)
"""Source of both: https://developers.openai.com/api/docs/deprecations, read on 2026-11-22."""
FAMILIES: Mapping[str, tuple[tuple[Objective, ...], date | None]] = {
    "gpt-4.1": (("supervised", "preference"), SHUTDOWN),
    "gpt-4.1-mini": (("supervised", "preference"), SHUTDOWN),
    "gpt-4.1-nano": (("supervised", "preference"), None),
    "gpt-4o": (("supervised", "preference"), SHUTDOWN),
    "gpt-4o-mini": (("supervised", "preference"), SHUTDOWN),
    "o4-mini": (("reinforcement",), None),
}
"""What is tunable, in which ways, and until when it answers; the API tells only the last, and not of every model.

Source: https://developers.openai.com/api/docs/guides/model-optimization.
"""


class OpenAITuner:
    """OpenAI's fine-tuning."""

    provider = "openai"
    creates_once = False
    statuses = STATUSES
    rules = Rules()

    def __init__(self, options: Provider) -> None:
        self.options = options
        self.address = (options.base_url or ADDRESS).rstrip("/")
        self._key = read_key(self.provider)
        self.client, self.call = open_client(f"{self.provider} at {self.address}", self.provider, self._key, self.address)
        self.files = TuningFiles(self.provider, self.client, self.call)
        self._jobs = self.client.fine_tuning.jobs.with_raw_response

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask for the model, and look up whether OpenAI tunes its family."""
        try:
            found = self.call(lambda: ModelAnswer.model_validate_json(self.client.models.with_raw_response.retrieve(model).text))
        except NotFoundError as error:
            return Capability(tunable=False, why=str(error), last_job=LAST_JOB)
        family = family_of(model)
        objectives, shutdown = FAMILIES.get(family, ((), None))
        return Capability(
            tunable=objective in objectives,
            why=f"the model exists, and OpenAI documents {' and '.join(objectives) or 'no'} fine-tuning for it",
            objectives=objectives,
            last_job=LAST_JOB,
            shutdown=found.shutdown_date or shutdown,
            limits=self._limits(),
        )

    def _limits(self) -> dict[str, Any]:
        rules = self.rules
        return {
            "rows_min": rules.rows_min,
            "file_bytes": rules.file_bytes,
            "tokens_per_example": rules.tokens_per_example,
            "epochs_max": 50,
            "batch_size_max": openai_rows.BATCH_MAX,
        }

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write our examples in OpenAI's form, one line an example, in their order."""
        openai_rows.write_rows(examples, system, objective, out, self.rules)

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what OpenAI would refuse in rows of its own form.

        Raises:
            SpecError: it would refuse the order's hyperparameters or grader.
        """
        openai_rows.method(order)
        return openai_rows.check_rows(path, order, role, self.rules)

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Upload rows, unless a file of the same name and size is there, and wait until the provider has read it.

        Raises:
            DataError: the provider finds the file unfit.
        """
        return self.files.upload(path, f"{key}-{role}.jsonl")

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return nothing: OpenAI does not say."""
        return None

    def create(self, order: Order, files: Files) -> Job:
        """Create the job with one request; the run key goes into its metadata."""
        body = self._body(order, files)
        return self._told(self.call.create(lambda: JobAnswer.model_validate_json(self._jobs.create(**body).text)))

    def _body(self, order: Order, files: Files) -> dict[str, Any]:
        if order.objective == "reinforcement" and files.validation is None:
            raise SpecError(f"{order.provider} asks for a validation file with reinforcement tuning; set data.split.validation above 0")
        return {
            "model": order.start or order.model,
            "training_file": files.train,
            "method": openai_rows.method(order),
            "seed": order.seed,
            "suffix": self._suffix(order),
            "metadata": {RUN_KEY: order.key},
            **({"validation_file": files.validation} if files.validation else {}),
        }

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return every job that carries the order's run key, or, where jobs show no metadata, its training file, suffix and seed.

        The file is uploaded under the run key, so its id is the order's alone.

        Raises:
            TransientError: none is found, and one that cannot be read may be the order's.
        """
        jobs = list(listed(partial(self._jobs.list, **self._filter(order)), Page[JobAnswer], self.call))
        found = {job.id: job for job in jobs if not isinstance(job, Unreadable) and self._is_of(job, order, files)}
        hidden = [job for job in jobs if isinstance(job, Unreadable) and _may_be_of(job, order, files)]
        return surely([self._told(job) for job in found.values()], hidden, order)

    def _is_of(self, job: JobAnswer, order: Order, files: Files) -> bool:
        if job.key:
            return job.key == order.key
        suffixed = job.user_provided_suffix in (None, self._suffix(order))
        return suffixed and (job.training_file, job.seed) == (files.train, order.seed)

    def job(self, job: str) -> Job:
        """Return the job as it is now."""
        return self._told(self._job(job))

    def _job(self, job: str) -> JobAnswer:
        return self.call(lambda: JobAnswer.model_validate_json(self._jobs.retrieve(job).text))

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return what the job reported after an event, oldest first. The provider lists the newest first."""
        found: dict[str, Event] = {}
        for event in readable(partial(self._jobs.list_events, job), Page[EventAnswer], self.call):
            if event.id == after:
                break
            found[event.id] = event.told()
        return list(found.values())[::-1]

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return what was saved so far, by step."""
        listing = partial(self.client.fine_tuning.jobs.checkpoints.with_raw_response.list, job)
        found = [
            Checkpoint(id=self._checkpoint(saved), step=saved.step_number, metrics=numbers(saved.metrics))
            for saved in readable(listing, Page[CheckpointAnswer], self.call)
        ]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def download(self, job: str, out: Path) -> list[str]:
        """Write the job's result files, tables of metrics by step; OpenAI keeps the weights."""
        out.mkdir(parents=True, exist_ok=True)
        names = []
        for number, file in enumerate(self._job(job).result_files, start=1):
            data = self.call(lambda file=file: self.client.files.content(file).content)  # type: ignore[misc]  # bound for the loop
            names.append("metrics.csv" if number == 1 else f"metrics-{number}.csv")
            part = out / f"{names[-1]}.part"
            part.write_bytes(plain(data))
            part.replace(out / names[-1])
        return names

    def cancel(self, job: str) -> Job:
        """Ask to end the job. The provider refuses that for one that has ended, which is fine."""
        try:
            return self._told(self.call(lambda: JobAnswer.model_validate_json(self._jobs.cancel(job).text)))
        except SpecError:
            found = self.job(job)
            if found.ended:
                return found
            raise

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Make nothing: OpenAI's tuned models answer as they are."""
        return None

    def deployments(self) -> list[Deployment]:
        """Return nothing: nothing has to run."""
        return []

    def take_down(self, name: str) -> None:
        """End nothing."""

    def chat(self, model: str) -> ChatModel:
        """Return the client that prompts a base model or a tuned one."""
        return OpenAIChat(model, self._key, self.address, self.provider)

    def _told(self, job: JobAnswer) -> Job:
        return job.told(self.statuses)

    # What Azure does otherwise

    def _suffix(self, order: Order) -> str:
        return suffix_of(order, SUFFIX_MAX)

    def _filter(self, order: Order) -> dict[str, Any]:
        """Return the query that makes a list of jobs short. The list is searched all the same: a server may ignore it."""
        return {"metadata": {RUN_KEY: order.key}}

    def _checkpoint(self, saved: CheckpointAnswer) -> str:
        return saved.fine_tuned_model_checkpoint or saved.id


def _may_be_of(job: Unreadable, order: Order, files: Files) -> bool:
    shown = job.field("metadata")
    key = shown.get(RUN_KEY) if isinstance(shown, dict) else None
    return key == order.key if key else job.may_be(training_file=files.train, seed=order.seed)


def family_of(model: str) -> str:
    """Return a model's name without the date of its version, and a tuned model's base likewise: ``gpt-4.1-mini``."""
    name = model.removeprefix("ft:").partition(":")[0]
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)
