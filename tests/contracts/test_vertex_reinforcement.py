"""Reinforcement tuning at Vertex AI's stand-in, through the real SDK: rewards reach the job as the API has them, and it trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_vertex
import pytest
from fixtures_stand_ins import StandIn

from prooftune.errors import SpecError
from prooftune.providers.tuning import Files, Order
from prooftune.sandbox.vertex_rewards import REWARDS
from prooftune.types import Message

types = pytest.importorskip("google.genai.types")

PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))
TARGET = "{{references.reference_answer}}"
EXACT = {"matchOperation": "EXACT_MATCH", "expression": TARGET}
MATCH = {
    "rewardName": "same",
    "parseResponseConfig": {"parseType": "REGEX_EXTRACT", "regexExtractExpression": "label: (.*)"},
    "stringMatchRewardScorer": {"correctAnswerReward": 1.0, "wrongAnswerReward": -1.0, "stringMatchExpression": EXACT},
}
JSON = {
    "rewardName": "json",
    "stringMatchRewardScorer": {
        "correctAnswerReward": 1.0,
        "jsonMatchExpression": {"keyName": "label", "valueStringMatchExpression": EXACT},
    },
}
JUDGE = {
    "rewardName": "judge",
    "autoraterScorer": {
        "autoraterConfig": {"autoraterModel": "projects/p/locations/us/publishers/google/models/gemini-3.5-flash"},
        "autoraterPrompt": f"Is {{{{response}}}} the label {TARGET}? Say yes or no.",
        "exactMatchScorer": {"correctAnswerReward": 1.0, "wrongAnswerReward": 0.0, "expression": "yes"},
    },
}
CODE = {"rewardName": "code", "codeExecutionRewardScorer": {"pythonCodeSnippet": "def evaluate(example, response):\n    return 1.0\n"}}
RUN = {"rewardName": "run", "cloudRunRewardScorer": {"cloudRunUri": "https://grade.run.app"}}
SEVERAL = {"weightedRewardConfigs": [{"rewardConfig": MATCH, "weight": 0.75}, {"rewardConfig": JUDGE, "weight": 0.25}]}
CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
    "operation": "eq",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_vertex.stand_in(tmp_path, monkeypatch) as found:
        yield found


def ordered(here: StandIn, grader: dict[str, Any], **chosen: Any) -> tuple[Order, Files]:
    """Return an order of a reinforcement tuning, and its uploaded rows, which are fit."""
    rows = here.folder / "asked.jsonl"
    here.tuner.write_rows(here.examples(), "Sort the ticket.", "reinforcement", rows)
    order = here.order(rows, objective="reinforcement", grader=json.dumps(grader))
    order = order.model_copy(update={"hyperparameters": order.hyperparameters.model_copy(update=chosen)})
    assert here.tuner.check_rows(rows, order, "train") == []
    return order, Files(train=here.tuner.upload(rows, order.key, "train"), validation=here.tuner.upload(rows, order.key, "validation"))


@pytest.mark.parametrize("grader", [MATCH, JSON, JUDGE, CODE, RUN, SEVERAL], ids=["match", "json", "judge", "code", "run", "several"])
def test_a_reward_reaches_the_job_as_it_is_written(here: StandIn, grader: dict[str, Any]) -> None:
    """Every scorer, and several with weights: what the SDK sends is what the spec says, and the job shows it in the SDK's type."""
    order, files = ordered(here, grader, adapter_rank=8, learning_rate_multiplier=0.5, batch_size=8)
    job = here.tuner.create(order, files)
    sent = dict(here.api.works.jobs[job.id].fields["body"]["reinforcementTuningSpec"])
    (field,) = REWARDS.keys() & sent.keys()
    assert sent.pop(field) == grader
    assert field == ("compositeRewardConfig" if grader is SEVERAL else "singleRewardConfig")
    assert sent == {
        "trainingDatasetUri": files.train,
        "validationDatasetUri": files.validation,
        "hyperParameters": {
            "epochCount": 2,
            "adapterSize": "ADAPTER_SIZE_EIGHT",
            "learningRateMultiplier": 0.5,
            "batchSize": 8,
            "thinkingLevel": "MINIMAL",
        },
    }
    here.api.works.settle()
    shown = types.TuningJob.model_validate(here.api.jobs.shown(here.api.works.jobs[job.id])).reinforcement_tuning_spec
    told = shown.composite_reward_config or shown.single_reward_config
    assert told.model_dump(by_alias=True, exclude_none=True, mode="json") == grader


def test_a_job_runs_from_the_grader_to_an_answer(here: StandIn, tmp_path: Path) -> None:
    """With OpenAI's own string_check: found again by key and without its label, polled to its end, and the tuned model answers."""
    order, files = ordered(here, CHECK)
    job = here.tuner.create(order, files)
    assert (job.status, job.key) == ("waiting", order.key)
    assert here.api.works.jobs[job.id].fields["body"]["reinforcementTuningSpec"]["singleRewardConfig"] == {
        "rewardName": "same",
        "stringMatchRewardScorer": {"correctAnswerReward": 1.0, "wrongAnswerReward": 0.0, "stringMatchExpression": EXACT},
    }
    here.api.works.settle()
    del here.api.works.jobs[job.id].fields["body"]["labels"]
    (found,) = here.tuner.find(order, files)
    # Google does not say by what a reinforcement is billed, so no bill is made of the file's tokens.
    assert (found.id, found.status, found.billed_tokens) == (job.id, "succeeded", None)
    assert len(here.tuner.checkpoints(job.id)) == 2
    assert here.tuner.download(job.id, tmp_path / "out") == ["metrics.jsonl", "tuning_data_stats.json"]
    assert json.loads((tmp_path / "out" / "tuning_data_stats.json").read_text())["tuning_dataset_example_count"] == 40
    assert here.tuner.chat(str(found.model)).ask(PROMPT, 50).text == "login"


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        (CODE | {"name": "x"}, r"reward_config\.name|rewardConfig\.name"),
        ({"stringMatchRewardScorer": {"stringMatchExpression": {"matchOperation": "FUZZY", "expression": TARGET}}}, "FUZZY"),
        ({"stringMatchRewardScorer": {"correct": 1}}, "correct"),
        ({"type": "python", "source": "…"}, "codeExecutionRewardScorer"),
    ],
)
def test_a_grader_that_the_types_do_not_know_is_refused_before_anything_is_uploaded(
    here: StandIn, grader: dict[str, Any], told: str
) -> None:
    """A field or a word of no type of the SDK's, and another API's grader."""
    with pytest.raises(SpecError, match=rf"provider\.grader.*({told})"):
        ordered(here, grader)
    assert here.api.state()["files"] == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"singleRewardConfig": None}, "Exactly one of single_reward_config"),
        ({"compositeRewardConfig": SEVERAL}, "Exactly one of single_reward_config"),
        ({"singleRewardConfig": MATCH | CODE}, "exactly one of"),
        ({"singleRewardConfig": {"graderName": "x"}}, "graderName"),
        ({"hyperParameters": {"beta": 0.1}}, "beta"),
        ({"hyperParameters": {"thinkingLevel": "LOW"}}, "LOW"),
        ({"hyperParameters": {"batchSize": 1024}}, "8192"),
    ],
)
def test_the_stand_in_refuses_what_the_api_has_not(
    here: StandIn, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    """A job without a reward, with two, or with a field of none."""
    order, files = ordered(here, MATCH)
    real = here.api.jobs._check

    def checked(body: dict[str, Any]) -> str:
        spec = body["reinforcementTuningSpec"] | change
        body["reinforcementTuningSpec"] = {name: value for name, value in spec.items() if value is not None}
        return real(body)

    monkeypatch.setattr(here.api.jobs, "_check", checked)
    with pytest.raises(SpecError, match=told):
        here.tuner.create(order, files)
    assert here.jobs == 0
