"""Progress of stages: to whoever listens in this process (the terminal), and to the Prefect UI as progress artifacts."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from prooftune.report.wording import named
from prooftune.types import Progress, Report, StageOutput
from tasks.artifacts import show_progress
from tasks.listening import StageFinished, StageStarted, tell

UPDATE_EVERY_S = 2.0
"""The UI is told at most this often: an update is a request to the server."""


def _says_something(record: logging.LogRecord) -> bool:
    """Return whether a line of Prefect's is worth its place: it logs four for the two hooks of each stage, and that a stage completed."""
    text = record.getMessage()
    return "hook '" not in text.lower()[:20] and text != "Finished in state Completed()"


logging.getLogger("prefect.task_runs").addFilter(_says_something)
logging.getLogger("prooftune").setLevel(logging.INFO)
# Prefect hands the log of PREFECT_LOGGING_EXTRA_LOGGERS to the UI and leaves its level as it is: that of the root, WARNING.

_started: dict[UUID, float] = {}
_finished: dict[UUID, list[StageFinished]] = defaultdict(list)


def note_started(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Tell the listeners that a stage began (a Prefect ``on_running`` hook)."""
    _started[task_run.id] = time.monotonic()
    tell(StageStarted(task.name))


def note_finished(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Remember the stage's seconds and whether it was cached, and tell the listeners (a Prefect ``on_completion`` hook)."""
    output = state.result(raise_on_failure=False)
    elapsed = time.monotonic() - _started.pop(task_run.id, time.monotonic())
    seconds = output.seconds if isinstance(output, StageOutput) else elapsed
    event = StageFinished(task.name, round(seconds, 3), state.name == "Cached")
    if task_run.flow_run_id:
        _finished[task_run.flow_run_id].append(event)
    tell(event)


def finished_stages(flow_run_id: UUID) -> list[StageFinished]:
    """Return the finished stages of a flow run of this process, in order, and forget them."""
    return _finished.pop(flow_run_id, [])


def report_to_ui(stage: str) -> Report:
    """Return a reporter that feeds the listeners at once and the UI's progress artifact now and then."""
    artifact: UUID | None = None
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal artifact, last
        tell((stage, progress))
        now = time.monotonic()
        if artifact is not None and now - last < UPDATE_EVERY_S and progress.done < progress.total:
            return
        last = now
        percent = 100.0 * progress.done / max(progress.total, 1)
        text = f"{stage}: {progress.done:,} of {progress.total:,} {progress.unit}. {named(progress.text)}".strip()
        artifact = show_progress(artifact, percent, key=f"{stage}-progress", description=text)

    return report
