"""What Vertex AI's stand-in takes as a reward: the fields, words and alternatives of the API's types. It grades nothing by it.

Google reads a field in either spelling, and the SDK sends the inner ones of a reward in the other than the rest; shown is the API's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SHAPES: Mapping[str, Mapping[str, str]] = {
    "SingleReinforcementTuningRewardConfig": {
        "rewardName": "",
        "parseResponseConfig": "ReinforcementTuningParseResponseConfig",
        "stringMatchRewardScorer": "ReinforcementTuningStringMatchRewardScorer",
        "codeExecutionRewardScorer": "ReinforcementTuningCodeExecutionRewardScorer",
        "cloudRunRewardScorer": "ReinforcementTuningCloudRunRewardScorer",
        "autoraterScorer": "ReinforcementTuningAutoraterScorer",
    },
    "CompositeReinforcementTuningRewardConfig": {
        "weightedRewardConfigs": "CompositeReinforcementTuningRewardConfigWeightedRewardConfig",
    },
    "CompositeReinforcementTuningRewardConfigWeightedRewardConfig": {
        "rewardConfig": "SingleReinforcementTuningRewardConfig",
        "weight": "",
    },
    "ReinforcementTuningParseResponseConfig": {"parseType": "", "regexExtractExpression": ""},
    "ReinforcementTuningStringMatchRewardScorer": {
        "correctAnswerReward": "",
        "wrongAnswerReward": "",
        "stringMatchExpression": "ReinforcementTuningStringMatchRewardScorerStringMatchExpression",
        "jsonMatchExpression": "ReinforcementTuningStringMatchRewardScorerJsonMatchExpression",
    },
    "ReinforcementTuningStringMatchRewardScorerStringMatchExpression": {"matchOperation": "", "expression": ""},
    "ReinforcementTuningStringMatchRewardScorerJsonMatchExpression": {
        "keyName": "",
        "valueStringMatchExpression": "ReinforcementTuningStringMatchRewardScorerStringMatchExpression",
    },
    "ReinforcementTuningCodeExecutionRewardScorer": {"pythonCodeSnippet": ""},
    "ReinforcementTuningCloudRunRewardScorer": {"cloudRunUri": ""},
    "ReinforcementTuningAutoraterScorer": {
        "autoraterConfig": "",
        "autoraterPrompt": "",
        "autoraterResponseParseConfig": "ReinforcementTuningParseResponseConfig",
        "parsedResponseConversionScorer": "ReinforcementTuningAutoraterScorerParsedResponseConversionScorer",
        "exactMatchScorer": "ReinforcementTuningAutoraterScorerExactMatchScorer",
    },
    "ReinforcementTuningAutoraterScorerParsedResponseConversionScorer": {},
    "ReinforcementTuningAutoraterScorerExactMatchScorer": {"correctAnswerReward": "", "wrongAnswerReward": "", "expression": ""},
}
"""By the name that the SDK gives a type, its fields, each with the type that it holds; empty = a value."""
ONE_OF: Mapping[str, frozenset[str]] = {
    "SingleReinforcementTuningRewardConfig": frozenset(
        {"stringMatchRewardScorer", "codeExecutionRewardScorer", "cloudRunRewardScorer", "autoraterScorer"}
    ),
    "ReinforcementTuningStringMatchRewardScorer": frozenset({"stringMatchExpression", "jsonMatchExpression"}),
    "ReinforcementTuningAutoraterScorer": frozenset({"parsedResponseConversionScorer", "exactMatchScorer"}),
}
"""Fields of which a type has exactly one."""
WORDS: Mapping[str, frozenset[str]] = {
    "matchOperation": frozenset({"REGEX_CONTAINS", "PARTIAL_MATCH", "EXACT_MATCH"}),
    "parseType": frozenset({"IDENTITY", "REGEX_EXTRACT"}),
}
REWARDS = {
    "singleRewardConfig": "SingleReinforcementTuningRewardConfig",
    "compositeRewardConfig": "CompositeReinforcementTuningRewardConfig",
}
"""The two fields of a job's spec of which it has one."""
_READ = re.compile(r"\{\{references\.([^}]+)\}\}")


class NoReward(Exception):
    """Why a reward is refused."""


def read_rewards(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reward of a job's spec, under its field, as the API shows it.

    Raises:
        NoReward: it has none, or both, or one that is none.
    """
    given = [name for name in REWARDS if name in spec]
    if len(given) != 1:
        raise NoReward("Exactly one of single_reward_config and composite_reward_config is required.")
    return {given[0]: _read(spec[given[0]], REWARDS[given[0]], given[0])}


def references_of(rewards: object) -> set[str]:
    """Return the keys of a row's references that rewards read."""
    if isinstance(rewards, dict):
        return {key for held in rewards.values() for key in references_of(held)}
    if isinstance(rewards, list):
        return {key for held in rewards for key in references_of(held)}
    return set(_READ.findall(rewards)) if isinstance(rewards, str) else set()


def _read(value: object, name: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NoReward(f"Invalid value at '{where}': it must be an object.")
    shape, found = SHAPES[name], dict[str, Any]()
    for field, held in value.items():
        spelled = re.sub(r"_([a-z])", lambda match: match[1].upper(), field)
        if spelled not in shape:
            raise NoReward(f'Invalid JSON payload received. Unknown name "{field}" at "{where}": Cannot find field.')
        if spelled in WORDS and held not in WORDS[spelled]:
            raise NoReward(f"Invalid value at '{where}.{spelled}': {held}")
        found[spelled] = _inner(held, shape[spelled], f"{where}.{spelled}")
    if name in ONE_OF and len(ONE_OF[name] & found.keys()) != 1:
        raise NoReward(f"'{where}' must have exactly one of {', '.join(sorted(ONE_OF[name]))}.")
    return found


def _inner(held: Any, shape: str, where: str) -> Any:
    if not shape:
        return held
    return [_read(one, shape, where) for one in held] if isinstance(held, list) else _read(held, shape, where)
