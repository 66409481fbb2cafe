"""Writes the report: one HTML file that asks nothing of any network, and the data of its plots."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prooftune.report import tables, wording
from prooftune.report.model_card import model_card
from prooftune.report.plots import Plot, batches, csv_lines, draw_plots
from prooftune.report.usage import recipes
from prooftune.report.view import Changes, RunView, compare_answers

SHOWN_CHANGES: Final = 8
"""Regressions and improvements shown, each; the rest is counted."""
SHOWN_FINDINGS: Final = 30
"""Findings shown at once; more are folded …"""
LISTED_FINDINGS: Final = 1000
"""… and beyond this many only counted: all are in ``findings.jsonl``."""


def write_report(view: RunView, out: Path) -> dict[str, object]:
    """Write ``report.html``, ``model_card.md`` and ``data/<plot>.csv`` into ``out``, and return a few figures about them.

    The same view gives the same bytes.
    """
    plots, changes = draw_plots(view), compare_answers(view)
    page = render(view, plots, changes)
    (out / "report.html").write_text(page, encoding="utf-8", newline="\n")
    (out / "model_card.md").write_text(model_card(view), encoding="utf-8", newline="\n")
    (out / "data").mkdir(exist_ok=True)
    for plot in plots.values():
        with (out / "data" / f"{plot.name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(csv_lines(plot))
    return {
        "verdict": view.decision.verdict,
        "plots": list(plots),
        "regressions": len(changes.regressions),
        "improvements": len(changes.improvements),
        "bytes": len(page.encode()),
    }


def render(view: RunView, plots: dict[str, Plot], changes: Changes) -> str:
    """Return the page as text."""
    package = resources.files("prooftune.report") / "templates"
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            plots=plots,
            changes=changes,
            title=wording.TITLES[view.decision.verdict],
            headline=wording.headline(view),
            what_next=wording.what_next(view),
            quality=tables.quality_rows(view),
            cost=tables.cost_rows(view),
            batches=batches(view),
            training=tables.training_settings(view),
            stages={stage: found for stage in view.figures if (found := tables.stage_tables(view, stage))},
            recipes=recipes(view),
            css=Markup((package / "style.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
            limits={"changes": SHOWN_CHANGES, "shown": SHOWN_FINDINGS, "listed": LISTED_FINDINGS},
        )
    )


def environment() -> Environment:
    """Return the template environment: everything is escaped, hidden characters are shown, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("prooftune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    filters = (wording.name_of, wording.points, wording.p_value, wording.duration, wording.number)
    made.filters.update({function.__name__: function for function in filters})
    made.filters["svg"] = lambda plot: Markup(plot.svg)  # noqa: S704  # drawn by plots.py, which escapes
    return made


def _finalize(value: Any) -> Any:
    """Show hidden characters of every text that a template puts on the page, so that no place can forget to."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else wording.visible(value)
