"""Signals that no sensor gives: the calendar's."""

from __future__ import annotations

import hashlib
from datetime import datetime

from prooftune.watching.looks import stamp, week_of
from prooftune.watching.signals import Signal


def due(task: str, now: datetime) -> Signal:
    """Return the signal of a schedule, or of a person who starts a retraining by hand: one occurrence an ISO week."""
    return Signal(kind="schedule", task=task, digest=week_of(now), reason=f"the retraining of {week_of(now)} is due", at=stamp(now))


def jitter_of(task: str, minutes: float) -> float:
    """Return for how many seconds a schedule's run is put off: another share of ``minutes`` for each task, and always the same.

    So tasks that share a schedule do not start at once, and each starts when it did last time.
    """
    share = int.from_bytes(hashlib.sha256(f"jitter:{task}".encode()).digest()[:8]) / 2**64
    return 60 * minutes * share
