"""What people see of ``watch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.layout import marked, show

NAMES = {"data": "new data", "quality": "quality", "drift": "inputs", "sunset": "base model", "request": "requests"}


def looks(answer: Mapping[str, Any]) -> None:
    """Say what each sensor says."""
    for row in answer["looks"]:
        name = NAMES[row["kind"]]
        if row["trouble"]:
            show(marked("✗", "red", f"{name}: {row['trouble']}"))
        elif row["signal"]:
            show(marked("!", "yellow", f"{name}: {row['reason']}"), marked(" ", "dim", _next(row, answer["emit"])))
        else:
            show(marked("✓", "green", f"{name}: {row['reason']}"))


def _next(row: Mapping[str, Any], emit: bool) -> str:
    """Return what became of a signal."""
    if row["known"]:
        return f"not told again: {row['known']}"
    if row["told"]:
        return f"told as {row['event']}"
    return "the Prefect server cannot be reached; look again later" if emit else "worth a retraining; --emit tells the Prefect server"
