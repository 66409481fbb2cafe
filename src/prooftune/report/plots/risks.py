"""The plot of what the candidate forgot."""

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
    """Draw how each part of the general suite changed, against the most that the gate allows."""
    if view.forgetting is None or not view.forgetting.parts:
        return None
    parts, allowed = view.forgetting.parts, view.spec.gate.max_forgetting

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOUR["ink"], linewidth=1.2)
        if allowed is not None:
            axes.axvline(-100 * allowed, color=COLOUR["ink"], linewidth=1.2, linestyle=DASHED)
        for row, part in enumerate(parts):
            if part.ci_low is not None and part.ci_high is not None:
                axes.plot([100 * part.ci_low, 100 * part.ci_high], [row, row], color=COLOUR["candidate"], linewidth=2.4, alpha=0.55)
            axes.plot([100 * part.change], [row], "D", color=COLOUR["candidate"], markersize=7)
        rows_only(axes, [short(part.name, 30) for part in parts], colour=COLOUR["ink"], size=11)
        axes.set_xlabel("change after tuning, %; left is worse")

    columns = tuple(General.model_fields)
    rows = [tuple(getattr(part, column) for column in columns) for part in parts]
    label = "; ".join(f"{short(part.name)} {points(part.change)} %" for part in parts)
    return draw_plot("forgetting", "What the candidate forgot", label, 54 + 24 * max(len(parts), 2), draw, columns, rows)
