"""The page that compares backends: one self-contained HTML file with one paired table."""

from __future__ import annotations

from importlib import resources

from markupsafe import Markup

from prooftune.evaluation.backends import BackendComparison, Contender
from prooftune.report.html import environment
from prooftune.report.tables import Cell, Table
from prooftune.report.wording import duration, name_of, p_value, points, usd

COLUMNS = (
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
    """Return a row a backend, the reference marked."""
    rows = tuple((_name(one, found), tuple(_cells(one, found))) for one in found.contenders)
    return Table(COLUMNS, rows)


def _name(one: Contender, found: BackendComparison) -> str:
    return f"{one.backend} (reference)" if one.backend == found.reference else one.backend


def _cells(one: Contender, found: BackendComparison) -> list[Cell]:
    if one.value is None or one.ci_low is None or one.ci_high is None:
        return [Cell("–", one.verdict.replace("_", " ")), *(Cell("–") for _ in COLUMNS[1:])]
    baseline = Cell("–") if one.baseline_value is None else Cell(f"{one.baseline_value:.3f}", name_of(one.baseline or ""))
    return [
        Cell(f"{one.value:.3f}", f"{one.ci_low:.3f} to {one.ci_high:.3f}", f"n = {one.n}"),
        _difference(one),
        baseline,
        _usd(one.training_usd),
        _usd(one.usd_per_1000_requests),
        _seconds(one.latency_p50_s),
        _seconds(one.latency_p95_s),
        Cell("yours" if one.owns_weights else "the provider's"),
        Cell(one.shutdown or "no end known"),
    ]


def _difference(one: Contender) -> Cell:
    if one.difference is None or one.difference_low is None or one.difference_high is None or one.p_value is None:
        return Cell("–")
    spread = f"{points(one.difference_low)} to {points(one.difference_high)}"
    return Cell(f"{points(one.difference)} points", spread, p_value(one.p_value))


def _usd(value: float | None) -> Cell:
    return Cell("not known" if value is None else usd(value))


def _seconds(value: float | None) -> Cell:
    return Cell("not measured" if value is None else duration(value))
