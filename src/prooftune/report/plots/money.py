"""The plot of the money: what each way to serve the task has cost after so many requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from prooftune.economics.break_even import POINTS, cumulative_usd, reach
from prooftune.report.plots.base import DASHED, Plot, draw_plot, short
from prooftune.report.svg import COLOUR
from prooftune.report.view import RunView
from prooftune.report.wording import number, usd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("candidate", "train", "validation", "holdout")
"""Of the tuned options, in their order; further ones stand in the table only."""
STYLES: Final = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def break_even(view: RunView) -> Plot | None:
    """Draw cumulative USD by requests for the option in use now and for the tuned ones, and where the first one is paid back."""
    first, curves = view.break_even, cumulative_curves(view)
    if first is None or not curves:
        return None
    colours = [COLOUR.get(view.decision.baseline or "", COLOUR["ink"]), *(COLOUR[role] for role in COLOURS)]

    def draw(axes: Axes) -> None:
        for (name, points), colour, style in zip(curves.items(), colours, (DASHED, *STYLES), strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.2, linestyle=style, label=short(name, 40))
        paid = curves[first.option][len(curves[first.option]) // 2]
        if first.requests:
            axes.plot([first.requests], [paid[1]], "o", color=COLOUR["ink"], markersize=8, markerfacecolor="none", markeredgewidth=1.6)
            text = f"{first.requests:,} requests"
            axes.annotate(text, (first.requests, paid[1]), xytext=(6, -16), textcoords="offset points", fontweight="bold")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.3 * max(usd for points in curves.values() for _, usd in points) or 1)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.xaxis.set_major_formatter(lambda value, _: number(float(value)))
        axes.set_xlabel("requests")
        axes.set_ylabel("USD, all told")
        axes.legend(loc="upper left", frameon=False, fontsize=11, borderaxespad=0.2, labelspacing=0.25)

    paid = f"paid back after {first.requests:,} requests" if first.requests is not None else "never paid back"
    ends = "; ".join(f"{short(name)} {usd(points[-1][1])} after {number(points[-1][0])} requests" for name, points in curves.items())
    data = [(name, requests, cost) for name, points in curves.items() for requests, cost in points]
    return draw_plot("break_even", "When tuning is paid back", f"Tuning is {paid}; {ends}.", 250, draw, ("option", "requests", "usd"), data)


def cumulative_curves(view: RunView) -> dict[str, list[tuple[float, float]]]:
    """Return ``(requests, cumulative USD)`` by option, the one in use now first; the break-even of the first tuned one is in the middle.

    The corrections that tuning saves are costs of the option in use now. Where hosting differs and no volume is known, or nobody
    tells what tuning cost, there is no curve.
    """
    first = view.break_even
    if view.costs is None or first is None or (now := view.option(first.against)) is None:
        return {}
    volume = view.costs.requests_per_month
    rows = [row for row in view.costs.break_even if row.against == first.against][: len(COLOURS)]
    options = [(row, option) for row in rows if (option := view.option(row.option)) is not None]
    known = [(row, option) for row, option in options if option.tuning_usd is not None]
    pairs = [(row, option) for row, option in known if volume or option.hosting_usd_per_month == now.hosting_usd_per_month]
    if first.option not in [option.name for _, option in pairs]:
        return {}
    answers = (option.usd_per_1000_requests / 1000 + row.saving_usd_per_request for row, option in pairs)
    rate = max(now.usd_per_1000_requests / 1000, *answers)
    lines = {now.name: (rate, now.tuning_usd or 0.0, now.hosting_usd_per_month)}
    lines |= {o.name: (rate - row.saving_usd_per_request, o.tuning_usd or 0.0, o.hosting_usd_per_month) for row, o in pairs}
    at = np.linspace(0, reach(first.requests, volume), POINTS)
    return {name: [(float(n), cumulative_usd(float(n), *line, volume)) for n in at] for name, line in lines.items()}
