"""What is told of a run to whoever listens in this process: the command line adds its display here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prooftune.report.wording import visible
from prooftune.types import Progress


@dataclass(frozen=True)
class StageStarted:
    """A stage's task began to run (it may turn out to be cached)."""

    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A stage is done."""

    stage: str
    seconds: float
    """Of the stage's own work, when it was really done."""
    cached: bool


@dataclass(frozen=True)
class Said:
    """A sentence about the run as a whole."""

    text: str


Event = StageStarted | StageFinished | Said | tuple[str, Progress]

listeners: list[Callable[[Event], None]] = []
"""Called for each event."""


def tell(event: Event) -> None:
    """Tell every listener."""
    for listener in listeners:
        listener(event)


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Tell the listeners a line of a log."""
        tell(Said(visible(record.getMessage())))


@contextmanager
def warnings_told(logger: str) -> Iterator[None]:
    """Tell the listeners what a logger warns of, until the block ends: the log itself is for those who look it up."""
    teller = _Teller(logging.WARNING)
    logging.getLogger(logger).addHandler(teller)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(teller)
