"""Jobs behind a stand-in: each moves through its phases in a thread of its own, and tells what happens."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prooftune.economics.billable import conversations
from prooftune.sandbox.models import Brain
from prooftune.types import Example, Progress

Phase = Literal["queued", "validating", "running", "succeeded", "failed", "cancelled"]


@dataclass
class Told:
    """An event of a job."""

    number: int
    at: float
    """Seconds since the epoch."""
    text: str
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Saved:
    """A checkpoint of a job."""

    step: int
    at: float
    metrics: dict[str, float]


@dataclass
class Tuning:
    """A fine-tuning job of a stand-in. What only one provider has stands in ``fields``."""

    id: str
    model: str
    tuned: str
    """Name of the model that comes of it."""
    rows: Sequence[Example]
    validation: Sequence[Example]
    epochs: int
    fields: dict[str, Any] = field(default_factory=dict)
    phase: Phase = "queued"
    error: str = ""
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    billed_tokens: int = 0
    """Counted when the job succeeds: rows' tokens × epochs."""
    events: list[Told] = field(default_factory=list)
    checkpoints: list[Saved] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    count: Callable[[Example], int] = lambda example: 0
    """What a row costs in tokens; the jobs' owner sets it."""

    def tell(self, text: str, **metrics: float) -> None:
        """Add an event."""
        self.events.append(Told(len(self.events) + 1, time.time(), text, metrics))

    @property
    def ended(self) -> bool:
        """Whether its phase lasts."""
        return self.phase in ("succeeded", "failed", "cancelled")


def tokens_of(brain: Brain) -> Callable[[Example], int]:
    """Return what counts a row's tokens as the brain's model does: of a preference pair, those of both conversations."""
    return lambda example: sum(map(brain.count, conversations(example, "")))


class _Cancelled(Exception):
    """The job was cancelled while it trained."""


class Works:
    """The jobs of one stand-in. ``count`` says what a row costs in tokens, ``pace_s`` how long a job stays in each early phase."""

    def __init__(self, brain: Brain, count: Callable[[Example], int], pace_s: float = 0.0) -> None:
        self.brain = brain
        self.jobs: dict[str, Tuning] = {}
        self.fail_next = ""
        """Why the next job that starts fails; empty = it does not."""
        self.count = count
        self._pace_s = pace_s
        self._threads: list[threading.Thread] = []

    def start(self, job: Tuning) -> Tuning:
        """Enter a job and let it run."""
        self.jobs[job.id], job.count = job, self.count
        job.tell("Created fine-tuning job: " + job.id)
        thread = threading.Thread(target=self._run, args=(job, self.fail_next), name=job.id, daemon=True)
        self.fail_next = ""
        self._threads.append(thread)
        thread.start()
        return job

    def cancel(self, job: Tuning) -> None:
        """End a job that has not ended."""
        if not job.ended:
            job.cancelled.set()
            job.phase, job.finished = "cancelled", time.time()
            job.tell("The job was cancelled.")

    def settle(self, timeout_s: float = 60.0) -> None:
        """Wait until every job has ended; for tests.

        Raises:
            TimeoutError: one has not.
        """
        for thread in self._threads:
            thread.join(timeout_s)
            if thread.is_alive():
                raise TimeoutError(f"the stand-in's job {thread.name} did not end within {timeout_s:g} s")

    @property
    def billed_tokens(self) -> int:
        """Return what all jobs are billed for."""
        return sum(job.billed_tokens for job in self.jobs.values())

    def _run(self, job: Tuning, failure: str) -> None:
        try:
            for phase, text in (("validating", "Validating training file"), ("running", "Fine-tuning job started")):
                if job.cancelled.wait(self._pace_s):
                    return
                job.phase = phase  # type: ignore[assignment]  # the two words above
                job.tell(text)
            job.started = time.time()
            if failure:
                job.error, job.phase, job.finished = failure, "failed", time.time()
                job.tell(f"The job failed: {failure}")
                return
            self.brain.train(job.model, job.tuned, job.rows, job.validation, job.epochs, lambda progress: self._step(job, progress))
            if job.cancelled.wait(self._pace_s):
                return
            job.billed_tokens = sum(map(self.count, job.rows)) * job.epochs
            job.finished = time.time()
            job.tell(f"New fine-tuned model created: {job.tuned}")
            job.phase = "succeeded"
            job.tell("The job has successfully completed")
        except _Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - whatever ends the thread has to be seen as a failed job, not as one that runs for ever
            job.error, job.finished, job.phase = f"the stand-in's training failed: {error}", time.time(), "failed"
            job.tell(job.error)

    def _step(self, job: Tuning, progress: Progress) -> None:
        if job.cancelled.is_set():
            raise _Cancelled
        metrics = {"step": float(progress.done)}
        for name, pattern in (("train_loss", r"\bloss ([\d.]+)"), ("valid_loss", r"validation ([\d.]+)")):
            if found := re.search(pattern, progress.text):
                metrics[name] = float(found[1])
        job.tell(f"Step {progress.done}/{progress.total}: {progress.text}", **metrics)
        if "valid_loss" in metrics:
            job.checkpoints.append(Saved(progress.done, time.time(), metrics))
