"""Whether an occurrence is still worth telling."""

from __future__ import annotations

from datetime import datetime

from prooftune.retraining.claims import read_retrains
from prooftune.storage.objects import ObjectStore
from prooftune.watching.signals import Signal


def handled(store: ObjectStore, signal: Signal, now: datetime) -> str:
    """Return what became of the occurrence's retraining; empty = there was none, or it died or failed and may be started again.

    Raises:
        IntegrityError: the record of retrainings is damaged.
    """
    claim = read_retrains(store, signal.task).of(signal)
    if claim is None:
        return ""
    if claim.state == "finished":
        return f"its retraining ended on {claim.renewed:%Y-%m-%d}: {claim.outcome}"
    return f"its retraining is under way since {claim.started:%Y-%m-%d %H:%M} UTC" if claim.lives(now) else ""
