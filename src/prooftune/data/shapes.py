"""From records to examples: recognise the shape of the records and turn each into a conversation with a target.

Shapes:
    - ``chat``: ``messages`` of ``role`` and ``content`` (OpenAI); content is text or a list of ``{"type": "text", "text": …}``.
    - ``sharegpt``: ``conversations`` of ``from`` and ``value``.
    - ``alpaca``: ``instruction``, optional ``input``, ``output``.
    - ``prompt_completion``: ``prompt`` and ``completion``, each text or a list of messages.
    - ``table``: two columns that ``data.columns`` names; all targets are objects, or all lists, or all text and other scalars.

All but ``chat`` may have a ``system`` column. The target is the last message, which must be the assistant's; text is kept to the letter.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from prooftune.errors import DataError
from prooftune.spec import Columns, Data, digest
from prooftune.types import Example, Finding, Message, Record, Role, Scalar

Shape = Literal["chat", "sharegpt", "alpaca", "prompt_completion", "table"]

HEAD = 100
"""Records that ``auto`` looks at."""

_REQUIRED: dict[Shape, tuple[str, ...]] = {
    "chat": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
_ROLES: dict[str, Role] = {role: role for role in get_args(Role)} | {"developer": "system"}
_SHAREGPT_ROLES: dict[str, Role] = _ROLES | {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool"}


class _Unfit(ValueError):
    """A record that is no example, and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def detect_shape(fields: Mapping[str, object], columns: Columns) -> Shape | None:
    """The shape that a record's field names fit, or None; the more telling names come first."""
    for shape, required in _REQUIRED.items():
        if all(name in fields for name in required):
            return shape
    return "table" if columns.prompt in fields and columns.target in fields else None


def resolve_shape(head: Sequence[Record], data: Data) -> Shape:
    """Decide the shape of all records: the spec's, or under ``auto`` the one that most of the first records fit.

    One decision for all, so that a stray record is reported and not learned from in another form.

    Raises:
        DataError: under ``auto`` when no record fits any shape.
    """
    if data.shape != "auto":
        return data.shape
    votes = Counter(shape for record in head if (shape := detect_shape(record.fields, data.columns)))
    if votes:
        return votes.most_common(1)[0][0]
    if not head:
        raise DataError("there are no records to tell the shape from")
    names = ", ".join(sorted(head[0].fields)[:12]) or "none"
    shapes = "; ".join(f"{shape}: {' and '.join(required)}" for shape, required in _REQUIRED.items())
    raise DataError(
        f"{head[0].source}: fields {names} fit no known shape ({shapes}). Rename the columns, or set data.shape: table with data.columns"
        f" (now prompt: {data.columns.prompt}, target: {data.columns.target})"
    )


def convert(records: Iterable[Record], data: Data) -> Iterator[Example | Finding]:
    """Yield an example for each record that is one, and a finding (``dropped``) for each that is not, in order.

    Raises:
        DataError: under ``shape: auto`` when the first records fit no shape.
    """
    rest = iter(records)
    head = list(itertools.islice(rest, HEAD))
    if not head:
        return
    shape = resolve_shape(head, data)
    usual = _usual_form(head, data.columns.target) if shape == "table" else None
    for record in itertools.chain(head, rest):
        try:
            if usual:
                _refuse_odd_form(record.fields.get(data.columns.target), data.columns.target, usual)
            yield _example(record, shape, data.columns)
        except _Unfit as unfit:
            yield Finding(where=record.source, code=unfit.code, reason=unfit.reason, action="dropped")


def _usual_form(head: Sequence[Record], column: str) -> str | None:
    votes = Counter(_form(value) for record in head if not _is_empty(value := record.fields.get(column)))
    return votes.most_common(1)[0][0] if votes else None


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _form(value: object) -> str:
    return _kind(value) if isinstance(value, dict | list) else "plain"


def _refuse_odd_form(value: object, column: str, usual: str) -> None:
    """A list among objects is a slip of whoever labelled it, not another answer to learn. An empty cell is another flaw."""
    if not _is_empty(value) and _form(value) != usual:
        raise _Unfit(
            "wrong-type", f"field {column!r} is {_kind(value)}; in the other records it is {usual.replace('plain', 'text or a number')}"
        )


def _example(record: Record, shape: Shape, columns: Columns) -> Example:
    required = (columns.prompt, columns.target) if shape == "table" else _REQUIRED[shape]
    for name in required:
        if name not in record.fields:
            other = detect_shape(record.fields, columns)
            hint = f"; it looks like {other}" if other else ""
            raise _Unfit("missing-field", f"has no field {name!r}, which shape {shape} requires{hint}")
    messages = _BUILDERS[shape](record.fields, columns)
    if shape != "chat" and (system := record.fields.get("system")) is not None and "system" not in required:
        messages = [Message(role="system", content=_text(system, "system")), *messages]
    messages = [message for message in messages if message.role != "system" or message.content.strip()]  # an empty one says nothing
    _check(messages)
    used = {*required, "system", *(("input",) if shape == "alpaca" else ())}
    return Example(id=example_id(messages), source=record.source, messages=tuple(messages), metadata=_metadata(record.fields, used))


def example_id(messages: Sequence[Message]) -> str:
    """First 16 hex digits of the SHA-256 of the messages."""
    return digest([message.model_dump() for message in messages])[:16]


def _metadata(fields: Mapping[str, object], used: set[str]) -> dict[str, Scalar]:
    return {
        key: value for key, value in fields.items() if key not in used and (value is None or isinstance(value, str | int | float | bool))
    }


def _from_chat(fields: Mapping[str, object], _: Columns) -> list[Message]:
    return _messages(fields["messages"], "messages", "role", "content", _ROLES)


def _from_sharegpt(fields: Mapping[str, object], _: Columns) -> list[Message]:
    return _messages(fields["conversations"], "conversations", "from", "value", _SHAREGPT_ROLES)


def _from_alpaca(fields: Mapping[str, object], _: Columns) -> list[Message]:
    prompt = _text(fields["instruction"], "instruction")
    if (context := fields.get("input")) is not None and (text := _text(context, "input")).strip():
        prompt = f"{prompt}\n\n{text}"
    return _turn(prompt, _text(fields["output"], "output"))


def _from_prompt_completion(fields: Mapping[str, object], _: Columns) -> list[Message]:
    sides: list[Message] = []
    roles: tuple[tuple[str, Role], ...] = (("prompt", "user"), ("completion", "assistant"))
    for name, role in roles:
        value = fields[name]
        if isinstance(value, list):
            sides += _messages(value, name, "role", "content", _ROLES)
        else:
            sides.append(Message(role=role, content=_text(value, name)))
    return sides


def _from_table(fields: Mapping[str, object], columns: Columns) -> list[Message]:
    return _turn(_as_text(fields[columns.prompt], columns.prompt), _as_text(fields[columns.target], columns.target))


_BUILDERS: dict[Shape, Callable[[Mapping[str, object], Columns], list[Message]]] = {
    "chat": _from_chat,
    "sharegpt": _from_sharegpt,
    "alpaca": _from_alpaca,
    "prompt_completion": _from_prompt_completion,
    "table": _from_table,
}


def _turn(prompt: str, target: str) -> list[Message]:
    return [Message(role="user", content=prompt), Message(role="assistant", content=target)]


def _messages(value: object, field: str, role_key: str, text_key: str, roles: Mapping[str, Role]) -> list[Message]:
    if not isinstance(value, list):
        raise _Unfit("wrong-type", f"field {field!r} is {_kind(value)}; required is a list of messages")
    return [_message(item, f"{field}[{index}]", role_key, text_key, roles) for index, item in enumerate(value)]


def _message(item: object, where: str, role_key: str, text_key: str, roles: Mapping[str, Role]) -> Message:
    if not isinstance(item, dict):
        raise _Unfit("wrong-type", f"{where} is {_kind(item)}; required is an object with {role_key!r} and {text_key!r}")
    for key in (role_key, text_key):
        if key not in item:
            raise _Unfit("missing-field", f"{where} has no {key!r}")
    if item.get("tool_calls") or item.get("function_call"):
        raise _Unfit("tool-calls", f"{where} calls a tool; only text can be trained on, so write the call as content or drop the record")
    role = item[role_key]
    if not isinstance(role, str) or role not in roles:
        found = repr(role[:40]) if isinstance(role, str) else _kind(role)
        raise _Unfit("unknown-role", f"{where} has the role {found}; known are {', '.join(roles)}")
    return Message(role=roles[role], content=_content(item[text_key], f"{where}.{text_key}"))


def _content(value: object, where: str) -> str:
    if not isinstance(value, list):
        return _text(value, where)
    parts: list[str] = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise _Unfit("unsupported-content", f"{where}[{index}] is no {{'type': 'text'}} part; only text can be trained on")
        parts.append(_text(part.get("text"), f"{where}[{index}].text"))
    return "".join(parts)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _Unfit("wrong-type", f"{where} is {_kind(value)}; required is text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Unfit("lone-surrogate", f"{where} holds half of a surrogate pair, which is no character; export it as UTF-8") from None
    return value


def _as_text(value: object, where: str) -> str:
    """A table's cell as text: strings as they are, everything else but null as JSON."""
    if isinstance(value, str) or value is None:
        return _text("" if value is None else value, where)
    return _text(json.dumps(value, ensure_ascii=False), where)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _check(messages: Sequence[Message]) -> None:
    """Hold a conversation to the rules; the first that is broken counts."""
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise _Unfit("no-assistant-turn", "has no assistant message; there is nothing to learn")
    if roles[-1] != "assistant":
        raise _Unfit(f"ends-with-{roles[-1]}", f"ends with role {roles[-1]!r}; a training example must end with 'assistant'")
    if "user" not in roles:
        raise _Unfit("no-user-turn", "has no user message; there is nothing to answer")
    if "system" in roles[1:]:
        raise _Unfit("system-not-first", f"has a system message at position {roles.index('system', 1) + 1}; only the first may be one")
    if not messages[-1].content.strip():
        raise _Unfit("empty-target", "has an empty answer; there is nothing to learn")
    for index, message in enumerate(messages):
        if message.role == "user" and not message.content.strip():
            raise _Unfit("empty-prompt", f"has an empty user message at position {index + 1}")
        if message.role == "assistant" and not message.content.strip():
            raise _Unfit("empty-turn", f"has an empty assistant message at position {index + 1}")
