"""The tables that report and model card share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prooftune.report.view import RunView
from prooftune.report.wording import duration, flatten, interval, name_of, number
from prooftune.types import Evaluation


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure and what must be known to read it."""

    value: str
    detail: str = ""
    counts: str = ""
    """How many examples it rests on."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure, with a cell for each contestant."""

    name: str
    cells: tuple[Cell, ...]
    decides: bool = False
    """Whether it is the metric that the gate decided on."""


def quality_rows(view: RunView) -> list[Row]:
    """Return each metric, the deciding one first, and the share of answers that ended by themselves."""
    names = dict.fromkeys([view.metric, *(name for evaluation in view.evaluations for name in evaluation.metrics)])
    rows = [Row(name_of(name), tuple(_metric(evaluation, name) for evaluation in view.evaluations), name == view.metric) for name in names]
    shares = [view.finished_share(evaluation.name) for evaluation in view.evaluations]
    if any(share is not None for share in shares):
        rows.append(Row("ended its turn", tuple(Cell("–" if share is None else f"{100 * share:.1f} %") for share in shares)))
    return rows


def cost_rows(view: RunView) -> list[Row]:
    """Return what the answers cost: tokens in and out, seconds, throughput."""
    measures: dict[str, Callable[[Evaluation], str]] = {
        "answer tokens, p50": lambda e: number(e.answer_tokens_p50),
        "answer tokens, p95": lambda e: number(e.answer_tokens_p95),
        "prompt tokens, mean": lambda e: f"{e.prompt_tokens_mean:,.1f}",
        "latency, p50": lambda e: duration(e.latency_p50_s),
        "latency, p95": lambda e: duration(e.latency_p95_s),
        "generated tokens / s": lambda e: f"{e.tokens_per_second:,.1f}",
    }
    return [Row(name, tuple(Cell(read(evaluation)) for evaluation in view.evaluations)) for name, read in measures.items()]


def stage_figures(view: RunView, stage: str) -> list[tuple[str, str]]:
    """Return a stage's figures as names and texts."""
    return [(name, number(value)) for name, value in flatten(view.figures.get(stage, {}))]


def training_settings(view: RunView) -> list[tuple[str, str]]:
    """Return how the candidate was, or would have been, trained."""
    backend = view.spec.backend
    settings = {"base model": backend.model, "revision": backend.revision, **backend.method.model_dump()}
    return [(name_of(name), number(value)) for name, value in settings.items() if value is not None]


def _metric(evaluation: Evaluation, name: str) -> Cell:
    if (metric := evaluation.metrics.get(name)) is None:
        return Cell("–", "not measured")
    unscored = f", {metric.unscored:,} unscored" if metric.unscored else ""
    return Cell(f"{metric.value:.3f}", interval(metric), f"n = {metric.n:,}{unscored}")
