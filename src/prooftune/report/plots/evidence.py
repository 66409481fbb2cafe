"""Plots of the evidence: the difference, the ladder, the slices and the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from prooftune.evidence import Slice
from prooftune.report.plots.base import DASHED, Plot, draw_plot, rows_only, short
from prooftune.report.svg import COLOUR
from prooftune.report.view import CANDIDATE, RunView
from prooftune.report.wording import name_of, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SLICES: Final = 16
"""Slices in the plot, those that fell most; the table has all."""


def difference(view: RunView) -> Plot | None:
    """Draw the paired difference with its interval, against no difference and the gain required."""
    decision = view.decision
    if decision.difference is None or decision.ci_low is None or decision.ci_high is None:
        return None
    figures = (decision.difference, decision.ci_low, decision.ci_high, view.spec.gate.min_effect)
    middle, low, high, needed = (100 * figure for figure in figures)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOUR["ink"], linewidth=1.2)
        axes.axvline(needed, color=COLOUR["ink"], linewidth=1.2, linestyle=DASHED)
        axes.plot([low, high], [0, 0], color=COLOUR["verdict"], linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot([low, low, np.nan, high, high], [-0.16, 0.16, np.nan, -0.16, 0.16], color=COLOUR["verdict"], linewidth=2)
        axes.plot([middle], [0], "o", color=COLOUR["verdict"], markersize=11)
        left, right = min(low, 0), max(high, needed)
        axes.set_xlim(left - 0.08 * (right - left) - 0.4, right + 0.08 * (right - left) + 0.4)
        axes.set_ylim(-0.45, 0.8)
        axes.text(middle, 0.34, f"{points(decision.difference or 0)} points", ha="center", fontsize=13, fontweight="bold")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"candidate − {name_of(decision.baseline or 'baseline')}, points of {name_of(view.metric)}")

    label = (
        f"Difference of {points(decision.difference)} points with a {view.confidence} % interval from {points(decision.ci_low)} to "
        f"{points(decision.ci_high)}, against 0 and the {needed:+g} points required."
    )
    columns = ("metric", "difference", "ci_low", "ci_high", "min_effect")
    return draw_plot("difference", "The difference", label, 130, draw, columns, [(view.metric, *figures)])


def ladder(view: RunView) -> Plot | None:
    """Draw every contestant's deciding metric with its interval, and the best baseline as a line; the data has all metrics."""
    found = [(e.name, metric) for e in view.evaluations if (metric := e.metrics.get(view.metric)) is not None]
    if not found:
        return None

    def draw(axes: Axes) -> None:
        if view.decision.baseline_value is not None:
            axes.axvline(view.decision.baseline_value, color=COLOUR["muted"], linewidth=1, linestyle=DASHED)
        for row, (who, metric) in enumerate(found):
            axes.plot([metric.ci_low, metric.ci_high], [row, row], color=COLOUR[who], linewidth=2.6, solid_capstyle="round")
            axes.plot([metric.value], [row], "D" if who == CANDIDATE else "o", color=COLOUR[who], markersize=8)
        rows_only(axes, [name_of(who) for who, _ in found], colour=COLOUR["ink"])
        low, high = min(m.ci_low for _, m in found), max(m.ci_high for _, m in found)
        axes.set_xlim(max(low - 0.05, -0.02), min(high + 0.05, 1.02))
        axes.set_xlabel(f"{name_of(view.metric)}, 95 % intervals")

    label = "; ".join(f"{name_of(who)} {name_of(m.name)} {m.value:.3f} ({m.ci_low:.3f} to {m.ci_high:.3f})" for who, m in found)
    rows = [(e.name, m.name, m.value, m.ci_low, m.ci_high, m.n, m.unscored) for e in view.evaluations for m in e.metrics.values()]
    columns = ("contestant", "metric", "value", "ci_low", "ci_high", "n", "unscored")
    return draw_plot("ladder", "The ladder", label, 58 + 26 * max(len(found), 2), draw, columns, rows)


def slices(view: RunView) -> Plot | None:
    """Draw the best baseline and the candidate in each slice, those that fell most on top."""
    shown = sorted(view.slices, key=lambda part: part.difference)[:MOST_SLICES]
    if not shown:
        return None
    before = COLOUR[view.decision.baseline or "muted"]

    def draw(axes: Axes) -> None:
        for row, part in enumerate(shown):
            axes.plot([part.baseline, part.candidate], [row, row], color=COLOUR["rule"], linewidth=4, solid_capstyle="round", zorder=1)
            axes.plot([part.baseline], [row], "o", color=before, markersize=7)
            axes.plot([part.candidate], [row], "D", color=COLOUR["candidate"], markersize=7)
            where: dict[str, Any] = {
                "xytext": (6, 0),
                "textcoords": "offset points",
                "va": "center",
                "fontsize": 11,
                "color": COLOUR["muted"],
            }
            axes.annotate(f"{part.n:,}", (1, row), xycoords=("axes fraction", "data"), **where)
        rows_only(axes, [short(f"{part.column} = {part.value}") for part in shown], colour=COLOUR["ink"], size=11)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(name_of(view.metric))

    columns = tuple(Slice.model_fields)
    rows = [tuple(getattr(part, column) for column in columns) for part in view.slices]
    worst = shown[0]
    label = (
        f"{len(view.slices)} slices; the lowest difference is {points(worst.difference)} points where {short(worst.column)} is "
        f"{short(worst.value)} (n = {worst.n})."
    )
    return draw_plot("slices", "Slice by slice", label, 52 + 22 * max(len(shown), 3), draw, columns, rows)


def judge(view: RunView) -> Plot | None:
    """Draw how many pairs the candidate won, tied and lost."""
    if (found := view.judge) is None or not (found.wins + found.ties + found.losses):
        return None
    outcomes = (
        ("candidate better", found.wins, "candidate"),
        ("tie", found.ties, "muted"),
        (f"{name_of(found.baseline)} better", found.losses, found.baseline if found.baseline in COLOUR else "ink"),
    )

    def draw(axes: Axes) -> None:
        for row, (_, count, role) in enumerate(outcomes):
            axes.barh(row, count, height=0.62, color=COLOUR[role], alpha=0.5 if role == "muted" else 1)
            axes.annotate(f"{count:,}", (count, row), xytext=(6, 0), textcoords="offset points", va="center", fontweight="bold")
        rows_only(axes, [name for name, _, _ in outcomes], colour=COLOUR["ink"])
        axes.set_xlim(0, 1.12 * max(count for _, count, _ in outcomes))
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("pairs, each judged in both orders")

    label = "; ".join(f"{name}: {count} pairs" for name, count, _ in outcomes)
    rows = [*((name, count) for name, count, _ in outcomes), ("unscored", found.unscored)]
    return draw_plot("judge", "What the judge said", label, 126, draw, ("outcome", "pairs"), rows)
