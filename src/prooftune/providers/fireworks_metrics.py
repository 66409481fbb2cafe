"""The metrics file of a Fireworks job, a JSON line per report, as events. The API has no list of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prooftune.providers.tuning import Event

_NAMES = {
    "global_step": "step",
    "loss": "train_loss",
    "train/loss": "train_loss",
    "eval_loss": "valid_loss",
    "eval/loss": "valid_loss",
    "validation_loss": "valid_loss",
}
"""Our names of metrics, by those seen in such files; a metric of another name keeps it."""


def events_of(text: str, after: str | None) -> list[Event]:
    """Return the file's lines as events, those after the event ``after``.

    An event is known by its line's number: lines are only added. A last line that is still being written is left for the next time.
    """
    told = int(after.removeprefix("metrics-")) if after else 0
    events: list[Event] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and number > told:
            metrics = _metrics(row)
            shown = ", ".join(f"{name} {value:g}" for name, value in metrics.items())
            events.append(Event(id=f"metrics-{number}", at=None, text=shown or "no figures", metrics=metrics))
    return events


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return {_NAMES.get(name, name): float(value) for name, value in numbers.items()}
