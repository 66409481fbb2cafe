"""Reads preference pairs: a prompt, a chosen answer and a rejected one, in TRL's forms and OpenAI's.

Sources: https://huggingface.co/docs/trl/dataset_formats#preference,
https://developers.openai.com/api/docs/guides/direct-preference-optimization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prooftune.data.messages import ROLES, Unfit, kind_of, messages_of, text_of
from prooftune.types import Message

OPENAI_PAIR = ("input", "preferred_output", "non_preferred_output")
PROMPTS = ("prompt", "question", "messages")
"""Fields that may hold the prompt beside ``chosen`` and ``rejected``; the first one that is there counts."""
Pair = tuple[list[Message], str]
"""A conversation that ends with the chosen answer, and the rejected answer."""


def is_openai_pair(fields: Mapping[str, object]) -> bool:
    """Return whether a record has the fields of OpenAI's form."""
    return all(name in fields for name in OPENAI_PAIR)


def read_pair(fields: Mapping[str, object]) -> Pair:
    """Return a record as a pair.

    Raises:
        Unfit: it is none.
    """
    if is_openai_pair(fields):
        return _openai(fields)
    chosen, rejected = fields["chosen"], fields["rejected"]
    if _is_conversation(chosen) and _is_conversation(rejected):
        return _split(_turns(chosen, "chosen"), _turns(rejected, "rejected"))
    prompt = _prompt(fields)
    if prompt is None:
        return _split_texts(text_of(chosen, "chosen"), text_of(rejected, "rejected"))
    return [*prompt, _answer(chosen, "chosen")], _answer(rejected, "rejected").content


def check_rejected(chosen: str, rejected: str) -> None:
    """Hold a rejected answer to the rules.

    Raises:
        Unfit: it is empty, or no other than the chosen one.
    """
    if not rejected.strip():
        raise Unfit("empty-rejected", "has an empty rejected answer; a pair needs two to compare")
    if chosen.strip() == rejected.strip():
        raise Unfit("equal-answers", "has the same text as chosen and as rejected answer; there is nothing to prefer")


def _openai(fields: Mapping[str, object]) -> Pair:
    given = fields["input"]
    if not isinstance(given, dict) or "messages" not in given:
        raise Unfit("wrong-type", f"field 'input' is {kind_of(given)}; required is an object with 'messages'")
    prompt = _turns(given["messages"], "input.messages")
    chosen, rejected = (_answer(fields[name], name) for name in OPENAI_PAIR[1:])
    return [*prompt, chosen], rejected.content


def _prompt(fields: Mapping[str, object]) -> list[Message] | None:
    name = next((name for name in PROMPTS if name in fields), None)
    if name is None:
        return None
    value = fields[name]
    return _turns(value, name) if isinstance(value, list) else [Message(role="user", content=text_of(value, name))]


def _answer(value: object, field: str) -> Message:
    """Return an answer: text, or a list with the assistant's message alone."""
    if not isinstance(value, list):
        return Message(role="assistant", content=text_of(value, field))
    turns = _turns(value, field)
    if [turn.role for turn in turns] != ["assistant"]:
        raise Unfit("not-one-answer", f"{field} holds {len(turns)} messages; beside a prompt it is the assistant's answer alone")
    return turns[0]


def _is_conversation(value: object) -> bool:
    """Return whether it is a list with more than an answer: then the prompt stands in it."""
    return isinstance(value, list) and (
        len(value) > 1 or (len(value) == 1 and isinstance(value[0], dict) and value[0].get("role") == "user")
    )


def _split(chosen: Sequence[Message], rejected: Sequence[Message]) -> Pair:
    """Split two conversations that begin alike into what they share and their last messages."""
    if list(chosen[:-1]) != list(rejected[:-1]):
        raise Unfit("not-one-answer", "chosen and rejected differ in more than their last message; a pair is two answers to one prompt")
    if rejected[-1].role != "assistant":
        raise Unfit(f"ends-with-{rejected[-1].role}", f"rejected ends with role {rejected[-1].role!r}; required is 'assistant'")
    return list(chosen), rejected[-1].content


def _split_texts(chosen: str, rejected: str) -> Pair:
    """Split two texts that begin alike after the last word that they share."""
    same = next(
        (at for at, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), min(len(chosen), len(rejected))
    )
    at = next((at for at in range(same, 0, -1) if chosen[at - 1 : at].isspace()), 0)
    if not chosen[:at].strip():
        raise Unfit("no-prompt", f"has no prompt: no field {', '.join(PROMPTS)}, and chosen and rejected do not begin alike")
    at = len(chosen[:at].rstrip())
    return [Message(role="user", content=chosen[:at]), Message(role="assistant", content=chosen[at:])], rejected[at:]


def _turns(value: object, field: str) -> list[Message]:
    return messages_of(value, field, "role", "content", ROLES)
