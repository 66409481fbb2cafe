"""The tables that report and model card share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from prooftune.report.view import RunView
from prooftune.report.wording import duration, flatten, interval, name_of, number, split_order
from prooftune.types import Evaluation, SplitName

CONTESTANTS: Final = ("zero_shot", "few_shot", "candidate")
MOST_COLUMNS: Final = 4
"""More things than this stand one below the other."""


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


@dataclass(frozen=True, slots=True)
class Grid:
    """Figures of several things of one kind, such as the splits."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class StageTables:
    """A stage's figures, ready to be shown."""

    pairs: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]

    def __bool__(self) -> bool:
        return bool(self.pairs or self.grids)


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


def stage_tables(view: RunView, stage: str) -> StageTables:
    """Return a stage's figures: nested ones with the same names as grids, the others one by one."""
    figures = view.figures.get(stage, {})
    grids, rest = _grids(name_of(stage), figures)
    return StageTables(tuple((name, number(value)) for name, value in flatten(rest)), tuple(grids))


def training_settings(view: RunView) -> list[tuple[str, str]]:
    """Return how the candidate was, or would have been, trained."""
    backend = view.spec.backend
    unused = {"r", "alpha", "dropout", "layers"} if backend.method.kind == "full" else set()
    settings = {"base model": backend.model, "revision": backend.revision, **backend.method.model_dump(exclude=unused)}
    return [(name_of(name), number(value)) for name, value in settings.items() if value is not None]


def _grids(title: str, figures: Mapping[str, Any]) -> tuple[list[Grid], dict[str, Any]]:
    """Take out of ``figures`` what makes grids, at any depth; return the grids and what is left."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, value in figures.items():
        if isinstance(value, Mapping):
            alike[tuple(sorted(value))].append(name)
    taken = {name for names in alike.values() if len(names) > 1 for name in names}
    grids = [_grid(title, {name: figures[name] for name in names}) for names in alike.values() if len(names) > 1]
    rest: dict[str, Any] = {}
    for name, value in figures.items():
        if name not in taken:
            inner, rest[name] = _grids(name_of(name), value) if isinstance(value, Mapping) else ([], value)
            grids += inner
    return grids, rest


def _grid(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Make few things the columns and many the rows; names from the data, such as strata, stay as they are."""
    by_name = {name: dict(flatten(figures)) for name, figures in columns.items()}
    names = sorted(by_name, key=split_order) if len(by_name) <= MOST_COLUMNS else list(by_name)
    measures = list(next(iter(by_name.values())))
    if len(names) <= MOST_COLUMNS and not set(measures) <= set(get_args(SplitName)):
        rows = [(measure, tuple(number(by_name[name].get(measure)) for name in names)) for measure in measures]
        return Grid(title, tuple(name_of(name) if name in CONTESTANTS else name for name in names), tuple(rows))
    measures.sort(key=split_order)
    rows = [(name, tuple(number(by_name[name].get(measure)) for measure in measures)) for name in names]
    return Grid(title, tuple(measures), tuple(rows))


def _metric(evaluation: Evaluation, name: str) -> Cell:
    if (metric := evaluation.metrics.get(name)) is None:
        return Cell("–", "not measured")
    unscored = f", {metric.unscored:,} unscored" if metric.unscored else ""
    return Cell(f"{metric.value:.3f}", interval(metric), f"n = {metric.n:,}{unscored}")
