"""One grader of a spec at every provider that has reinforcement tuning: it is taken, or refused with the form that it has there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures_stand_ins import open_stand_in

from prooftune.errors import SpecError
from prooftune.spec import Hyperparameters

CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
    "operation": "eq",
}
MODELS = {
    "openai": "o4-mini",
    "azure": "o4-mini",
    "vertex": "gemini-3.5-flash",
    "bedrock": "amazon.nova-2-lite-v1:0:256k",
    "fireworks": "accounts/fireworks/models/qwen3-8b",
}


@pytest.mark.parametrize("provider", ["openai", "azure", "vertex"])
def test_a_string_check_is_tuned_by(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own form works at OpenAI, Azure and Vertex AI, on rows that hold the target under the same name."""
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        rows = tmp_path / "rows.jsonl"
        here.tuner.write_rows(here.examples(), "Sort.", "reinforcement", rows, MODELS[provider])
        chosen = Hyperparameters(epochs=1)
        order = here.order(rows, objective="reinforcement", model=MODELS[provider], grader=json.dumps(CHECK), hyperparameters=chosen)
        assert here.tuner.check_rows(rows, order, "train") == []
        files = here.uploaded(rows, order)
        job = here.tuner.create(order, files.model_copy(update={"validation": files.train}))
        here.api.works.settle()  # type: ignore[attr-defined]
        assert here.tuner.job(job.id).status == "succeeded"


@pytest.mark.parametrize(("provider", "form"), [("bedrock", "lambdaArn"), ("fireworks", "evaluator")])
def test_a_string_check_is_refused_where_a_function_of_yours_grades(
    provider: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bedrock's service model knows a Lambda function as grader and nothing else, Fireworks an evaluator; the refusal says so."""
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        rows = tmp_path / "rows.jsonl"
        here.tuner.write_rows(here.examples(100), "Sort.", "reinforcement", rows, MODELS[provider])
        order = here.order(rows, objective="reinforcement", model=MODELS[provider], grader=json.dumps(CHECK))
        with pytest.raises(SpecError, match=rf"provider\.grader.*{form}"):
            here.tuner.check_rows(rows, order, "train")


def test_bedrock_has_no_other_grader() -> None:
    """What botocore's service model says: a grader is a Lambda function."""
    session = pytest.importorskip("botocore.session").get_session()
    assert set(session.get_service_model("bedrock").shape_for("GraderConfig").members) == {"lambdaGrader"}
