"""Plots of the answers: lengths, latencies, and which labels are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from prooftune.report.plots.base import Plot, draw_plot, short
from prooftune.report.reading import Confusion
from prooftune.report.svg import COLOUR
from prooftune.report.view import CANDIDATE, RunView
from prooftune.report.wording import batches, duration, name_of, number
from prooftune.types import Evaluation, Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS: Final = 32
MOST_LABELS: Final = 15
"""Labels in the heat map; of more, those that are confused most."""


@dataclass(frozen=True, slots=True)
class _Strip:
    """One row of a plot of distributions: a histogram on a base line of its own."""

    role: str
    name: str
    edges: Sequence[float]
    heights: Sequence[float]
    p50: float
    p95: float


def tokens(view: RunView) -> Plot | None:
    """Draw how many tokens the examples of each split have."""
    found = {name: histogram for name, histogram in view.token_lengths.items() if sum(histogram.counts)}
    if not found:
        return None
    strips = []
    for name, histogram in found.items():
        p50, p95 = (np.nan if value is None else value for value in (histogram.p50, histogram.p95))
        label = f"{name} · {sum(histogram.counts):,} examples"
        strips.append(_Strip(name, label, histogram.edges, _density(histogram.counts, histogram.edges), p50, p95))
    rows = [
        (name, low, high, count)
        for name, histogram in found.items()
        for low, high, count in zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    ]
    columns = ("split", "from", "below", "count")
    return _distributions("tokens", "Tokens per example", "tokens, prompt and target", strips, number, columns, rows)


def answer_tokens(view: RunView) -> Plot | None:
    """Draw how long each contestant's answers are."""
    return _by_contestant(view, "answer_tokens", "Answer length", "tokens generated, end of turn included", number)


def latency(view: RunView) -> Plot | None:
    """Draw how long each contestant took to answer."""
    return _by_contestant(view, "latency_s", "Latency", f"seconds per answer, {batches(view)}", lambda value: duration(float(str(value))))


def confusion(view: RunView) -> Plot | None:
    """Draw the candidate's confusion matrix as a heat map, the best baseline's where nothing was trained."""
    who = CANDIDATE if CANDIDATE in view.confusions else view.decision.baseline or ""
    cells = view.confusions.get(who, ())
    if not cells:
        return None
    labels = _most_confused(cells)
    targets = [label for label in labels if any(cell.target == label for cell in cells)]
    counts = {(cell.target, cell.answer): cell.count for cell in cells}
    matrix = np.array([[counts.get((target, answer), 0) for answer in labels] for target in targets])

    def draw(axes: Axes) -> None:
        size = 11 if len(labels) <= 8 else 8.5
        top = max(int(matrix.max()), 1)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            role, count = ("candidate" if targets[row] == labels[column] else "few_shot"), int(matrix[row, column])
            width, shade = [column - 0.46, column + 0.46], 0.15 + 0.5 * count / top
            axes.fill_between(width, row - 0.46, row + 0.46, color=COLOUR[role], alpha=shade, linewidth=0)
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size)
        rows, columns = ([short(label, 22) or "(empty)" for label in each] for each in (targets, labels))
        axes.set_yticks(range(len(rows)), rows, fontsize=size)
        axes.set_xticks(range(len(columns)), columns, fontsize=size, rotation=90 if len(columns) > 4 else 0)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(len(targets) - 0.5, -0.5)
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_ylabel("target")
        axes.set_xlabel("answer")

    every = {cell.target for cell in cells} | {cell.answer for cell in cells}
    wrong = max((cell for cell in cells if cell.target != cell.answer), key=lambda cell: cell.count, default=None)
    worst = "" if wrong is None else f" Most frequent: {short(wrong.target)} answered as {short(wrong.answer)}, {wrong.count} times."
    part = "" if len(labels) == len(every) else f", the {len(labels)} labels of {len(every)} that are confused most"
    rows = [(cell.target, cell.answer, cell.count) for cell in cells]
    title = f"What {'the candidate' if who == CANDIDATE else name_of(who)} takes for what{part}"
    label = f"Confusion matrix of {name_of(who)}{part}.{worst}"
    return draw_plot("confusion", title, label, 130 + 19 * max(len(labels), 4), draw, ("target", "answer", "count"), rows)


def _most_confused(cells: Sequence[Confusion]) -> list[str]:
    """Return the labels to show: those of targets in alphabetical order, then answers that are no label."""
    targets = {cell.target for cell in cells}
    labels = targets | {cell.answer for cell in cells}
    if len(labels) <= MOST_LABELS:
        return sorted(labels, key=lambda label: (label not in targets, label))
    wrong: Counter[str] = Counter()
    for cell in cells:
        if cell.target != cell.answer:
            wrong.update({cell.target: cell.count, cell.answer: cell.count})
    most = sorted(labels, key=lambda label: (-wrong[label], label))[:MOST_LABELS]
    return sorted(most, key=lambda label: (label not in targets, label))


def _by_contestant(view: RunView, field: str, title: str, axis: str, text: Callable[[object], str]) -> Plot | None:
    evaluations = [one for one in view.evaluations if view.predictions.get(one.name) and _measured(one, field)]
    if not evaluations:
        return None
    values = {e.name: [_value(prediction, field) for prediction in view.predictions[e.name]] for e in evaluations}
    edges = _edges([value for each in values.values() for value in each], whole=field == "answer_tokens")
    strips = [
        _Strip(e.name, name_of(e.name), edges, _density(np.histogram(values[e.name], edges)[0], edges), *_quantiles(e, field))
        for e in evaluations
    ]
    rows = [(name, p.example_id, _value(p, field)) for name in values for p in view.predictions[name]]
    return _distributions(field, title, axis, strips, text, ("contestant", "example_id", field), rows)


def _edges(values: Sequence[float], *, whole: bool) -> list[float]:
    """Return bin edges over all values; ``whole``: around integers, so that no bin is empty only because it lies between two."""
    low, high = min(values), max(values)
    if whole:
        return [float(edge) - 0.5 for edge in np.unique(np.linspace(low, high + 1, min(BINS, int(high - low) + 1) + 1).round())]
    return [float(edge) for edge in np.linspace(low, high if high > low else low + 1e-3, BINS + 1)]


def _density(counts: Sequence[int] | NDArray[np.int64], edges: Sequence[float]) -> list[float]:
    """Return counts per unit: bins of unequal width compare by their area."""
    return [float(height) for height in np.asarray(counts) / np.diff(edges)]


def _measured(evaluation: Evaluation, field: str) -> bool:
    """Return whether every answer has a value: there are no latencies of answers that came through a provider's batch API."""
    return field == "answer_tokens" or evaluation.latency_p50_s is not None


def _quantiles(evaluation: Evaluation, field: str) -> tuple[float, float]:
    if field == "answer_tokens":
        return evaluation.answer_tokens_p50, evaluation.answer_tokens_p95
    return _seconds(evaluation.latency_p50_s), _seconds(evaluation.latency_p95_s)


def _value(prediction: Prediction, field: str) -> float:
    return prediction.answer_tokens if field == "answer_tokens" else _seconds(prediction.latency_s)


def _seconds(measured: float | None) -> float:
    return np.nan if measured is None else measured


def _distributions(
    name: str,
    title: str,
    axis: str,
    strips: Sequence[_Strip],
    text: Callable[[object], str],
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> Plot:
    """Draw one histogram above the other on a common axis, each scaled to its own highest bin, with p50 and p95 marked."""

    def draw(axes: Axes) -> None:
        for row, strip in enumerate(strips):
            base, colour = len(strips) - 1 - row, COLOUR[strip.role]
            tops = [base + 0.6 * height / max(strip.heights) for height in strip.heights]
            axes.stairs(tops, strip.edges, baseline=base, fill=True, color=colour, alpha=0.3)
            axes.stairs(tops, strip.edges, baseline=base, color=colour, linewidth=1.4)
            for value, length in ((strip.p50, 0.68), (strip.p95, 0.4)):
                axes.plot([value, value], [base, base + length], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.annotate(strip.name, (0, base + 0.78), xycoords=("axes fraction", "data"), fontweight="bold", color=colour)
            marks = "" if np.isnan(strip.p50) else f"p50 {text(strip.p50)} · p95 {text(strip.p95)}"
            axes.annotate(marks, (1, base + 0.78), xycoords=("axes fraction", "data"), ha="right", color=COLOUR["muted"])
        axes.set_ylim(-0.04, len(strips))
        axes.set_yticks([])
        axes.locator_params(axis="x", integer=text is number)  # tokens are whole
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)

    marked = "; ".join(
        f"{strip.name}" if np.isnan(strip.p50) else f"{strip.name}: p50 {text(strip.p50)}, p95 {text(strip.p95)}" for strip in strips
    )
    return draw_plot(name, title, f"{title}, {axis}. {marked}.", 44 + (72 if len(strips) <= 4 else 56) * len(strips), draw, columns, rows)
