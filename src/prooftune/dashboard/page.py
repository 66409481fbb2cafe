"""Writes the dashboard: one HTML file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Final, get_args

from jinja2 import ChoiceLoader, PackageLoader, Template
from markupsafe import Markup

from prooftune.dashboard.trends import trend
from prooftune.dashboard.view import Dashboard, Run, moment
from prooftune.report.html import environment
from prooftune.report.plots import Plot
from prooftune.report.summary import Tile
from prooftune.report.wording import months, number, usd
from prooftune.types import Verdict

SHOWN_RUNS: Final = 25
"""Runs in the table at once; older ones are folded by month."""
SHOWN_TASKS: Final = 12
"""Tasks with their trend, those that were active last; the others are folded and have none."""
SHOWN_RETRAININGS: Final = 3
"""Retrainings of a task shown at once; earlier ones are folded."""
SHOWN_MONTHS: Final = 6
"""Budgets shown at once; older ones are folded."""
NEARLY: Final = 0.9
"""Share of a month's limit from which on the page says that it is nearly spent."""
UNDATED: Final = "not registered"
Link = Callable[[str], str | None]
"""Where a page can reach an object of the store, by key; None = it cannot."""


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that waits for a person."""

    name: str
    text: str
    command: str = ""
    """What settles it."""


def render(view: Dashboard, link: Link = lambda key: None, flags: str = "") -> str:
    """Return the page as text. The same view gives the same bytes.

    Args:
        view: What to show.
        link: Where the page will reach a report.
        flags: What a command has to say of the store, ``" --store s3://…"``.
    """
    css, script = (_own(name) for name in ("dashboard.css", "filter.js"))
    found = list(matters(view, flags))
    return _page().render(
        view=view,
        link=lambda key: link(key) if key else None,
        day=_day,
        ago=lambda at: _ago(at, view.made_at),
        matters=found,
        tiles=list(_tiles(view)),
        title=_title(len(found)),
        plots=_plots(view),
        moment=moment,
        verdicts=get_args(Verdict),
        champions={task.registry.champion for task in view.tasks},
        latest=view.runs[:SHOWN_RUNS],
        older=_by_month(view.runs[SHOWN_RUNS:]),
        shown={"tasks": SHOWN_TASKS, "retrainings": SHOWN_RETRAININGS, "months": SHOWN_MONTHS},
        css=Markup(_report_css() + css),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _page() -> Template:
    """Return the compiled page, which is made of its own templates and the report's."""
    loader = ChoiceLoader([PackageLoader("prooftune.dashboard", "templates"), PackageLoader("prooftune.report", "templates")])
    return environment().overlay(loader=loader).get_template("dashboard.html.j2")


def matters(view: Dashboard, flags: str) -> Iterator[Matter]:
    """Yield what waits for a person, most urgent first: what costs money, then what stops a run, then what is nearly used up."""
    for lease in view.left_running:
        rate = "at a price that is not listed" if lease.usd_per_hour is None else f"for {usd(lease.usd_per_hour)} an hour"
        silent = _ago(lease.renewed, view.made_at)
        text = f"{lease.name} of {lease.provider} still runs {rate}; its run has not been heard of for {silent}."
        yield Matter("Deployment left running", text, f"prooftune jobs sweep --remove{flags}")
    for entry in view.to_reconcile:
        text = f"Nobody can tell whether {entry.order.provider} has a job for {entry.run}: look into its console."
        yield Matter("Job to reconcile", text, f"prooftune jobs reconcile {entry.key}{flags}")
    for asked in view.asked:
        wish = f"is to be the champion of {asked.task}" if asked.usd is None else f"may cost {usd(asked.usd)}"
        text = f"{asked.key} {wish} and waits since {_day(moment(asked.at))}."
        yield Matter("Promotion to approve" if asked.usd is None else "Estimate to approve", text, f"prooftune approve {asked.key}{flags}")
    for month in view.this_month:
        if month.limit_usd is not None and month.usd >= NEARLY * month.limit_usd and month.usd > 0:
            text = f"{usd(month.usd)} of {usd(month.limit_usd)} of the project {month.project} are billed or held."
            yield Matter("Budget nearly spent", text)
    for trouble in view.troubles:
        text = trouble.what.removeprefix(f"{view.store}: ")
        yield Matter("Document that cannot be read", text if trouble.where in text else f"{trouble.where}: {text}")


def _title(count: int) -> str:
    if not count:
        return "Nothing waits for you"
    return f"{number(count)} {'matter waits' if count == 1 else 'matters wait'} for you"


def _tiles(view: Dashboard) -> Iterator[Tile]:
    """Yield the figures of the first screen."""
    champions = [task for task in view.tasks if task.registry.champion]
    yield Tile(
        "tasks with a champion", f"{number(len(champions))} of {number(len(view.tasks))}", "promoted by the gate or a person", main=True
    )
    promoted = sum(run.verdict == "promote" for run in view.runs)
    yield Tile("runs", number(len(view.runs)), f"{number(promoted)} ended in promote")
    current = view.this_month
    held = sum(month.held_usd for month in current)
    yield Tile(
        f"spent in {view.made_at:%B}",
        usd(sum(month.usd for month in current)),
        f"of which {usd(held)} is held, not billed" if held else "nothing is held",
    )
    yield Tile(
        "at a provider",
        number(len(view.jobs) + len(view.leases)),
        f"{_count(len(view.jobs), 'job')}, {_count(len(view.leases), 'deployment')}",
    )


def _count(count: int, name: str) -> str:
    return f"{number(count)} {name}{'' if count == 1 else 's'}"


def _plots(view: Dashboard) -> dict[str, Plot]:
    drawn = {task.name: trend(task, f"trend-{at}", view.made_at) for at, task in enumerate(view.tasks[:SHOWN_TASKS])}
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _by_month(runs: Iterable[Run]) -> list[tuple[str, list[Run]]]:
    return [(month, list(group)) for month, group in groupby(runs, lambda run: f"{run.at:%B %Y}" if run.at else UNDATED)]


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "–"


def _ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in the unit that reads best."""
    seconds = (now - at).total_seconds() if at else 0.0
    if seconds < 3600:
        return _count(max(round(seconds / 60), 1), "minute")
    return f"{seconds / 3600:.0f} hours" if seconds < 48 * 3600 else months(seconds / 86_400 / 30.4)


def _own(name: str) -> str:
    return (resources.files("prooftune.dashboard") / "templates" / name).read_text(encoding="utf-8")


def _report_css() -> str:
    return (resources.files("prooftune.report") / "templates" / "style.css").read_text(encoding="utf-8")
