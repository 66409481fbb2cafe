"""The tables that report and model card share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from prooftune.report.svg import CONTESTANTS
from prooftune.report.view import RunView
from prooftune.report.wording import flatten, interval, name_of, number, p_value, percent, points, split_order, timing
from prooftune.types import Evaluation, SplitName

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
class Table:
    """Figures of things of one kind: a column for each measure, and a row of cells for each thing, by its name."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    """What all cells of a column have in common, by column; empty = nothing."""


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


def quality_table(view: RunView) -> Table:
    """Return every metric of every contestant, the deciding one first; counts that all share stand at the column's head."""
    names = tuple(dict.fromkeys([view.metric, *(name for evaluation in view.evaluations for name in evaluation.metrics)]))
    cells = {e.name: [_metric(e, name) for name in names] for e in view.evaluations}
    counts = [{row[at].counts for row in cells.values()} for at in range(len(names))]
    notes = tuple(found.pop() if len(found) == 1 else "" for found in counts)
    rows = tuple(
        (who, tuple(replace(cell, counts="") if note else cell for cell, note in zip(row, notes, strict=True)))
        for who, row in cells.items()
    )
    return Table(tuple(name_of(name) for name in names), rows, notes)


def effort_table(view: RunView) -> Table:
    """Return what the answers took: tokens in and out, seconds, throughput; and the share of those that are none."""
    measures: dict[str, Callable[[Evaluation], str]] = {
        "prompt tokens, mean": lambda e: f"{e.prompt_tokens_mean:,.1f}",
        "answer tokens, p50": lambda e: number(e.answer_tokens_p50),
        "answer tokens, p95": lambda e: number(e.answer_tokens_p95),
        "latency, p50": lambda e: timing(e.latency_p50_s),
        "latency, p95": lambda e: timing(e.latency_p95_s),
        "generated tokens / s": lambda e: "not measured" if e.tokens_per_second is None else f"{e.tokens_per_second:,.1f}",
        "ended its turn": lambda e: percent(view.finished_share(e.name)),
        "refusals": lambda e: percent(e.refusals),
        "empty": lambda e: percent(e.empty),
    }
    rows = tuple((e.name, tuple(Cell(read(e)) for read in measures.values())) for e in view.evaluations)
    return Table(tuple(measures), rows)


def slice_table(view: RunView) -> Table:
    """Return every slice, those that fell most on top: the difference with its interval, and whether the gate guards it."""
    columns = ("n", name_of(view.decision.baseline or "baseline"), "candidate", "difference, points", "guarded")
    rows = tuple(
        (
            f"{part.column} = {part.value}",
            (
                Cell(number(part.n)),
                Cell(f"{part.baseline:.3f}"),
                Cell(f"{part.candidate:.3f}", f"{part.candidate_low:.3f} to {part.candidate_high:.3f}"),
                Cell(points(part.difference), f"{points(part.ci_low)} to {points(part.ci_high)}"),
                Cell(number(part.guarded)),
            ),
        )
        for part in sorted(view.slices, key=lambda part: part.difference)
    )
    return Table(columns, rows)


def champion_table(view: RunView) -> Table:
    """Return the candidate against the champion in use, on the old and the new holdout."""
    columns = ("champion", "candidate", "difference, points", "p-value", "n", "left out")
    rivals = view.champion.rivals if view.champion else ()
    rows = tuple(
        (
            f"{rival.holdout} holdout, {name_of(rival.metric)}",
            (
                Cell(f"{rival.champion_value:.3f}"),
                Cell(f"{rival.candidate_value:.3f}"),
                Cell(points(rival.difference), f"{points(rival.ci_low)} to {points(rival.ci_high)}"),
                Cell(p_value(rival.p_value)),
                Cell(number(rival.n)),
                Cell(number(rival.seen)),
            ),
        )
        for rival in rivals
    )
    return Table(columns, rows)


def look_table(view: RunView) -> Table:
    """Return the checkpoints that were tried on the holdout, with their scalar figures."""
    found = [name for look in view.looks for name, value in look.items() if name != "look" and isinstance(value, str | int | float)]
    names = tuple(dict.fromkeys(found))
    rows = tuple((str(at), tuple(Cell(number(look.get(name))) for name in names)) for at, look in enumerate(view.looks, start=1))
    return Table(tuple(name_of(name) for name in names), rows)


def stage_tables(view: RunView, stage: str) -> StageTables:
    """Return a stage's figures: nested ones with the same names as grids, the others one by one."""
    figures = view.figures.get(stage, {})
    grids, rest = _grids(name_of(stage), figures)
    return StageTables(tuple((name, number(value)) for name, value in flatten(rest)), tuple(grids))


def lineage(view: RunView) -> list[tuple[str, str]]:
    """Return what the result was made from, nested names joined."""
    return [(name, number(value)) for name, value in flatten(view.lineage)]


def training_settings(view: RunView) -> list[tuple[str, str]]:
    """Return how the candidate was, or would have been, trained; what is not set is the provider's default, and not known."""
    backend, options = view.spec.backend, view.spec.provider
    if backend.managed:
        chosen = {"base model": backend.model, "provider": backend.provider, "objective": backend.objective}
        settings: dict[str, Any] = {**chosen, **options.hyperparameters.model_dump(), "seed": backend.method.seed}
        if backend.provider == "azure":
            settings["training type"] = options.tier
        return [(name_of(name), number(value)) for name, value in settings.items() if value is not None]
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
