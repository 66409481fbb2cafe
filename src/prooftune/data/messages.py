"""Reads conversations and texts out of a record's fields; what is none is ``Unfit``, with a reason that quotes no text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

from prooftune.types import Message, Role

ROLES: dict[str, Role] = {role: role for role in get_args(Role)} | {"developer": "system"}
SHAREGPT_ROLES: dict[str, Role] = ROLES | {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool"}


class Unfit(ValueError):
    """A record that is no example, and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def turn_of(prompt: str, target: str) -> list[Message]:
    """Return a question and its answer as a conversation."""
    return [Message(role="user", content=prompt), Message(role="assistant", content=target)]


def messages_of(value: object, field: str, role_key: str, text_key: str, roles: Mapping[str, Role]) -> list[Message]:
    """Return a field that is a list of messages. Raises Unfit."""
    if not isinstance(value, list):
        raise Unfit("wrong-type", f"field {field!r} is {kind_of(value)}; required is a list of messages")
    return [_message(item, f"{field}[{index}]", role_key, text_key, roles) for index, item in enumerate(value)]


def _message(item: object, where: str, role_key: str, text_key: str, roles: Mapping[str, Role]) -> Message:
    if not isinstance(item, dict):
        raise Unfit("wrong-type", f"{where} is {kind_of(item)}; required is an object with {role_key!r} and {text_key!r}")
    for key in (role_key, text_key):
        if key not in item:
            raise Unfit("missing-field", f"{where} has no {key!r}")
    if item.get("tool_calls") or item.get("function_call"):
        raise Unfit("tool-calls", f"{where} calls a tool; only text can be trained on, so write the call as content or drop the record")
    role = item[role_key]
    if not isinstance(role, str) or role not in roles:
        found = repr(role[:40]) if isinstance(role, str) else kind_of(role)
        raise Unfit("unknown-role", f"{where} has the role {found}; known are {', '.join(roles)}")
    return Message(role=roles[role], content=_content(item[text_key], f"{where}.{text_key}"))


def _content(value: object, where: str) -> str:
    if not isinstance(value, list):
        return text_of(value, where)
    parts: list[str] = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise Unfit("unsupported-content", f"{where}[{index}] is no {{'type': 'text'}} part; only text can be trained on")
        parts.append(text_of(part.get("text"), f"{where}[{index}].text"))
    return "".join(parts)


def text_of(value: object, where: str) -> str:
    """Return a field that is text which UTF-8 can hold. Raises Unfit."""
    if not isinstance(value, str):
        raise Unfit("wrong-type", f"{where} is {kind_of(value)}; required is text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unfit("lone-surrogate", f"{where} holds half of a surrogate pair, which is no character; export it as UTF-8") from None
    return value


def cell_text(value: object, where: str) -> str:
    """Return a table's cell as text: strings as they are, everything else but null as JSON."""
    if isinstance(value, str) or value is None:
        return text_of("" if value is None else value, where)
    return text_of(json.dumps(value, ensure_ascii=False), where)


def kind_of(value: object) -> str:
    """Return what a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
