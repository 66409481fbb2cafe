"""The grader of a reinforcement tuning as Vertex AI's reward: in its own words, or OpenAI's ``string_check`` where that says the same.

Its own words are those of the REST API, ``SingleReinforcementTuningRewardConfig`` or ``CompositeReinforcementTuningRewardConfig``; the
SDK's types hold every field and word of them against themselves. What they cannot say is checked here: one scorer each, rewards that are
not clipped, and references that the rows have.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/reference/rest/v1beta1/projects.locations.tuningJobs, and
…/models/tuning/reinforcement-tuning/reinforcement-tuning-job/reward-functions, read on 2026-11-27.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from prooftune.errors import SpecError

REFERENCE = "reference_answer"
"""Key of a row's references with the target; a grader reads it as ``{{references.reference_answer}}``."""
SCORERS = ("stringMatchRewardScorer", "codeExecutionRewardScorer", "cloudRunRewardScorer", "autoraterScorer")
_FORM = (
    f"it is a reward of Vertex AI's with one of {', '.join(SCORERS)}; several of them in {{weightedRewardConfigs: [{{rewardConfig: …, "
    "weight: …}]}; or a string_check of OpenAI's"
)
_UNLIKE = {
    "python": "it gets (sample, item) there and (example, response) here: write it as {codeExecutionRewardScorer: {pythonCodeSnippet: …}}",
    "score_model": "its judge is a model of OpenAI's: write {autoraterScorer: …}",
    "text_similarity": "Vertex AI measures no similarity: write {codeExecutionRewardScorer: …} or {cloudRunRewardScorer: …}",
    "multi": "its formula is free, and Vertex AI's is a weighted mean: write {weightedRewardConfigs: […]}",
}
_REWARDS: Mapping[str, tuple[float, float]] = {"eq": (1.0, 0.0), "ne": (0.0, 1.0)}
"""What an exact match and everything else earn, by operation. OpenAI does not say what exactly ``like`` and ``ilike`` match."""
_OUTPUT = re.compile(r"\{\{\s*sample\.output_text\s*\}\}")
_ITEM = re.compile(r"\{\{\s*item\.(\w+)\s*\}\}")
_READ = re.compile(r"\{\{\s*references\.([^}\s]+)\s*\}\}")


def reward_of(grader: str | None) -> dict[str, Any]:
    """Return an order's grader (JSON) as the field of the SDK's ``CreateTuningJobConfig`` for one reward or for several.

    Raises:
        SpecError: it is none that Vertex AI takes, or says something else there.
    """
    found = json.loads(grader) if grader else None
    if not isinstance(found, dict):
        raise SpecError(f"backend.objective is reinforcement, and provider.grader is no mapping; {_FORM}")
    if "type" in found:
        return {"reward_config": _of_openai(found)}
    if "weightedRewardConfigs" not in found:
        _check_one(found, "provider.grader")
        field = "reward_config"
    else:
        _check_weighted(found["weightedRewardConfigs"])
        field = "composite_reward_config"
    if strange := sorted(references_read(grader) - {REFERENCE}):
        raise SpecError(
            f"provider.grader reads references.{strange[0]}; the rows have {REFERENCE} alone, the target: write "
            f"{{{{references.{REFERENCE}}}}}"
        )
    return {field: found}


def references_read(grader: str | None) -> set[str]:
    """Return the keys of a row's references that a grader reads."""
    return set(_READ.findall(grader or ""))


def _of_openai(grader: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``string_check`` as a match of strings, which earns 1 or 0 as it does at OpenAI."""
    kind, operation = grader["type"], str(grader.get("operation"))
    if kind != "string_check":
        raise SpecError(f"provider.grader is of the type {str(kind)[:40]!r}, which vertex does not take; {_UNLIKE.get(str(kind), _FORM)}")
    if operation not in _REWARDS:
        raise SpecError(
            f"provider.grader.operation is {operation!r}; of string_check eq and ne alone mean the same at vertex. Write "
            "{stringMatchRewardScorer: …} with PARTIAL_MATCH or REGEX_CONTAINS for what only has to be in the answer"
        )
    told, reference = str(grader.get("input", "")), str(grader.get("reference", ""))
    if not _OUTPUT.fullmatch(told):
        raise SpecError("provider.grader.input is not {{sample.output_text}}, and vertex compares the whole answer with the reference")
    items = _ITEM.findall(reference)
    if set(items) - {REFERENCE} or reference.count("{{") != len(items):
        raise SpecError(f"provider.grader.reference reads what the rows do not have; they have {{{{item.{REFERENCE}}}}} alone, the target")
    right, wrong = _REWARDS[operation]
    expression = {"matchOperation": "EXACT_MATCH", "expression": _ITEM.sub(rf"{{{{references.{REFERENCE}}}}}", reference)}
    scorer = {"correctAnswerReward": right, "wrongAnswerReward": wrong, "stringMatchExpression": expression}
    return {"rewardName": str(grader.get("name") or "string_check"), "stringMatchRewardScorer": scorer}


def _check_weighted(weighted: object) -> None:
    where = "provider.grader.weightedRewardConfigs"
    if not isinstance(weighted, list) or not weighted:
        raise SpecError(f"{where} is no list, or empty; {_FORM}")
    for number, one in enumerate(weighted):
        weight = one.get("weight") if isinstance(one, dict) else None
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            raise SpecError(f"{where}[{number}] has no weight above 0; the rewards are added up by their weights")
        _check_one(one.get("rewardConfig"), f"{where}[{number}].rewardConfig")
    names = [one["rewardConfig"].get("rewardName") for one in weighted]
    if None in names or len(set(names)) < len(names):
        raise SpecError(f"{where} need a rewardName each, no two the same")


def _check_one(reward: object, where: str) -> None:
    given = [name for name in SCORERS if name in reward] if isinstance(reward, dict) else []
    if len(given) != 1:
        raise SpecError(f"{where} has {' and '.join(given) or 'no scorer'}; {_FORM}")
    for name, amount in _amounts(reward):
        if isinstance(amount, int | float) and not -1 <= amount <= 1:
            raise SpecError(f"{where} has a {name} of {amount:g}; Vertex AI cuts rewards to -1 … 1, so write one of these")


def _amounts(value: object) -> Iterator[tuple[str, object]]:
    """Yield each reward that a configuration promises, however deep it stands."""
    if isinstance(value, dict):
        for name, held in value.items():
            if name in ("correctAnswerReward", "wrongAnswerReward"):
                yield name, held
            yield from _amounts(held)
