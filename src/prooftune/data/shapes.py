"""From records to examples: recognise the shape of the records and turn each into a conversation with a target.

Shapes:
    - ``chat``: ``messages`` of ``role`` and ``content`` (OpenAI); content is text or a list of ``{"type": "text", "text": …}``.
    - ``sharegpt``: ``conversations`` of ``from`` and ``value``.
    - ``alpaca``: ``instruction``, optional ``input``, ``output``.
    - ``prompt_completion``: ``prompt`` and ``completion``, each text or a list of messages.
    - ``preference``: ``chosen`` and ``rejected`` beside a ``prompt``, ``question`` or ``messages``, each text or a list of messages; or
      ``chosen`` and ``rejected`` that begin with the prompt (TRL); or ``input.messages``, ``preferred_output`` and
      ``non_preferred_output`` (OpenAI).
    - ``table``: two columns that ``data.columns`` names; all targets are objects, or all lists, or all text and other scalars.

All but ``chat`` may have a ``system`` column. The target is the last message, which must be the assistant's; text is kept to the letter.
A preference pair's target is the chosen answer; the rejected one answers the same prompt and differs from it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from prooftune.data.messages import ROLES, SHAREGPT_ROLES, Unfit, cell_text, kind_of, messages_of, text_of, turn_of
from prooftune.data.pairs import OPENAI_PAIR, PROMPTS, check_rejected, is_openai_pair, read_pair
from prooftune.errors import DataError
from prooftune.spec import Columns, Data, digest
from prooftune.types import Example, Finding, Message, Record, Role, Scalar

Shape = Literal["chat", "sharegpt", "alpaca", "prompt_completion", "preference", "table"]

HEAD = 100
"""Records that ``auto`` looks at."""

_REQUIRED: dict[Shape, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "chat": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}


def detect_shape(fields: Mapping[str, object], columns: Columns) -> Shape | None:
    """The shape that a record's field names fit, or None; the more telling names come first."""
    if is_openai_pair(fields):
        return "preference"
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
        except Unfit as unfit:
            yield Finding(where=record.source, code=unfit.code, reason=unfit.reason, action="dropped")


def _usual_form(head: Sequence[Record], column: str) -> str | None:
    votes = Counter(_form(value) for record in head if not _is_empty(value := record.fields.get(column)))
    return votes.most_common(1)[0][0] if votes else None


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _form(value: object) -> str:
    return kind_of(value) if isinstance(value, dict | list) else "plain"


def _refuse_odd_form(value: object, column: str, usual: str) -> None:
    """A list among objects is a slip of whoever labelled it, not another answer to learn. An empty cell is another flaw."""
    if not _is_empty(value) and _form(value) != usual:
        raise Unfit(
            "wrong-type", f"field {column!r} is {kind_of(value)}; in the other records it is {usual.replace('plain', 'text or a number')}"
        )


def _example(record: Record, shape: Shape, columns: Columns) -> Example:
    required = _required(record.fields, shape, columns)
    for name in required:
        if name not in record.fields:
            other = detect_shape(record.fields, columns)
            hint = f"; it looks like {other}" if other else ""
            raise Unfit("missing-field", f"has no field {name!r}, which shape {shape} requires{hint}")
    rejected = None
    if shape == "preference":
        messages, rejected = read_pair(record.fields)
    else:
        messages = _BUILDERS[shape](record.fields, columns)
    if shape != "chat" and (system := record.fields.get("system")) is not None and "system" not in required:
        messages = [Message(role="system", content=text_of(system, "system")), *messages]
    messages = [message for message in messages if message.role != "system" or message.content.strip()]  # an empty one says nothing
    _check(messages)
    if rejected is not None:
        check_rejected(messages[-1].content, rejected)
    used = {*required, "system", *(("input",) if shape == "alpaca" else PROMPTS if shape == "preference" else ())}
    return Example(
        id=example_id(messages, rejected),
        source=record.source,
        messages=tuple(messages),
        rejected=rejected,
        metadata=_metadata(record.fields, used),
    )


def _required(fields: Mapping[str, object], shape: Shape, columns: Columns) -> tuple[str, ...]:
    if shape == "table":
        return columns.prompt, columns.target
    return OPENAI_PAIR if shape == "preference" and is_openai_pair(fields) else _REQUIRED[shape]


def example_id(messages: Sequence[Message], rejected: str | None = None) -> str:
    """First 16 hex digits of the SHA-256 of the messages, and of the rejected answer where there is one."""
    said = [message.model_dump() for message in messages]
    return digest(said if rejected is None else [said, rejected])[:16]


def _metadata(fields: Mapping[str, object], used: set[str]) -> dict[str, Scalar]:
    return {
        key: value for key, value in fields.items() if key not in used and (value is None or isinstance(value, str | int | float | bool))
    }


def _from_chat(fields: Mapping[str, object], _: Columns) -> list[Message]:
    return messages_of(fields["messages"], "messages", "role", "content", ROLES)


def _from_sharegpt(fields: Mapping[str, object], _: Columns) -> list[Message]:
    return messages_of(fields["conversations"], "conversations", "from", "value", SHAREGPT_ROLES)


def _from_alpaca(fields: Mapping[str, object], _: Columns) -> list[Message]:
    prompt = text_of(fields["instruction"], "instruction")
    if (context := fields.get("input")) is not None and (text := text_of(context, "input")).strip():
        prompt = f"{prompt}\n\n{text}"
    return turn_of(prompt, text_of(fields["output"], "output"))


def _from_prompt_completion(fields: Mapping[str, object], _: Columns) -> list[Message]:
    sides: list[Message] = []
    roles: tuple[tuple[str, Role], ...] = (("prompt", "user"), ("completion", "assistant"))
    for name, role in roles:
        value = fields[name]
        if isinstance(value, list):
            sides += messages_of(value, name, "role", "content", ROLES)
        else:
            sides.append(Message(role=role, content=text_of(value, name)))
    return sides


def _from_table(fields: Mapping[str, object], columns: Columns) -> list[Message]:
    return turn_of(cell_text(fields[columns.prompt], columns.prompt), cell_text(fields[columns.target], columns.target))


_BUILDERS: dict[Shape, Callable[[Mapping[str, object], Columns], list[Message]]] = {
    "chat": _from_chat,
    "sharegpt": _from_sharegpt,
    "alpaca": _from_alpaca,
    "prompt_completion": _from_prompt_completion,
    "table": _from_table,
}


def _check(messages: Sequence[Message]) -> None:
    """Hold a conversation to the rules; the first that is broken counts."""
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise Unfit("no-assistant-turn", "has no assistant message; there is nothing to learn")
    if roles[-1] != "assistant":
        raise Unfit(f"ends-with-{roles[-1]}", f"ends with role {roles[-1]!r}; a training example must end with 'assistant'")
    if "user" not in roles:
        raise Unfit("no-user-turn", "has no user message; there is nothing to answer")
    if "system" in roles[1:]:
        raise Unfit("system-not-first", f"has a system message at position {roles.index('system', 1) + 1}; only the first may be one")
    if not messages[-1].content.strip():
        raise Unfit("empty-target", "has an empty answer; there is nothing to learn")
    for index, message in enumerate(messages):
        if message.role == "user" and not message.content.strip():
            raise Unfit("empty-prompt", f"has an empty user message at position {index + 1}")
        if message.role == "assistant" and not message.content.strip():
            raise Unfit("empty-turn", f"has an empty assistant message at position {index + 1}")
