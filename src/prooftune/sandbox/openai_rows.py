"""What OpenAI's stand-in makes of a training file: examples, or why the job fails."""

from __future__ import annotations

import json
from typing import Any, Literal

from prooftune.providers.openai_rows import openai_tokens
from prooftune.types import Example, Message, Role

Kind = Literal["supervised", "dpo", "reinforcement"]
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
FEWEST_ROWS = 10
LONGEST_ROW = 65_536
"""Tokens."""


class Unfit(Exception):
    """Why a file is refused, in OpenAI's way of saying it."""


def read_examples(content: bytes, kind: Kind, fewest: int = FEWEST_ROWS) -> list[Example]:
    """Return the examples of a file.

    Raises:
        Unfit: a line is none, or there are too few.
    """
    lines = [line for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    if len(lines) < fewest:
        raise Unfit(f"Training file has {len(lines)} example(s), but must have at least {fewest} examples")
    return [_example(number, json.loads(line), kind) for number, line in enumerate(lines, start=1)]


def _example(number: int, row: dict[str, Any], kind: Kind) -> Example:
    where = f"Line {number}"
    if kind == "dpo":
        keys = {"input", "preferred_output", "non_preferred_output"}
        if row.keys() != keys or not isinstance(row["input"], dict):
            raise Unfit(f"{where}: expected the keys {sorted(keys)}")
        prompt = _messages(row["input"].get("messages"), where)
        chosen, rejected = (_messages(row[name], where) for name in ("preferred_output", "non_preferred_output"))
        if [message.role for message in (*chosen, *rejected)] != ["assistant", "assistant"]:
            raise Unfit(f"{where}: each output must be one message from the assistant")
        said = Example(id=f"{number:016x}", source=where, messages=(*prompt, *chosen), rejected=rejected[0].content)
    elif kind == "reinforcement":
        prompt = _messages(row.get("messages"), where)
        if prompt[-1].role != "user":
            raise Unfit(f"{where}: last message must be from the user")
        answer = next((str(value) for name, value in row.items() if name not in ("messages", "tools")), "")
        said = Example(id=f"{number:016x}", source=where, messages=(*prompt, Message(role="assistant", content=answer)))
    else:
        if unknown := sorted(row.keys() - {"messages", "tools", "parallel_tool_calls", "functions"}):
            raise Unfit(f"{where}: unexpected key(s) {unknown}")
        messages = _messages(row.get("messages"), where)
        if messages[-1].role != "assistant":
            raise Unfit(f"{where}: last message must be from the assistant")
        said = Example(id=f"{number:016x}", source=where, messages=tuple(messages))
    if count_tokens(said) > LONGEST_ROW:
        raise Unfit(f"{where}: example is longer than the maximum of {LONGEST_ROW} tokens")
    return said


def _messages(found: object, where: str) -> list[Message]:
    if not isinstance(found, list) or not found:
        raise Unfit(f"{where}: key 'messages' must be a non-empty list")
    try:
        return [as_message(message) for message in found]
    except (KeyError, TypeError):
        raise Unfit(f"{where}: a message has an unexpected role or no content") from None


def as_message(message: dict[str, Any]) -> Message:
    """Return a message of a request or a row. Raises KeyError or TypeError for one that is none."""
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise TypeError
    return Message(role=ROLES[message["role"]], content=content)


def count_tokens(example: Example) -> int:
    """Return the tokens that an epoch over the example bills: of a pair, both conversations."""
    conversations = [example.messages]
    if example.rejected is not None:
        conversations.append((*example.prompt, Message(role="assistant", content=example.rejected)))
    return sum(openai_tokens([message.model_dump() for message in one]) for one in conversations)
