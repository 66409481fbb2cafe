"""What is told of a run to whoever listens in this process: the command line adds its display here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
