"""Tests of the page that compares backends: a column a backend, so that the last one is not cut off."""

from __future__ import annotations

from typing import Any

from prooftune.evaluation.backends import BackendComparison, Contender
from prooftune.report.comparison import MEASURES, comparison_table, render_comparison
from tests.fixtures_report import HOSTILE, Page


def contender(backend: str, **changes: Any) -> Contender:
    """Return a backend's candidate."""
    usual: dict[str, Any] = {
        "backend": backend,
        "model": "owner/model-1b",
        "run_id": f"{backend}-1",
        "verdict": "promote",
        "reason": "It is better.",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n": 137,
        "baseline": "few_shot",
        "baseline_value": 0.25,
        "training_usd": 0.23,
        "owns_weights": backend == "local",
    }
    return Contender.model_validate(usual | changes)


def comparison(*contenders: Contender) -> BackendComparison:
    """Return a comparison with the first as reference."""
    first = contenders[0].backend
    return BackendComparison(
        task="triage", metric="exact_match", alpha=0.05, holdout_sha256="b2" * 32, reference=first, contenders=contenders
    )


def test_backends_are_columns_and_measures_rows() -> None:
    """Each cell is the measure of its backend; one that trained nothing has a verdict and dashes."""
    openai = contender("openai", difference=-0.05, difference_low=-0.1, difference_high=0.0, p_value=0.04, shutdown="2027-01-14")
    stopped = Contender(backend="vertex", model="m", run_id="v-1", verdict="do_not_fine_tune", reason="Prompting is enough.")
    table = comparison_table(comparison(contender("local"), openai, stopped))
    assert table.columns == ("local", "openai", "vertex")
    assert table.notes == ("model-1b, reference", "model-1b", "m")
    rows = {name: [cell.value for cell in cells] for name, cells in table.rows}
    assert tuple(rows) == MEASURES
    assert rows["verdict"] == ["promote", "promote", "do not fine tune"]
    assert rows["quality"] == ["0.500", "0.500", "–"]
    assert rows["to the reference"] == ["–", "\N{MINUS SIGN}5.0 points", "–"]
    assert rows["weights"] == ["yours", "the provider's", "–"]
    assert rows["answers until"] == ["no end known", "2027-01-14", "–"]


def test_an_estimated_training_is_marked_and_an_unknown_one_is_not_nothing() -> None:
    """Of two backends one estimated its training, and of the other nobody tells what it cost."""
    estimated = contender("bedrock", training_usd=2.0, training_estimated=True)
    rows = dict(comparison_table(comparison(estimated, contender("fireworks", training_usd=None))).rows)
    assert [(cell.value, cell.detail) for cell in rows["training"]] == [("$2", "as estimated"), ("not known", "")]


def test_hosting_stands_beside_the_requests() -> None:
    """A deployment that is paid for by the hour costs nothing by the request; without the hour's price it would look free."""
    azure = contender("azure", usd_per_1000_requests=0.0, hosting_usd_per_month=1241.0)
    openai = contender("openai", usd_per_1000_requests=0.12, hosting_usd_per_month=0.0)
    rows = dict(comparison_table(comparison(azure, openai)).rows)
    first, second = rows["1,000 requests"]
    assert first.value == "$0"
    assert "$1,241 a month of hosting" in first.detail
    assert second.detail == ""


def test_the_page_is_one_table_and_asks_no_network() -> None:
    """Text from a run is text, and the same comparison gives the same bytes."""
    found = comparison(contender("local", reason=HOSTILE), contender("openai"))
    text = render_comparison(found)
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("table") == 1
    assert not [tag for tag, attributes in page.elements if tag == "script" or "src" in attributes]
    assert "local model-1b, reference" in page.text
    assert render_comparison(found) == text
