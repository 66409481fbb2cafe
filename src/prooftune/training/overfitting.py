"""What training's log says about overfitting: epochs past the minimum of the validation loss only fit the training split.

Source: Prechelt (1998), Early Stopping - But When?, in Neural Networks: Tricks of the Trade, Springer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def best_check(log: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the log's row with the lowest validation loss, of equal ones the earliest: its weights are the candidate."""
    return min(_checks(log), key=lambda row: row["validation_loss"])


def overfitting(log: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return where overfitting began and what it came to, or None where the last check of the validation loss is as low as any.

    ``overfit_from_step`` and ``overfit_from_epoch`` are the minimum; ``epochs_past_minimum`` lie between it and the last check;
    ``loss_at_end`` is that check's loss and ``rise`` its distance from the minimum, both in nats per supervised token.
    """
    best, last = best_check(log), _checks(log)[-1]
    if last["validation_loss"] <= best["validation_loss"]:
        return None
    return {
        "overfit_from_step": best["step"],
        "overfit_from_epoch": best["epoch"],
        "epochs_past_minimum": round(last["epoch"] - best["epoch"], 6),
        "loss_at_end": last["validation_loss"],
        "rise": last["validation_loss"] - best["validation_loss"],
    }


def _checks(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in log if row["validation_loss"] is not None]
