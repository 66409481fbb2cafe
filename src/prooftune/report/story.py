"""How a run ended, as one short document in Markdown: verdict, evidence, and where everything is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup

from prooftune.report.markdown import markdown
from prooftune.report.svg import CONTESTANTS
from prooftune.report.wording import TITLES, interval, timing, visible
from prooftune.types import Metric, RunResult

MOST_METRICS = 3
"""Columns of the evidence table; the report has all metrics."""


def verdict_story(result: RunResult, places: Mapping[str, str], command: str) -> str:
    """Return the document.

    Args:
        result: How the run ended.
        places: Address by what is there: ``report``, ``model card`` …
        command: What shows the run on the command line.
    """
    decision = result.decision
    known = {name: None for evaluation in result.evaluations for name in evaluation.metrics}
    metrics = sorted(known, key=lambda name: name != decision.metric)[:MOST_METRICS]
    in_order = sorted(result.evaluations, key=lambda one: CONTESTANTS.index(one.name) if one.name in CONTESTANTS else len(CONTESTANTS))
    text = (
        markdown()
        .get_template("verdict.md.j2")
        .render(
            result=result,
            decision=decision,
            evaluations=in_order,
            title=TITLES[result.verdict],
            metrics=metrics,
            places=[(name, code(address)) for name, address in places.items()],
            command=code(command),
            cell=_cell,
            timing=timing,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def code(text: str) -> Markup:
    """Return a text as code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return Markup(f"{fence}{padding}{' '.join(visible(text).split())}{padding}{fence}")  # noqa: S704 - fenced: nothing in it is Markdown


def _cell(metric: Metric | None) -> str:
    return "–" if metric is None else f"{metric.value:.3f} ({interval(metric)})"
