"""The plots of a report, each with its data and a sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prooftune.report.svg import COLOUR, new_figure, style, to_svg
from prooftune.report.view import RunView
from prooftune.report.wording import duration, name_of, number, points
from prooftune.types import Evaluation, Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 32


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot and the data behind it."""

    name: str
    """File name of its data, without suffix."""
    title: str
    label: str
    """What it shows, in one sentence, for those who do not see it."""
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True, slots=True)
class _Strip:
    """One row of a plot of distributions: a histogram on a base line of its own."""

    role: str
    name: str
    edges: Sequence[float]
    heights: Sequence[float]
    p50: float
    p95: float


def draw_plots(view: RunView) -> dict[str, Plot]:
    """Return by name every plot that the run has data for."""
    drawn = (_difference(view), _metrics(view), _loss(view), _tokens(view), _answer_tokens(view), _latency(view))
    return {plot.name: plot for plot in drawn if plot is not None}


def _plot(
    name: str,
    title: str,
    label: str,
    height: float,
    draw: Callable[[Axes], None],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> Plot:
    with style(name):
        figure: Figure = new_figure(height)
        axes = figure.add_subplot()
        draw(axes)
        axes.tick_params(length=0, pad=6)
        return Plot(name, title, label, to_svg(figure, name, label), columns, tuple(rows))


def _difference(view: RunView) -> Plot | None:
    decision = view.decision
    if decision.difference is None or decision.ci_low is None or decision.ci_high is None:
        return None
    figures = (decision.difference, decision.ci_low, decision.ci_high, view.spec.gate.min_effect)
    middle, low, high, needed = (100 * figure for figure in figures)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOUR["ink"], linewidth=1.2)
        axes.axvline(needed, color=COLOUR["ink"], linewidth=1.2, linestyle=(0, (3, 2.5)))
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
    return _plot(
        "difference",
        "The difference",
        label,
        130,
        draw,
        ("metric", "difference", "ci_low", "ci_high", "min_effect"),
        [(view.metric, *figures)],
    )


def _metrics(view: RunView) -> Plot | None:
    names = list(dict.fromkeys(name for evaluation in view.evaluations for name in evaluation.metrics))
    found = [(e.name, metric) for name in names for e in view.evaluations if (metric := e.metrics.get(name)) is not None]
    if not found:
        return None
    step = 0.7 / max(len(view.evaluations), 1)

    def draw(axes: Axes) -> None:
        for place, evaluation in enumerate(view.evaluations):
            colour = COLOUR[evaluation.name]
            for row, name in enumerate(names):
                if (metric := evaluation.metrics.get(name)) is not None:
                    y = row - 0.35 + step * (place + 0.5)
                    axes.plot([metric.ci_low, metric.ci_high], [y, y], color=colour, linewidth=2.4, solid_capstyle="round")
                    axes.plot([metric.value], [y], "o", color=colour, markersize=7)
        axes.set_yticks(range(len(names)), [name_of(name) for name in names], color=COLOUR["ink"])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)

    label = "; ".join(f"{name_of(who)} {name_of(m.name)} {m.value:.3f} ({m.ci_low:.3f} to {m.ci_high:.3f})" for who, m in found)
    rows = [(who, m.name, m.value, m.ci_low, m.ci_high, m.n, m.unscored) for who, m in found]
    title = "Metrics with their 95 % intervals"
    height = 50 + 22 * max(len(view.evaluations), 2) * len(names)
    return _plot("metrics", title, label, height, draw, ("contestant", "metric", "value", "ci_low", "ci_high", "n", "unscored"), rows)


def _loss(view: RunView) -> Plot | None:
    if not view.loss:
        return None
    curves = {
        "train": [(row["step"], loss) for row in view.loss if (loss := row.get("loss")) is not None],
        "validation": [(row["step"], loss) for row in view.loss if (loss := row.get("validation_loss")) is not None],
    }
    best = next((value for step, value in curves["validation"] if step == view.best_step), None)

    def draw(axes: Axes) -> None:
        ring: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": COLOUR["ink"], "markeredgewidth": 1.6}
        for role, curve in curves.items():
            if curve:
                steps, losses = zip(*curve, strict=True)
                shape = "o-" if role == "validation" else "-"
                axes.plot(steps, losses, shape, color=COLOUR[role], linewidth=2 if role == "validation" else 1.6, markersize=4.5)
        if best is not None and view.best_step is not None:
            axes.axvline(view.best_step, color=COLOUR["muted"], linewidth=1, linestyle=(0, (3, 2.5)))
            axes.plot([view.best_step], [best], "o", clip_on=False, **ring)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats per token")

    chosen = "" if best is None else f"; the checkpoint of step {view.best_step} (validation {best:.3f}) was chosen"
    ends = ", ".join(f"{role} loss {curve[0][1]:.3f} → {curve[-1][1]:.3f}" for role, curve in curves.items() if curve)
    columns = ("step", "epoch", "loss", "validation_loss", "learning_rate", "tokens")
    rows = [tuple(row.get(column) for column in columns) for row in view.loss]
    return _plot("loss", "Loss", f"{ends}{chosen}.", 250, draw, columns, rows)


def _tokens(view: RunView) -> Plot | None:
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
    return _distributions(
        "tokens", "Tokens per example", "tokens, prompt and target", strips, number, ("split", "from", "below", "count"), rows
    )


def _answer_tokens(view: RunView) -> Plot | None:
    return _by_contestant(view, "answer_tokens", "Answer length", "tokens generated, end of turn included", number)


def _latency(view: RunView) -> Plot | None:
    return _by_contestant(view, "latency_s", "Latency", f"seconds per answer, {batches(view)}", lambda value: duration(float(str(value))))


def batches(view: RunView) -> str:
    """Return how answers were timed: ``in batches of 32 on this machine``."""
    sizes = sorted({evaluation.batch_size for evaluation in view.evaluations})
    return f"in batches of {' or '.join(str(size) for size in sizes)} on this machine"


def _by_contestant(view: RunView, field: str, title: str, axis: str, text: Callable[[object], str]) -> Plot | None:
    evaluations = [evaluation for evaluation in view.evaluations if view.predictions.get(evaluation.name)]
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


def _quantiles(evaluation: Evaluation, field: str) -> tuple[float, float]:
    if field == "answer_tokens":
        return evaluation.answer_tokens_p50, evaluation.answer_tokens_p95
    return evaluation.latency_p50_s, evaluation.latency_p95_s


def _value(prediction: Prediction, field: str) -> float:
    return prediction.answer_tokens if field == "answer_tokens" else prediction.latency_s


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
    return _plot(name, title, f"{title}, {axis}. {marked}.", 44 + 72 * len(strips), draw, columns, rows)


def csv_lines(plot: Plot) -> Iterator[tuple[object, ...]]:
    """Yield the header and the rows of a plot's data."""
    yield plot.columns
    yield from plot.rows
