"""Training rows in Gemini's form, and what Vertex AI refuses in them; ``settings`` puts an order's hyperparameters into the SDK's words.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/tuning/supervised-tuning/prepare-data, …/preference-tuning and
…/preference-tuning/prepare-data, read on 2026-11-26; …/reinforcement-tuning/reinforcement-tuning-job/tuning-dataset and …/hyperparameters,
read on 2026-11-27. The SDK has types for preference rows (``GeminiPreferenceExample``) and those of reinforcement
(``ReinforcementTuningExample``), and none for supervised ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError
from prooftune.providers.rows import Unfit, check_lines, rejected_of, write_lines_of
from prooftune.providers.tuning import Order
from prooftune.providers.vertex_models import short_name
from prooftune.providers.vertex_rewards import REFERENCE, references_read, reward_of
from prooftune.spec import Objective
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message

FILE_BYTES = 1_000_000_000
ROWS_MAX: dict[Objective, int] = {"supervised": 1_000_000, "preference": 10_000_000, "reinforcement": 5_000}
VALIDATION_ROWS_MAX: dict[Objective, int] = {"supervised": 5_000, "preference": 5_000, "reinforcement": 500}
TOKENS_PER_EXAMPLE: dict[Objective, int] = {"supervised": 131_072, "preference": 131_072, "reinforcement": 32_768}
"""With reinforcement those of the prompt alone; as many again may be answered."""
ADAPTER_SIZES = {1: "ONE", 2: "TWO", 4: "FOUR", 8: "EIGHT", 16: "SIXTEEN"}
"""The API also knows 32, which no Gemini model takes."""
REINFORCED_BATCH_MAX = 512
"""Prompts of a step: with the 16 answers to each that are the default, they may be 8,192 answers."""
REINFORCED_RATE = (0.25, 4.0)
"""Least and largest learning rate multiplier."""
METHODS: dict[Objective, str] = {
    "supervised": "SUPERVISED_FINE_TUNING",
    "preference": "PREFERENCE_TUNING",
    "reinforcement": "REINFORCEMENT_TUNING",
}
ROLES = {"user": "user", "assistant": "model"}
SYSTEM: dict[Objective, str] = {
    "supervised": "systemInstruction",
    "preference": "system_instruction",
    "reinforcement": "systemInstruction",
}
"""The documentation spells it differently for each; both spellings are read."""
_FIELDS: dict[Objective, tuple[frozenset[str], frozenset[str]]] = {
    "supervised": (frozenset({"contents"}), frozenset({"contents", "tools", *SYSTEM.values()})),
    "preference": (frozenset({"contents", "completions"}), frozenset({"contents", "completions", *SYSTEM.values()})),
    "reinforcement": (frozenset({"contents", "references"}), frozenset({"contents", "references", "tools", *SYSTEM.values()})),
}
"""Fields that a row must have, and may have."""


def write_rows(examples: Path, system: str, objective: Objective, out: Path) -> None:
    """Write examples in Gemini's form, one line an example, in their order.

    Raises:
        DataError: an example holds a tool's answer, or a preference tuning is to learn from an example without a rejected answer.
    """
    write_lines_of(examples, lambda example: _row(example, system, objective), out)


def _row(example: Example, system: str, objective: Objective) -> dict[str, Any]:
    messages = with_system(example.messages, system)
    if any(message.role == "tool" for message in messages):
        raise Unfit("tool-answer", "holds a tool's answer; Gemini takes one only with the call it answers, which examples do not hold")
    instruction, contents = as_contents(messages if objective == "supervised" else messages[:-1])
    head = {SYSTEM[objective]: {"role": "system", "parts": instruction}} if instruction else {}
    if objective == "supervised":
        return {**head, "contents": contents}
    if objective == "reinforcement":
        return {**head, "contents": contents, "references": {REFERENCE: example.target}}
    answers = ((1, example.target), (0, rejected_of(example)))
    return {
        **head,
        "contents": contents,
        "completions": [{"score": score, "completion": {"role": "model", "parts": [{"text": text}]}} for score, text in answers],
    }


def as_contents(messages: Sequence[Message]) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Return the parts of the system instruction, and the turns. Messages of one role in a row become one turn."""
    instruction = [{"text": message.content} for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    contents = [
        {"role": ROLES[role], "parts": [{"text": message.content} for message in group]}
        for role, group in groupby(turns, key=lambda message: message.role)
    ]
    return instruction, contents


def check_rows(path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
    """Return what would be refused in a file of rows, each problem with its line."""
    problems: list[Problem] = []
    if (size := path.stat().st_size) > FILE_BYTES:
        problems.append(Problem(path.name, f"has {size:,} bytes; a file may have {FILE_BYTES:,}", "file-too-large"))
    with path.open("rb") as lines:
        rows, found = check_lines(lines, path.name, lambda row, _: _check_row(row, order))
    problems += found
    most = (VALIDATION_ROWS_MAX if role == "validation" else ROWS_MAX)[order.objective]
    if rows > most:
        problems.append(
            Problem(f"{path.name}:{most + 1}", f"is row {most + 1:,} of {rows:,}; a {role} file may have {most:,}", "too-many-rows")
        )
    if not rows:
        problems.append(Problem(f"{path.name}:1", "is empty; a file has at least one row", "too-few-rows"))
    return problems


def _check_row(row: dict[str, Any], order: Order) -> tuple[()]:
    """Return nothing; the first thing that is wrong is raised."""
    objective = order.objective
    required, allowed = _FIELDS[objective]
    if missing := sorted(required - row.keys()):
        raise Unfit("missing-field", f"has no {', '.join(missing)}; a {objective} row has {', '.join(sorted(required))}")
    if unknown := sorted(row.keys() - allowed):
        raise Unfit("unknown-field", f"has the fields {', '.join(unknown)}; a {objective} row may have {', '.join(sorted(allowed))}")
    given = sorted(set(SYSTEM.values()) & row.keys())
    if len(given) > 1:
        raise Unfit("two-system-instructions", f"has both {' and '.join(given)}; they are the same field")
    texts = [text for name in given for text in _texts(row[name], name)]
    texts += _turns(row["contents"], "model" if objective == "supervised" else "user")
    if objective == "preference":
        texts += _pair(row["completions"])
    if objective == "reinforcement":
        _check_references(row["references"], references_read(order.grader))
    # No tokenizer of Gemini's works offline. A token never spans two words, so that what is counted here are tokens at least.
    words = sum(len(text.split()) for text in texts)
    if words > (most := TOKENS_PER_EXAMPLE[objective]):
        raise Unfit("too-long", f"has {words:,} words, each a token at least; an example may have {most:,} tokens")
    return ()


def _check_references(references: object, read: set[str]) -> None:
    if not isinstance(references, dict) or not all(isinstance(held, str) for held in references.values()):
        raise Unfit("bad-references", "has references that are no mapping of names to texts")
    if missing := sorted(read - references.keys()):
        raise Unfit("missing-reference", f"has no references.{missing[0]}, which provider.grader reads")


def _turns(contents: object, last: str) -> list[str]:
    if not isinstance(contents, list) or not contents:
        raise Unfit("no-contents", "has contents that are no list of turns, or none")
    texts: list[str] = []
    for number, turn in enumerate(contents, start=1):
        expected = ("user", "model")[(number - 1) % 2]
        if not isinstance(turn, dict) or turn.get("role") not in ROLES.values():
            raise Unfit("bad-role", f"contents {number} has no role, or neither of user and model")
        if turn["role"] != expected:
            raise Unfit("wrong-turn", f"contents {number} has role {turn['role']!r}; turns begin with 'user' and alternate")
        texts += _texts(turn, f"contents {number}")
    if contents[-1]["role"] != last:
        raise Unfit("wrong-last-role", f"ends with role {contents[-1]['role']!r}; contents end with {last!r}")
    return texts


def _texts(content: object, where: str) -> list[str]:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        raise Unfit("no-parts", f"{where} has no parts")
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) and text for text in texts):
        raise Unfit("no-text", f"{where} has a part without text")
    return [text for text in texts if text]


def _pair(completions: object) -> list[str]:
    """Return the longer answer's texts."""
    if not isinstance(completions, list) or len(completions) != 2:
        raise Unfit("no-pair", "has completions that are not two: a preferred and a dispreferred one")
    for number, one in enumerate(completions, start=1):
        if not isinstance(one, dict) or not isinstance(one.get("completion"), dict) or one["completion"].get("role") != "model":
            raise Unfit("bad-completion", f"completion {number} is not one turn of the model")
    scores = [one.get("score") for one in completions]
    if any(isinstance(score, bool) or score not in (0, 1) for score in scores) or scores[0] == scores[1]:
        raise Unfit("bad-score", f"has completions with the scores {scores[0]!r} and {scores[1]!r}; one is 1 (preferred), the other 0")
    return max((_texts(one["completion"], f"completion {number}") for number, one in enumerate(completions, start=1)), key=_words)


def _words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def settings(order: Order) -> dict[str, Any]:
    """Return an order's objective, hyperparameters and grader as fields of the SDK's ``CreateTuningJobConfig``. Vertex AI takes no seed.

    A reinforcement tuning learns with as little thought as the tuned model is asked with afterwards. Gemini 2.5 takes no such level.

    Raises:
        SpecError: a hyperparameter or the grader is none that Vertex AI takes for Gemini; the message names the field.
    """
    chosen, objective = order.hyperparameters, order.objective
    _check_hyperparameters(order)
    given = {
        "learning_rate_multiplier": chosen.learning_rate_multiplier,
        "adapter_size": f"ADAPTER_SIZE_{ADAPTER_SIZES[chosen.adapter_rank]}" if chosen.adapter_rank else None,
        "batch_size": chosen.batch_size,
        "beta": chosen.beta,
    }
    found: dict[str, Any] = {"method": METHODS[objective], "epoch_count": chosen.epochs}
    found |= {name: value for name, value in given.items() if value is not None}
    if objective == "reinforcement":
        found |= reward_of(order.grader)
        found |= {} if short_name(order.model).startswith("gemini-2") else {"thinking_level": "MINIMAL"}
    return found


def _check_hyperparameters(order: Order) -> None:
    chosen, objective = order.hyperparameters, order.objective
    refused = {"learning_rate": "set learning_rate_multiplier", "adapter_alpha": "it chooses it"}
    if objective != "reinforcement":
        refused["batch_size"] = "it takes one for open models and with reinforcement alone"
    for name, advice in refused.items():
        if getattr(chosen, name) is not None:
            raise SpecError(f"provider.hyperparameters.{name} is set, and vertex does not take it for Gemini; {advice}")
    if chosen.beta is not None and objective != "preference":
        raise SpecError(
            f"provider.hyperparameters.beta is {chosen.beta:g} with backend.objective {objective}; vertex takes it with preference alone"
        )
    if chosen.adapter_rank is not None and chosen.adapter_rank not in ADAPTER_SIZES:
        sizes = ", ".join(map(str, ADAPTER_SIZES))
        raise SpecError(f"provider.hyperparameters.adapter_rank is {chosen.adapter_rank}; vertex takes {sizes}")
    if objective != "reinforcement":
        return
    rate, (least, most) = chosen.learning_rate_multiplier, REINFORCED_RATE
    if rate is not None and not least <= rate <= most:
        raise SpecError(
            f"provider.hyperparameters.learning_rate_multiplier is {rate:g}; vertex takes {least:g} to {most:g} with reinforcement"
        )
    if chosen.batch_size is not None and chosen.batch_size > REINFORCED_BATCH_MAX:
        raise SpecError(f"provider.hyperparameters.batch_size is {chosen.batch_size}; vertex takes up to {REINFORCED_BATCH_MAX} prompts")
