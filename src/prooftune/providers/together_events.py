"""What a Together job reports, in words and in figures, as one list of events.

Source: https://docs.together.ai/docs/fine-tuning/monitoring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from prooftune.providers.tuning import Event

TOLD_BADLY = ("job_error", "billing_limit", "warning")
"""Events that say why a job failed, the likeliest first."""
METRICS = {
    "train/global_step": "step",
    "eval/global_step": "step",
    "train/loss": "train_loss",
    "eval/loss": "valid_loss",
}
"""Our names of metrics, by Together's; one of another name keeps it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventAnswer(BaseModel):
    """Something that a job reported, in words."""

    created_at: datetime
    message: str
    type: str
    step: int | None = None


class EventList(BaseModel):
    """All events of a job."""

    data: list[EventAnswer]

    @property
    def why(self) -> str:
        """Why the job failed, in the provider's words."""
        told = [event.message for kind in TOLD_BADLY for event in self.data if event.type == kind]
        return told[0] if told else ""


class MetricList(BaseModel):
    """What a job measured: a row an optimizer step, and a row an evaluation."""

    metrics: list[dict[str, Any]] | None = None


def events_of(told: EventList, measured: MetricList, after: str | None) -> list[Event]:
    """Return events and measurements as one list, oldest first, those behind ``after``.

    None of the two has an id: theirs is the time and, of several at the same time, a number. What turns up late, with a time before that of
    an event that was told, is told only by a call from the beginning.
    """
    rows = sorted([*_words(told.data), *_measurements(measured.metrics or [])], key=lambda row: row[0])
    events = [
        Event(id=f"{_microseconds(at):017d}-{number:03d}", at=at, text=text, metrics=metrics)
        for at, same in groupby(rows, key=lambda row: row[0])
        for number, (_, text, metrics) in enumerate(same)
    ]
    return [event for event in events if after is None or event.id > after]


def _words(events: Sequence[EventAnswer]) -> Iterator[tuple[datetime, str, dict[str, float]]]:
    for event in events:
        yield event.created_at.astimezone(UTC), event.message, {} if event.step is None else {"step": float(event.step)}


def _measurements(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[datetime, str, dict[str, float]]]:
    """Yield each row with its time, that it has in nanoseconds; one without has that of the row before."""
    at = _EPOCH
    for row in rows:
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
        if "timestamp" in numbers:
            at = _EPOCH + timedelta(microseconds=int(numbers.pop("timestamp")) // 1000)
        metrics = {METRICS.get(name, name): float(value) for name, value in numbers.items()}
        yield at, ", ".join(f"{name} {value:g}" for name, value in metrics.items()), metrics


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
