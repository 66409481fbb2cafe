"""What Vertex AI's stand-in makes of turns: a prompt, the examples of a training file, or why it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any, Literal

from prooftune.sandbox.models import count_words
from prooftune.types import Example, Message

Kind = Literal["supervised", "preference", "reinforcement"]
ROLES = {"user": "user", "model": "assistant"}
LONGEST_ROW = 131_072
"""Tokens."""
_BESIDES: Mapping[Kind, frozenset[str]] = {
    "supervised": frozenset({"tools"}),
    "preference": frozenset({"completions"}),
    "reinforcement": frozenset({"tools", "references"}),
}
"""Fields of a row besides its turns."""
LARGEST_FILE = 1_000_000_000
"""Bytes."""
MOST_ROWS: Mapping[Kind, int] = {"supervised": 1_000_000, "preference": 10_000_000, "reinforcement": 5_000}
MOST_VALIDATION_ROWS: Mapping[Kind, int] = {"supervised": 5_000, "preference": 5_000, "reinforcement": 500}


class Unfit(Exception):
    """Why a file or a prompt is refused."""


def read_examples(content: bytes, kind: Kind, read: Set[str] = frozenset(), *, held: bool = False) -> list[Example]:
    """Return the examples of a file; ``held`` = of one for validation. ``read`` are the references that a reward reads in its rows.

    Raises:
        Unfit: a line is none, there is none, or there is too much.
    """
    if len(content) > LARGEST_FILE:
        raise Unfit(f"the file has {len(content):,} bytes, and may have {LARGEST_FILE:,}")
    lines = [line for line in content.decode().split("\n") if line.strip()]
    if not lines:
        raise Unfit("the dataset is empty")
    most = (MOST_VALIDATION_ROWS if held else MOST_ROWS)[kind]
    if len(lines) > most:
        raise Unfit(f"the dataset has {len(lines):,} examples, and may have {most:,}")
    return [_example(number, json.loads(line), kind, read) for number, line in enumerate(lines, start=1)]


def _example(number: int, row: object, kind: Kind, read: Set[str]) -> Example:
    where = f"Line {number}"
    if not isinstance(row, dict):
        raise Unfit(f"{where}: must be a JSON object")
    known = {"contents", "systemInstruction", "system_instruction"} | _BESIDES[kind]
    if unknown := sorted(row.keys() - known):
        raise Unfit(f'{where}: unknown name "{unknown[0]}": cannot find field')
    prompt = as_prompt(row, where)
    rejected = None
    if kind == "preference":
        scored = {one.get("score"): one.get("completion") for one in row.get("completions") or () if isinstance(one, dict)}
        if scored.keys() != {0, 1}:
            raise Unfit(f"{where}: there must be one completion with score 1 and one with score 0")
        chosen, rejected = (_text(scored[score], where) for score in (1, 0))
        prompt = [*prompt, Message(role="assistant", content=chosen)]
        if prompt[-2].role != "user":
            raise Unfit(f"{where}: contents must end with a user turn")
    elif kind == "reinforcement":
        if prompt[-1].role != "user":
            raise Unfit(f"{where}: contents must end with a user turn")
        prompt = [*prompt, Message(role="assistant", content=_answer(row.get("references"), read, where))]
    elif prompt[-1].role != "assistant":
        raise Unfit(f"{where}: the last turn must be the model's")
    example = Example(id=f"{number:016x}", source=where, messages=tuple(prompt), rejected=rejected)
    if count_tokens(example) > LONGEST_ROW:
        raise Unfit(f"{where}: the example is longer than {LONGEST_ROW} tokens")
    return example


def _answer(references: object, read: Set[str], where: str) -> str:
    """Return what stands for a rewarded answer, the first reference: nothing is graded here, and the stand-in learns that one."""
    if not isinstance(references, dict) or not references or not all(isinstance(held, str) for held in references.values()):
        raise Unfit(f"{where}: references must be a map of strings")
    if missing := sorted(read - references.keys()):
        raise Unfit(f"{where}: the reward reads references.{missing[0]}, which is missing")
    return str(next(iter(references.values())))


def as_prompt(body: dict[str, Any], where: str = "The request") -> list[Message]:
    """Return the messages of a request or a row.

    Raises:
        Unfit: there are none, or one is none.
    """
    system = body.get("systemInstruction") or body.get("system_instruction")
    messages = [Message(role="system", content=_text(system, where))] if system else []
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Unfit(f"{where}: at least one contents field is required")
    for turn in contents:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise Unfit(f"{where}: please use a valid role: user, model")
        messages.append(Message(role=ROLES[turn["role"]], content=_text(turn, where)))
    return messages


def _text(content: object, where: str) -> str:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not parts or not all(isinstance(part, dict) and part.get("text") for part in parts):
        raise Unfit(f"{where}: must include at least one parts field with text")
    return "\n\n".join(part["text"] for part in parts)


def count_tokens(example: Example) -> int:
    """Return the tokens that an epoch over the example bills: prompt and answers. Words and signs stand for Gemini's tokens."""
    answers = [Message(role="assistant", content=example.rejected)] if example.rejected is not None else []
    return count_words([*example.messages, *answers])
