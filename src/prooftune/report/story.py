"""What people are told of a run in Markdown: how it ended, and what it asks of a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from prooftune.economics.approvals import Question
from prooftune.report.markdown import escaped, markdown
from prooftune.report.svg import CONTESTANTS
from prooftune.report.wording import TITLES, interval, named, reasons_of, sentence, timing, visible
from prooftune.types import Metric, RunResult

MOST_METRICS = 2
"""Columns of the evidence table, which a narrow page shows whole; the report has all metrics."""


def verdict_story(result: RunResult, standing: str, places: Mapping[str, str], command: str) -> str:
    """Return the document of a verdict: evidence, and where everything is.

    Args:
        result: How the run ended.
        standing: Whether the run is in use, since when and by whom, or why not; "" = that was no question.
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
            reasons=reasons_of(decision),
            standing=_with_commands(standing),
            evaluations=in_order,
            title=TITLES[result.verdict],
            metrics=metrics,
            places=[(name, code(address)) for name, address in places.items()],
            command=code(command),
            cell=_cell,
            timing=timing,
            named=lambda text: named(text, decision.metric, decision.baseline),
            sentence=lambda text: sentence(text, decision.metric, decision.baseline),
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def question_story(
    question: Question, why: str, evidence: Sequence[str], places: Mapping[str, str], command: str, hours: float, where: str
) -> str:
    """Return the document of a question.

    Args:
        question: What a person is asked.
        why: Why a person is asked, in a sentence.
        evidence: What the answer can rest on, a point each.
        places: Address by what is there.
        command: What answers on the command line; "" = it was answered.
        hours: How long an answer is waited for.
        where: Address of the flow run that waits; "" = the reader has it open.
    """
    text = (
        markdown()
        .get_template("question.md.j2")
        .render(
            question=question,
            why=why,
            evidence=evidence,
            places=[(name, code(address)) for name, address in places.items()],
            command=code(command) if command else "",
            hours=f"{hours:g} hour{'' if hours == 1 else 's'}",
            where=Markup(f"[the flow run that waits]({where})") if where else "",  # noqa: S704 - an address of the Prefect server's
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def code(text: str) -> Markup:
    """Return a text as code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return Markup(f"{fence}{padding}{' '.join(visible(text).split())}{padding}{fence}")  # noqa: S704 - fenced: nothing in it is Markdown


def _with_commands(text: str) -> Markup:
    """Return a text with its commands as code and everything else as text."""
    parts = re.split(r"`(prooftune [^`]+)`", text)
    return Markup("").join(code(part) if at % 2 else Markup(escaped(part)) for at, part in enumerate(parts))  # noqa: S704 - escaped


def _cell(metric: Metric | None) -> str:
    return "–" if metric is None else f"{metric.value:.3f} ({interval(metric)})"
