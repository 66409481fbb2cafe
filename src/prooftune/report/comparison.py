"""The page that compares backends: one self-contained HTML file with one paired table."""

from __future__ import annotations

from importlib import resources
from typing import Final

from markupsafe import Markup

from prooftune.evaluation.backends import BackendComparison, Contender
from prooftune.report.html import environment
from prooftune.report.money import cost_cell
from prooftune.report.tables import Cell, Table
from prooftune.report.wording import duration, name_of, p_value, points, usd

MEASURES: Final = (
    "verdict",
    "quality",
    "to the reference",
    "own best baseline",
    "training",
    "1,000 requests",
    "latency p50",
    "latency p95",
    "weights",
    "answers until",
)


def render_comparison(found: BackendComparison) -> str:
    """Return the page as text. The same comparison gives the same bytes."""
    css = (resources.files("prooftune.report") / "templates" / "style.css").read_text(encoding="utf-8")
    template = environment().get_template("comparison.html.j2")
    style = Markup(css)  # noqa: S704 - our own file
    return template.render(found=found, table=comparison_table(found), metric=name_of(found.metric), css=style)


def comparison_table(found: BackendComparison) -> Table:
    """Return a column a backend, in their order, and a row a measure: there are more measures than backends, and a phone is narrow."""
    columns = [_cells(one) for one in found.contenders]
    rows = tuple((measure, tuple(cells[at] for cells in columns)) for at, measure in enumerate(MEASURES))
    return Table(tuple(one.backend for one in found.contenders), rows, tuple(_note(one, found) for one in found.contenders))


def _note(one: Contender, found: BackendComparison) -> str:
    """Return the base model's own name; the whole one stands beside the verdict."""
    name = one.model.rstrip("/").rpartition("/")[2]
    return f"{name}, reference" if one.backend == found.reference else name


def _cells(one: Contender) -> list[Cell]:
    verdict = Cell(one.verdict.replace("_", " "))
    if one.value is None or one.ci_low is None or one.ci_high is None:
        return [verdict, *(Cell("–") for _ in MEASURES[1:])]
    baseline = Cell("–") if one.baseline_value is None else Cell(f"{one.baseline_value:.3f}", name_of(one.baseline or ""))
    return [
        verdict,
        Cell(f"{one.value:.3f}", f"{one.ci_low:.3f} to {one.ci_high:.3f}", f"n = {one.n:,}"),
        _difference(one),
        baseline,
        cost_cell(one.training_usd, estimated=one.training_estimated),
        _requests(one),
        _seconds(one.latency_p50_s),
        _seconds(one.latency_p95_s),
        Cell("yours" if one.owns_weights else "the provider's"),
        Cell(one.shutdown or "no end known"),
    ]


def _requests(one: Contender) -> Cell:
    """Return what 1,000 requests cost; hosting stands beside it, for it costs as much without a request."""
    if not one.hosting_usd_per_month:
        return cost_cell(one.usd_per_1000_requests)
    return Cell(usd(one.usd_per_1000_requests or 0.0), f"and {usd(one.hosting_usd_per_month)} a month of hosting")


def _difference(one: Contender) -> Cell:
    if one.difference is None or one.difference_low is None or one.difference_high is None or one.p_value is None:
        return Cell("–")
    spread = f"{points(one.difference_low)} to {points(one.difference_high)}"
    return Cell(f"{points(one.difference)} points", spread, p_value(one.p_value))


def _seconds(value: float | None) -> Cell:
    return Cell("not measured" if value is None else duration(value))
