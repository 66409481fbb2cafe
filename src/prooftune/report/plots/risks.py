"""The plots of what the candidate forgot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prooftune.evidence import General
from prooftune.report.plots.base import DASHED, Plot, draw_plot, rows_only, short
from prooftune.report.svg import COLOUR
from prooftune.report.view import RunView
from prooftune.report.wording import points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forgetting(view: RunView) -> Plot | None:
    """Draw how the accuracy of each part of the general suite changed, against the most that the gate allows."""
    return _changes(view, "accuracy", "forgetting", "What the candidate forgot", "accuracy after tuning, change in points; left is worse")


def perplexity(view: RunView) -> Plot | None:
    """Draw how the perplexity of each kind of text changed, against the most that the gate allows; a rise goes to the left."""
    return _changes(view, "nats_per_token", "perplexity", "What it finds harder to read", "perplexity, change in %, rise to the left")


def _changes(view: RunView, unit: str, name: str, title: str, axis: str) -> Plot | None:
    parts = [part for part in view.forgetting.parts if part.unit == unit] if view.forgetting else []
    if not parts:
        return None
    allowed = view.spec.gate.max_forgetting

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOUR["ink"], linewidth=1.2)
        if allowed is not None:
            axes.axvline(-100 * allowed, color=COLOUR["ink"], linewidth=1.2, linestyle=DASHED)
        for row, part in enumerate(parts):
            if part.ci_low is not None and part.ci_high is not None:
                axes.plot([100 * part.ci_low, 100 * part.ci_high], [row, row], color=COLOUR["candidate"], linewidth=2.4, alpha=0.55)
            axes.plot([100 * part.change], [row], "D", color=COLOUR["candidate"], markersize=7)
        rows_only(axes, [short(part.name, 30) for part in parts], colour=COLOUR["ink"], size=11)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(axis)

    columns = tuple(General.model_fields)
    rows = [tuple(getattr(part, column) for column in columns) for part in parts]
    label = "; ".join(f"{short(part.name)} {points(part.change)} %" for part in parts)
    return draw_plot(name, title, label, 54 + 24 * max(len(parts), 2), draw, columns, rows)
