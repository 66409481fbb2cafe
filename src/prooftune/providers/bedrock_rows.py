"""Training rows in Bedrock's forms, one for each family of models, and what Bedrock refuses in them.

================  ==========================================================================================================
Claude            ``{"system"?: "…", "messages": [{"role", "content": "…"}, …]}``
Nova, Llama 3.2   ``{"schemaVersion": "bedrock-conversation-2024", "system"?: [{"text"}],
and 3.3           "messages": [{"role", "content": [{"text"}]}, …]}``
Llama 3.1         ``{"prompt": "…", "completion": "…"}``: a single turn, the system text in front of it
reinforcement     ``{"messages": [{"role", "content": "…"}, …], "reference_answer": "…"}``
================  ==========================================================================================================

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/preparing-text-data.html, …/rft-prepare-data.html,
https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html,
https://platform.claude.com/cookbook/finetuning-finetuning-on-bedrock, read on 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError
from prooftune.providers.bedrock_models import REINFORCED_ROWS, Form, require_family
from prooftune.providers.rows import Found, Unfit, check_lines, plain, write_lines_of
from prooftune.providers.tuning import Order
from prooftune.spec import Objective
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message

SCHEMA = "bedrock-conversation-2024"
RESERVED = ("System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]", "<image>", "<video>")
"""A Nova job fails where a text of its rows holds one."""
FILE_BYTES = 5 * 2**30
"""The largest file that S3 takes in one request; rows of every family fit in."""
RowForm = Form | Literal["reinforcement"]
_FIELDS: Mapping[RowForm, tuple[frozenset[str], frozenset[str]]] = {
    "claude": (frozenset({"messages"}), frozenset({"system"})),
    "conversation": (frozenset({"messages"}), frozenset({"system", "schemaVersion"})),
    "completion": (frozenset({"prompt", "completion"}), frozenset()),
    "reinforcement": (frozenset({"messages", "reference_answer"}), frozenset()),
}
"""Fields that a row must have, and those that it may have besides."""


def row_form(form: Form, objective: Objective) -> RowForm:
    """Return the form of rows of an objective, where ``form`` is the family's for supervised ones.

    Raises:
        SpecError: Bedrock has no such objective.
    """
    if objective == "preference":
        raise SpecError("backend.objective is preference; bedrock tunes by supervised or, for Nova 2 Lite, reinforcement")
    return "reinforcement" if objective == "reinforcement" else form


def write_rows(examples: Path, system: str, form: RowForm, out: Path) -> None:
    """Write examples in a form, one line an example, in their order.

    Raises:
        DataError: an example cannot be written in that form.
    """
    write_lines_of(examples, lambda example: _row(example, system, form), out)


def _row(example: Example, system: str, form: RowForm) -> dict[str, Any]:
    messages = with_system(example.messages, system)
    if reason := _unwritable(messages, form):
        raise Unfit("unwritable", reason)
    return _WRITERS[form](messages)


def _unwritable(messages: Sequence[Message], form: RowForm) -> str:
    if any(message.role == "tool" for message in messages):
        return "holds a tool's answer, which Bedrock takes only with the call it answers, and examples do not hold that"
    if form == "completion" and any(message.role == "assistant" for message in messages[:-1]):
        return "has several turns, and a row of prompt and completion holds one"
    return ""


def _claude(messages: Sequence[Message]) -> dict[str, Any]:
    system = system_of(messages)
    turns = [{"role": role, "content": "\n\n".join(texts)} for role, texts in turns_of(messages)]
    return ({"system": system} if system else {}) | {"messages": turns}


def _conversation(messages: Sequence[Message]) -> dict[str, Any]:
    system = system_of(messages)
    turns = [{"role": role, "content": [{"text": text} for text in texts]} for role, texts in turns_of(messages)]
    return {"schemaVersion": SCHEMA} | ({"system": [{"text": system}]} if system else {}) | {"messages": turns}


def _completion(messages: Sequence[Message]) -> dict[str, Any]:
    prompt, completion = as_written(messages, "completion")
    return {"prompt": prompt.content, "completion": completion.content}


def _reinforcement(messages: Sequence[Message]) -> dict[str, Any]:
    return {"messages": plain(messages[:-1]), "reference_answer": messages[-1].content}


_WRITERS: Mapping[RowForm, Callable[[Sequence[Message]], dict[str, Any]]] = {
    "claude": _claude,
    "conversation": _conversation,
    "completion": _completion,
    "reinforcement": _reinforcement,
}


def system_of(messages: Sequence[Message]) -> str:
    """Return the system text; several messages become one."""
    return "\n\n".join(message.content for message in messages if message.role == "system")


def turns_of(messages: Sequence[Message]) -> list[tuple[str, list[str]]]:
    """Return role and texts of each turn: messages of one role in a row are one turn, since turns alternate."""
    spoken = [message for message in messages if message.role != "system"]
    return [(role, [message.content for message in group]) for role, group in groupby(spoken, key=lambda message: message.role)]


def as_written(messages: Sequence[Message], form: Form) -> tuple[Message, ...]:
    """Return the messages that a supervised row holds: for ``completion`` one prompt, the system text at its head, and one answer."""
    if form == "completion":
        return Message(role="user", content="\n\n".join(message.content for message in messages[:-1])), messages[-1]
    system = system_of(messages)
    head = (Message(role="system", content=system),) if system else ()
    turns = (Message.model_validate({"role": role, "content": "\n\n".join(texts)}) for role, texts in turns_of(messages))
    return (*head, *turns)


def check_rows(path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
    """Return what would be refused in a file of rows, each problem with its line."""
    family = require_family(order.model)
    form = row_form(family.form, order.objective)
    problems = []
    if (size := path.stat().st_size) > FILE_BYTES:
        problems.append(Problem(path.name, f"has {size:,} bytes; a file may have {FILE_BYTES:,}", "file-too-large"))
    with path.open("rb") as lines:
        rows, found = check_lines(lines, path.name, lambda row, _: _check_row(row, form, reserved=family.name == "Nova"))
    problems += found
    least, most = REINFORCED_ROWS if order.objective == "reinforcement" else family.rows
    if role == "validation":
        least, most = 1, family.validation_rows_max
    if rows < least:
        problems.append(Problem(f"{path.name}:{rows + 1}", f"is missing: {rows:,} rows of at least {least:,} are there", "too-few-rows"))
    if rows > most:
        problems.append(Problem(f"{path.name}:{most + 1}", f"is one too many: a {role} file may have {most:,} rows", "too-many-rows"))
    return problems


def _check_row(row: dict[str, Any], form: RowForm, *, reserved: bool) -> Found:
    required, allowed = _FIELDS[form]
    if missing := sorted(required - row.keys()):
        yield "missing-field", f"has no {', '.join(missing)}; a row of the form {form} has {', '.join(sorted(required))}"
        return
    if unknown := sorted(row.keys() - required - allowed):
        yield "unknown-field", f"has {', '.join(unknown)}; a row of the form {form} has {', '.join(sorted(required | allowed))} alone"
    yield from _check_fields(row, form)
    if reserved:
        yield from _check_reserved(row)


def _check_fields(row: dict[str, Any], form: RowForm) -> Found:
    for name in ("prompt", "completion", "reference_answer"):
        if name in row and not _is_text(row[name]):
            yield "no-text", f"has a {name} that is no text, or empty"
    if "system" in row:
        yield from _check_system(row["system"], form)
    if "messages" in row:
        yield from _check_messages(row["messages"], form)


def _check_system(system: object, form: RowForm) -> Found:
    if form == "claude":
        if not _is_text(system):
            yield "bad-system", "has a system that is no text, or empty; leave it out where there is none"
    elif not isinstance(system, list) or len(system) != 1 or not _is_block(system[0]):
        yield "bad-system", 'has a system that is not one text: [{"text": "…"}]'


def _check_messages(messages: object, form: RowForm) -> Found:
    if not isinstance(messages, list) or not messages:
        yield "no-messages", "has messages that are no list, or empty"
        return
    leading = 0
    if form == "reinforcement" and isinstance(messages[0], dict) and messages[0].get("role") == "system":
        leading = 1
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages[leading:]]
    for number, role in enumerate(roles, start=1):
        expected = "user" if number % 2 else "assistant"
        if role not in ("user", "assistant"):
            yield "bad-role", f"message {number + leading} has no role, or neither of user and assistant"
        elif role != expected:
            yield "wrong-turn", f"message {number + leading} has role {role!r}; turns begin with 'user' and alternate"
    last = "user" if form == "reinforcement" else "assistant"
    if not roles or roles[-1] != last:
        yield "wrong-last-role", f"ends with role {roles[-1] if roles else None!r}; the last message is of {last!r}"
    for number, message in enumerate(messages, start=1):
        yield from _check_content(message, number, form)


def _check_content(message: object, number: int, form: RowForm) -> Found:
    if not isinstance(message, dict):
        return  # its role was missed already
    if unknown := sorted(message.keys() - {"role", "content"}):
        yield "unknown-message-field", f"message {number} has {', '.join(unknown)}; a message has role and content alone"
    content = message.get("content")
    if form != "conversation":
        if not _is_text(content):
            yield "no-text", f"message {number} has a content that is no text, or empty"
    elif not isinstance(content, list) or not content or not all(map(_is_block, content)):
        yield "no-text", f'message {number} has a content that is no list of texts: [{{"text": "…"}}]'


def _check_reserved(row: dict[str, Any]) -> Found:
    held = sorted({word for word in RESERVED if any(word in text for text in _texts(row))})
    if held:
        yield "reserved-word", f"holds {', '.join(held)}, which Nova reserves; write it otherwise, or leave the row out"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for held in value.values():
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_block(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"text"} and _is_text(value["text"])
