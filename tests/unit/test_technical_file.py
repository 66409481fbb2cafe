"""Tests of the technical file: that it has Annex IV's headings, the run's facts, and a note wherever the run cannot know."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import get_args

import pytest

from prooftune.report.technical_file import technical_file
from prooftune.report.wording import headline
from prooftune.types import Verdict
from tests.fixtures_evidence import make_full_view
from tests.fixtures_managed import make_managed_view
from tests.fixtures_report import HOSTILE, TICKETS, make_empty_view, make_view

ANNEX_IV = (
    "General description of the AI system",
    "Elements of the AI system and the process of its development",
    "Monitoring, functioning and control",
    "Appropriateness of the performance metrics",
    "Risk management system (Article 9)",
    "Relevant changes through the lifecycle",
    "Harmonised standards and other specifications applied",
    "EU declaration of conformity (Article 47)",
    "Post-market monitoring (Article 72)",
)
TO_DO = "> To be completed by the provider: "


def sections(text: str) -> dict[str, str]:
    """Return the text of each numbered section by its heading."""
    parts = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: part for part in parts}


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_all_nine_headings_stand_there_with_a_note_each(verdict: Verdict) -> None:
    """The headings come in Annex IV's order, and each section says what the provider has to add."""
    found = sections(technical_file(make_view(verdict)))
    assert list(found) == [f"{number}. {name}" for number, name in enumerate(ANNEX_IV, start=1)]
    assert all(TO_DO in text for text in found.values())


def test_points_of_sections_1_and_2_go_from_a_to_h() -> None:
    """Sections 1 and 2 have the annex's eight points each."""
    found = list(sections(technical_file(make_full_view())).values())
    for text in found[:2]:
        assert re.findall(r"^### \((\w)\)", text, flags=re.MULTILINE) == list("abcdefgh")


def test_what_the_run_knows_is_filled_in() -> None:
    """Verdict, data, digests, settings, metrics with intervals, slices, checks, limitations and changes are the view's."""
    view = make_full_view()
    text = technical_file(view)
    found = list(sections(text).values())
    assert headline(view) in text
    assert f"SHA-256 `{view.digests['source']}`" in found[1]
    assert "- learning rate: 0.001\n" in found[1]
    assert "| exact-duplicate | dropped | 8 |" in found[1]
    for evaluation in view.evaluations:
        metric = evaluation.metrics["exact_match"]
        assert f"{metric.value:.3f} ({metric.ci_low:.3f} to {metric.ci_high:.3f})" in found[1]
    for check in view.decision.checks:
        assert f"{check.name}: {check.text}" in found[1]
    for part in view.slices:
        assert f"| {part.column} = {part.value} | {part.n} |" in found[2]
    assert "44 of 159 held-out answers are wrong" in found[2]
    assert "old holdout, exact match" in found[5]
    assert "EU AI Act, Annex III, employment" in found[0]


def test_it_promises_nothing() -> None:
    """No sentence says that the system complies or conforms."""
    for view in (make_full_view(), make_empty_view()):
        text = re.sub(r"```+yaml.*", "", technical_file(view), flags=re.DOTALL)
        assert not re.search(r"\b(complies|compliant|conforms|certified|fulfils|satisfies)\b", text)
        assert "nothing here says that a requirement is met" in text


def test_a_run_without_a_candidate_says_so() -> None:
    """A run that stopped at once has all headings and claims no model."""
    text = technical_file(make_empty_view())
    assert len(sections(text)) == 9
    assert "The run trained no model." in text
    assert "stopped before any contestant" in text


def test_a_managed_run_names_provider_job_and_place() -> None:
    """Where the model is, what was sent where, the job, who agreed to the estimate; nothing of adapters or cut examples."""
    text = technical_file(make_managed_view())
    found = list(sections(text).values())
    assert "The tuned model answers at OpenAI. Its weights stay at OpenAI" in found[0]
    assert "OpenAI trained by a procedure of its own" in found[1]
    assert "- run key: prooftune-026c2a62eab6b7b758f86401\n" in found[1]
    assert "approved by ada" in found[1]
    assert "were sent to OpenAI (https://api.example/v1)" in found[1]
    for words in ("adapter", "load the model", "were cut at", "negative log-likelihood"):
        assert words not in text[: text.index("## Appendix")]


def test_hostile_text_does_nothing_and_examples_stay_out() -> None:
    """Tags are escaped outside the fenced spec, hidden characters are shown, tables keep their width, no ticket is told."""
    text = technical_file(make_full_view("promote", HOSTILE))
    outside = text[: text.index("## Appendix")]
    assert "<script>" not in outside.replace("\\<script\\>", "")
    assert "\u202e" not in text
    assert not [ticket for ticket in TICKETS if ticket[:30] in text]
    for block in outside.split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    lines = outside.splitlines()
    assert not [line for line, after in pairwise(lines) if line.startswith("## ") and after]
