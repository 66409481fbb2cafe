"""The grader of a reinforcement tuning as Vertex AI's reward: what says the same there is passed on, and all else refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prooftune.errors import SpecError
from prooftune.providers.vertex_rewards import reward_of

TARGET = "{{references.reference_answer}}"
CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
    "operation": "eq",
}
MATCH = {
    "stringMatchRewardScorer": {"correctAnswerReward": 1, "stringMatchExpression": {"matchOperation": "EXACT_MATCH", "expression": TARGET}}
}
CODE = {"rewardName": "code", "codeExecutionRewardScorer": {"pythonCodeSnippet": "def evaluate(example, response):\n    return 1.0\n"}}


def weighted(*rewards: dict[str, Any], weight: Any = 1) -> dict[str, Any]:
    """Return several rewards with a weight each."""
    return {"weightedRewardConfigs": [{"rewardConfig": reward, "weight": weight} for reward in rewards]}


@pytest.mark.parametrize(("operation", "right", "wrong"), [("eq", 1.0, 0.0), ("ne", 0.0, 1.0)])
def test_a_string_check_is_an_exact_match(operation: str, right: float, wrong: float) -> None:
    """It earns what it earns at OpenAI, by the same comparison of the whole answer with the target, and text around it stays."""
    grader = {**CHECK, "operation": operation, "reference": "Label: {{ item.reference_answer }}"}
    assert reward_of(json.dumps(grader)) == {
        "reward_config": {
            "rewardName": "same",
            "stringMatchRewardScorer": {
                "correctAnswerReward": right,
                "wrongAnswerReward": wrong,
                "stringMatchExpression": {"matchOperation": "EXACT_MATCH", "expression": f"Label: {TARGET}"},
            },
        }
    }


@pytest.mark.parametrize("grader", [MATCH, CODE, {"cloudRunRewardScorer": {"cloudRunUri": "https://x"}}])
def test_a_reward_of_its_own_is_passed_on_as_it_is(grader: dict[str, Any]) -> None:
    """One under its field, several under the other."""
    assert reward_of(json.dumps(grader)) == {"reward_config": grader}
    several = weighted(MATCH | {"rewardName": "same"}, CODE)
    assert reward_of(json.dumps(several)) == {"composite_reward_config": several}


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        (None, "provider.grader is no mapping"),
        ([], "provider.grader is no mapping"),
        ({}, "has no scorer"),
        ({"rewardName": "x"}, "has no scorer"),
        (MATCH | CODE, "stringMatchRewardScorer and codeExecutionRewardScorer"),
        ({"lambdaArn": "arn:aws:lambda:us-east-1:1:function:f"}, "has no scorer"),
        ({"stringMatchRewardScorer": {"correctAnswerReward": 2}}, "correctAnswerReward of 2; Vertex AI cuts"),
        ({"autoraterScorer": {"exactMatchScorer": {"wrongAnswerReward": -1.5}}}, "wrongAnswerReward of -1.5"),
        ({"autoraterScorer": {"autoraterPrompt": "{{references.rubric}}"}}, r"reads references\.rubric"),
        ({"weightedRewardConfigs": []}, "weightedRewardConfigs is no list, or empty"),
        (weighted(CODE, weight=0), r"weightedRewardConfigs\[0\] has no weight above 0"),
        (weighted(CODE, weight=True), "has no weight above 0"),
        (weighted({"rewardName": "x"}), r"weightedRewardConfigs\[0\]\.rewardConfig has no scorer"),
        (weighted(CODE, CODE), "a rewardName each"),
        (weighted(MATCH), "a rewardName each"),
        ({"type": "python", "source": "…"}, "codeExecutionRewardScorer"),
        ({"type": "score_model"}, "autoraterScorer"),
        ({"type": "text_similarity"}, "no similarity"),
        ({"type": "multi"}, "weightedRewardConfigs"),
        ({"type": "vibes"}, "'vibes'"),
        (CHECK | {"operation": "ilike"}, "operation is 'ilike'.*PARTIAL_MATCH"),
        (CHECK | {"operation": "like"}, "operation is 'like'.*PARTIAL_MATCH"),
        (CHECK | {"input": "{{sample.output_json.label}}"}, r"provider\.grader\.input"),
        (CHECK | {"reference": "{{item.rubric}}"}, r"provider\.grader\.reference"),
        (CHECK | {"reference": "{{sample.output_text}}"}, r"provider\.grader\.reference"),
    ],
)
def test_what_says_something_else_is_refused_with_what_to_write(grader: Any, told: str) -> None:
    """Nothing is passed on that would be cut, misread or left out there."""
    with pytest.raises(SpecError, match=told):
        reward_of(None if grader is None else json.dumps(grader))
