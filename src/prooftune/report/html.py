"""Writes the report: one HTML file that asks nothing of any network, and the data of its plots."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prooftune.report import managed, money, tables, wording
from prooftune.report.changes import Changes, compare_answers
from prooftune.report.model_card import model_card
from prooftune.report.plots import Plot, csv_lines, draw_plots
from prooftune.report.risks import risks
from prooftune.report.summary import tiles
from prooftune.report.technical_file import technical_file
from prooftune.report.usage import recipes
from prooftune.report.view import RunView

SHOWN_CHANGES: Final = 8
"""Regressions and improvements shown, each; the rest is counted."""
SHOWN_CLUSTERS: Final = 5
"""Clusters of failures shown at once; the others are folded."""
SHOWN_FINDINGS: Final = 30
"""Findings shown at once; more are folded …"""
LISTED_FINDINGS: Final = 1000
"""… and beyond this many only counted: all are in ``findings.jsonl``."""


def write_report(view: RunView, out: Path) -> dict[str, object]:
    """Write ``report.html``, ``model_card.md``, ``technical_file.md`` and ``data/<plot>.csv`` into ``out``; return figures about them.

    The same view gives the same bytes.
    """
    plots, changes = draw_plots(view), compare_answers(view)
    page = render(view, plots, changes)
    texts = {"report.html": page, "model_card.md": model_card(view), "technical_file.md": technical_file(view)}
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
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
    found = risks(view, changes)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            plots=plots,
            changes=changes,
            risks=found,
            tiles=tiles(view, found),
            title=wording.TITLES[view.decision.verdict],
            headline=wording.headline(view),
            what_next=wording.what_next(view),
            tables=_tables(view),
            money_sentence=money.money_sentence(view),
            assumptions=money.assumptions(view),
            batches=wording.batches(view),
            training=tables.training_settings(view),
            stages={stage: shown for stage in view.figures if (shown := tables.stage_tables(view, stage))},
            lineage=tables.lineage(view),
            recipes=recipes(view),
            managed=_managed(view),
            css=Markup((package / "style.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
            limits={"changes": SHOWN_CHANGES, "shown": SHOWN_FINDINGS, "listed": LISTED_FINDINGS, "clusters": SHOWN_CLUSTERS},
        )
    )


def _managed(view: RunView) -> dict[str, Any]:
    """Return what the section on the managed job shows; empty for a run on this machine."""
    if not view.spec.backend.managed or (view.estimate is None and view.managed is None):
        return {}
    return {
        "facts": managed.facts(view),
        "history": managed.history(view),
        "bill": managed.bill_table(view),
        "whereabouts": managed.whereabouts(view),
        "sentences": [text for text in (managed.bill_sentence(view), managed.tokens_sentence(view)) if text],
        "approval": managed.approval_sentence(view),
        "warnings": view.estimate.warnings if view.estimate else (),
    }


def _tables(view: RunView) -> dict[str, tables.Table]:
    return {
        "quality": tables.quality_table(view),
        "effort": tables.effort_table(view),
        "slices": tables.slice_table(view),
        "champion": tables.champion_table(view),
        "looks": tables.look_table(view),
        "options": money.option_table(view, measured=True),
        "break_even": money.break_even_table(view, measured=True),
        "managed": money.option_table(view, measured=False),
        "managed_break_even": money.break_even_table(view, measured=False),
    }


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
    made.filters.update({function.__name__: function for function in wording.FILTERS})
    made.filters["svg"] = lambda plot: Markup(plot.svg)  # noqa: S704  # drawn by plots.py, which escapes
    return made


def _finalize(value: Any) -> Any:
    """Show hidden characters of every text that a template puts on the page, so that no place can forget to."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else wording.visible(value)
