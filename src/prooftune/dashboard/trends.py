"""Draws how a task's candidates and its champion did over time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from prooftune.dashboard.view import Run, Task, moment
from prooftune.report.plots.base import DASHED, Plot, draw_plot, short
from prooftune.report.svg import COLOUR
from prooftune.report.wording import name_of
from prooftune.types import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLE: Final[dict[Verdict, str]] = {
    "promote": "promote",
    "keep_baseline": "keep",
    "inconclusive": "inconclusive",
    "do_not_fine_tune": "stop",
}
"""Colour of each verdict."""
LARGEST: Final = 1e6
"""A metric beyond it is a damaged document, not a metric."""
FEWEST: Final = 2
"""One point is no trend."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A run on the plot."""

    run: Run
    at: float
    """Days, as matplotlib counts them."""
    value: float


def trend(task: Task, name: str, until: datetime) -> Plot | None:
    """Draw every candidate's metric with its interval, the best prompts, and the line of champions; None = there is nothing to follow.

    Args:
        task: Whose runs.
        name: Of the plot on its page.
        until: Right end of the line of champions, UTC.
    """
    points, line, metric = _points(task), _champions(task, until), short(name_of(task.metric or ""))
    if len(points) < FEWEST:
        return None

    def draw(axes: Axes) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        if line:
            days, values = zip(*line, strict=True)
            axes.step(days, values, where="post", color=COLOUR["candidate"], linewidth=5, alpha=0.3)
        for day in _new_holdouts(points):
            axes.axvline(day, color=COLOUR["muted"], linewidth=1, linestyle=DASHED)
        for point in points:
            _mark(axes, point)
        locator = AutoDateLocator(minticks=2, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        axes.margins(x=0.06, y=0.12)
        axes.set_ylabel(metric)

    columns = ("run", "registered_at", "verdict", "value", "ci_low", "ci_high", "best_prompt", "n")
    runs = [point.run for point in points]
    rows = [(run.run_id, run.at, run.verdict, run.value, run.ci_low, run.ci_high, run.baseline_value, run.n) for run in runs]
    return draw_plot(name, f"{metric} over time", _label(metric, runs, line), 240, draw, columns, rows)


def _points(task: Task) -> list[_Point]:
    """Return the runs that the task's metric was measured of, oldest first."""
    from matplotlib.dates import date2num

    runs = ((run, run.at, run.value) for run in reversed(task.runs) if run.metric == task.metric)
    return [_Point(run, float(date2num(at)), value) for run, at, value in runs if at is not None and value is not None and _drawn(value)]


def _mark(axes: Axes, point: _Point) -> None:
    run, colour = point.run, COLOUR[ROLE[point.run.verdict]]
    if run.trained and run.baseline_value is not None and _drawn(run.baseline_value):
        axes.plot([point.at], [run.baseline_value], "_", color=COLOUR["muted"], markersize=9, markeredgewidth=2)
    if run.ci_low is not None and run.ci_high is not None and _drawn(run.ci_low) and _drawn(run.ci_high):
        axes.plot([point.at, point.at], [run.ci_low, run.ci_high], color=colour, linewidth=1.8, solid_capstyle="round")
    axes.plot([point.at], [point.value], "D" if run.trained else "o", color=colour, markersize=6.5)


def _champions(task: Task, until: datetime) -> list[tuple[float, float]]:
    """Return the day on which each champion's value came into use; the last one lasts until now."""
    from matplotlib.dates import date2num

    line: list[tuple[float, float]] = []
    for change in task.registry.changes:
        run, at = task.run(change.champion), moment(change.at)
        if run and at and run.metric == task.metric and run.value is not None and _drawn(run.value):
            line.append((float(date2num(at)), run.value))
    return [*line, (max(float(date2num(until)), line[-1][0]), line[-1][1])] if line else []


def _new_holdouts(points: list[_Point]) -> list[float]:
    """Return the days from which on runs were measured on other examples."""
    sealed = [point for point in points if point.run.seal]
    return [after.at for before, after in pairwise(sealed) if after.run.seal != before.run.seal]


def _drawn(value: float) -> bool:
    return abs(value) <= LARGEST


def _label(metric: str, runs: list[Run], line: list[tuple[float, float]]) -> str:
    first, last = (f"{run.at:%Y-%m-%d}" for run in (runs[0], runs[-1]))
    text = f"{metric} of {len(runs)} runs from {first} to {last}, with 95 % intervals"
    return f"{text}; the champion's went from {line[0][1]:.3f} to {line[-1][1]:.3f}." if line else f"{text}; there is no champion."
