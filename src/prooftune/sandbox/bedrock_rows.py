"""What Bedrock's stand-in makes of rows and requests: examples, a prompt, or why they are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prooftune.types import Example, Message

RESERVED = ("System:", "User:", "Bot:", "Assistant:", "[EOS]", "<image>", "<video>")
"""Words for which Nova's jobs fail, as the user guide names them."""
REWARDED = 100
"""Rows of a reinforcement tuning at least."""


class Unfit(Exception):
    """Why a file or a prompt is refused."""


def read_examples(content: bytes, model: str, kind: str, least: int, most: int) -> list[Example]:
    """Return the examples of a file for a base model and a customization type.

    Raises:
        Unfit: a line is none, or there are too few or too many.
    """
    lines = [line for line in content.decode().split("\n") if line.strip()]
    if not least <= len(lines) <= most:
        raise Unfit(f"the number of records is {len(lines)}, and must be between {least} and {most}")
    return [_example(number, json.loads(line), model, kind) for number, line in enumerate(lines, start=1)]


def _example(number: int, row: object, model: str, kind: str) -> Example:
    where = f"line {number}"
    if not isinstance(row, dict):
        raise Unfit(f"{where}: the record must be a JSON object")
    if kind == "REINFORCEMENT_FINE_TUNING":
        _only(row, {"messages", "reference_answer"}, set(), where)
        said = [Message(role=one["role"], content=one["content"]) for one in row["messages"]]
        messages = [*said, Message(role="assistant", content=row["reference_answer"])]
    elif model.startswith("anthropic."):
        messages = _claude(row, where)
    elif model.startswith("meta.llama3-1-"):
        _only(row, {"prompt", "completion"}, set(), where)
        messages = [Message(role="user", content=row["prompt"]), Message(role="assistant", content=row["completion"])]
    else:
        messages = _conversation(row, where, nova=model.startswith("amazon."))
    return Example(id=f"{number:016x}", source=where, messages=tuple(messages))


def _claude(row: dict[str, Any], where: str) -> list[Message]:
    _only(row, {"messages"}, {"system"}, where)
    turns = row["messages"]
    if not all(isinstance(turn, dict) and turn.keys() == {"role", "content"} and isinstance(turn["content"], str) for turn in turns):
        raise Unfit(f"{where}: each message has a role and a content that is a string")
    system = [Message(role="system", content=row["system"])] if "system" in row else []
    return [*system, *_alternating([Message(role=turn["role"], content=turn["content"]) for turn in turns], where)]


def _conversation(row: dict[str, Any], where: str, *, nova: bool) -> list[Message]:
    _only(row, {"messages"}, {"schemaVersion", "system"}, where)
    messages = as_prompt(row, where)
    turns = [message for message in messages if message.role != "system"]
    _alternating(turns, where)
    if len(row.get("system", [])) > 1:
        raise Unfit(f"{where}: the system array should not contain more than 1 element")
    if nova and (held := [word for word in RESERVED if any(word in message.content for message in messages)]):
        raise Unfit(f"{where}: invalid text content, the following tokens are invalid: {', '.join(held)}")
    return messages


def _only(row: dict[str, Any], required: set[str], allowed: set[str], where: str) -> None:
    if missing := sorted(required - row.keys()):
        raise Unfit(f"{where}: the key {missing[0]} is missing")
    if unknown := sorted(row.keys() - required - allowed):
        raise Unfit(f"{where}: extraneous key {unknown[0]}")


def _alternating(turns: list[Message], where: str) -> list[Message]:
    roles = [turn.role for turn in turns]
    if len(roles) < 2 or roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or roles[-1] != "assistant":
        raise Unfit(f"{where}: messages must begin with user, alternate, and end with assistant")
    return turns


def as_prompt(body: dict[str, Any], where: str = "the request") -> list[Message]:
    """Return the messages of a conversation in Converse's form.

    Raises:
        Unfit: there are none, or one is none.
    """
    messages = [Message(role="system", content=_text([block], where)) for block in body.get("system", [])]
    for turn in body.get("messages") or ():
        if turn.get("role") not in ("user", "assistant"):
            raise Unfit(f"{where}: the role {turn.get('role')} is not supported")
        messages.append(Message(role=turn["role"], content=_text(turn.get("content"), where)))
    if not any(message.role == "user" for message in messages):
        raise Unfit(f"{where}: a conversation must start with a user message")
    return messages


def _text(content: object, where: str) -> str:
    if not isinstance(content, list) or not content or not all(isinstance(block, dict) and block.get("text") for block in content):
        raise Unfit(f"{where}: the text field in a ContentBlock is blank; add text to the text field and try again")
    return "\n\n".join(block["text"] for block in content)


def prompt_of(body: dict[str, Any]) -> Sequence[Message]:
    """Return the prompt of a request. Turns must alternate, and the last one be the user's."""
    messages = as_prompt(body)
    roles = [message.role for message in messages if message.role != "system"]
    if roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or roles[-1] != "user":
        raise Unfit("a conversation must alternate between user and assistant roles, and end with a user message")
    return messages
