"""Tests of the model card: that hubs can read it, and that it tells what the report tells and nothing private."""

from __future__ import annotations

from typing import get_args

import pytest
import yaml

from prooftune.report.model_card import DEMO_HUB_ID, model_card
from prooftune.report.view import RunView
from prooftune.report.wording import headline, name_of
from prooftune.types import Verdict
from tests.fixtures_evidence import make_full_view
from tests.fixtures_managed import BASES, make_managed_view
from tests.fixtures_report import HOSTILE, TICKETS, make_empty_view, make_view

VERDICTS = get_args(Verdict)


def front_matter(card: str) -> dict[str, object]:
    """Return the metadata on top of a card."""
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def with_model(view: RunView, model: str, kind: str = "lora") -> RunView:
    """Return the view with another base model and method."""
    method = view.spec.backend.method.model_copy(update={"kind": kind})
    backend = view.spec.backend.model_copy(update={"model": model, "method": method})
    return view.model_copy(update={"spec": view.spec.model_copy(update={"backend": backend})})


def test_the_hubs_own_reader_finds_the_results() -> None:
    """``huggingface_hub`` reads back base model, library, tags and every metric of the candidate with its interval."""
    from huggingface_hub import ModelCard

    view = make_view()
    card = ModelCard(model_card(view))
    assert card.data.base_model == DEMO_HUB_ID
    assert card.data.library_name == "peft"
    assert card.data.license == "unknown"
    assert view.candidate is not None
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results.keys() == view.candidate.metrics.keys()
    for name, metric in view.candidate.metrics.items():
        assert results[name].metric_value == metric.value
        assert results[name].metric_args["ci_low"] == metric.ci_low
        assert results[name].metric_args["n"] == metric.n
        assert results[name].dataset_split == "holdout"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_card_tells_what_the_report_tells(verdict: Verdict) -> None:
    """Verdict, reasons, every metric with its interval, counts and cleaning stand in the card."""
    view = make_view(verdict)
    card = model_card(view)
    assert headline(view) in card
    assert verdict.replace("_", "-") in str(front_matter(card)["tags"])
    for evaluation in view.evaluations:
        for metric in evaluation.metrics.values():
            assert f"{metric.value:.3f} ({metric.ci_low:.3f} to {metric.ci_high:.3f})" in card
            assert f" {name_of(metric.name)}, n = {metric.n}" in card
    assert "- counts · train: 430\n" in card
    for code, action, count in view.finding_counts:
        assert f"| {code} | {action} | {count} |\n" in card
    assert ("model-index" in front_matter(card)) == (view.candidate is not None)
    assert ("## How to use" in card) == (view.candidate is not None)


def test_the_card_of_a_full_run_says_what_it_is_bad_at() -> None:
    """Intended use, slices, forgetting, clusters of failures and the judge stand in the card, and metrics carry their interval in words."""
    view = make_full_view()
    card = model_card(view)
    limits = card[card.index("## Limitations") : card.index("## Environmental impact")]
    worst = min(view.slices, key=lambda part: part.candidate)
    assert f"Where {worst.column} is {worst.value}: exact match {worst.candidate:.3f}" in limits
    assert "Forgetting, multiple choice: language: 0.610 → 0.560 (\N{MINUS SIGN}5.0 points of accuracy, n = 30)." in limits
    assert "Failures around “refund, invoice”: 12, 27.3 % of all." in limits
    assert "beyond them and the general suite." in limits
    assert "## Intended use" in card
    assert "prefers the candidate in 67.0 % of the pairs" in card
    assert "exact match (95 % interval 0.671 to 0.811, n = 159)" in card


def test_tables_have_one_width() -> None:
    """Every row of a table has as many cells as its header, so that it is a table where it is read."""
    for block in model_card(make_view("promote", HOSTILE)).split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_a_card_without_any_contestant() -> None:
    """A run that stopped at once has a card that says so, with readable metadata."""
    card = model_card(make_empty_view())
    assert "No model was trained" in card
    assert "stopped before any contestant" in card
    assert front_matter(card)["library_name"] == "peft"


def test_the_card_holds_no_example_and_no_path() -> None:
    """Neither tickets nor answers nor folders of the machine that trained are published with the model."""
    card = model_card(with_model(make_view(), "/home/someone/models/base-1b"))
    assert front_matter(card)["base_model"] == "base-1b"
    assert "/data/" not in card
    assert "/home/" not in card
    assert not [ticket for ticket in TICKETS if ticket[:30] in card]


def test_full_training_is_no_adapter() -> None:
    """A fully trained model is a fine-tune in transformers' own form; a hub id stays what it is."""
    card = model_card(with_model(make_view(), "owner/name", kind="full"))
    metadata = front_matter(card)
    assert (metadata["base_model"], metadata["library_name"], metadata["base_model_relation"]) == ("owner/name", "transformers", "finetune")
    assert "PeftModel" not in card


@pytest.mark.parametrize("provider", ["openai", "together"])
def test_a_managed_model_is_no_adapter(provider: str) -> None:
    """No library loads it; only an open base model is one of the hub's; the card says where the weights are and how to ask."""
    card = model_card(make_managed_view(provider))
    metadata = front_matter(card)
    assert metadata["tags"] == ["prooftune", "managed", provider, "supervised", "promote"]
    assert "library_name" not in metadata
    known = {"base_model": BASES["together"], "base_model_relation": "finetune"} if provider == "together" else {}
    assert {name: metadata[name] for name in metadata if name.startswith("base_model")} == known
    assert "model-index" in metadata
    use = card[card.index("## How to use") :]
    assert "from openai import OpenAI" in use
    assert ("Its weights can be downloaded." if provider == "together" else "Its weights stay at OpenAI") in use
    for words in ("peft", "PeftModel", "transformers import", "With the files of this run", "chosen checkpoint", "rank", "one machine"):
        assert words not in card
    assert "trained and serves the model on hardware of its own." in card


def test_hostile_text_does_nothing_in_markdown() -> None:
    """Tags and pipes are escaped, and a system message with backticks cannot end its code block."""
    view = make_view("promote", HOSTILE + " ```` ")
    card = model_card(view)
    assert "\n`````python\n" in card
    assert card.rstrip().split("\n")[-3].startswith("`````") or "\n`````\n" in card
    outside = card[: card.index("`````python")]
    assert "<script>" not in outside.replace("\\<script\\>", "")
    assert model_card(view) == card
