"""How a conversation becomes tokens: one path for counting, training and evaluation, so that train and serve cannot drift apart.

The loss mask is found by comparing token sequences, not by the template's ``{% generation %}`` marks, which most templates lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prooftune.errors import DataError, ModelUnavailable
from prooftune.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example in tokens, with its loss mask."""

    input_ids: list[int]
    """Prompt, target and end-of-turn token, at most ``max_length`` of them."""
    supervised: list[bool]
    """True exactly where the loss counts: the target and its end-of-turn token."""
    prompt_tokens: int
    """Tokens before the target, as they were before truncation."""
    truncated: bool
    """True when the example was longer than ``max_length`` and lost its end."""
    ends_turn: bool
    """True when the last supervised token ends the turn: without it the model does not learn to stop."""


def with_system(messages: Sequence[Message], system: str) -> tuple[Message, ...]:
    """Return the messages with ``system`` in front, unless they bring a system message or ``system`` is empty."""
    if not system or any(message.role == "system" for message in messages):
        return tuple(messages)
    return (Message(role="system", content=system), *messages)


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens the model sees before it answers; ``messages`` do not include the target.

    Raises:
        DataError: the chat template refuses the messages.
        ModelUnavailable: the tokenizer has no chat template.
    """
    return _render(messages, tokenizer, add_generation_prompt=True)


def encode(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return the tokens of a whole example, whose last message is the target, cut after ``max_length`` tokens.

    Supervised are the target and its end-of-turn token; what the template puts behind that token is dropped.

    Raises:
        DataError: the last message is not the assistant's, or the template rewrites the prompt once the answer is there.
        ModelUnavailable: the tokenizer has no chat template.
    """
    if not messages or messages[-1].role != "assistant":
        found = f"role {messages[-1].role!r}" if messages else "nothing"
        raise DataError(f"the conversation ends with {found}; a training example must end with role 'assistant'")
    prompt = prompt_ids(messages[:-1], tokenizer)
    whole = _render(messages, tokenizer, add_generation_prompt=False)
    if whole[: len(prompt)] != prompt:
        raise DataError(
            "the chat template renders the prompt differently once the answer is there, so a model trained on it would be served another "
            "prompt; use a model whose template keeps the prompt, or give it a corrected chat_template.jinja"
        )
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    last_special = max((at for at in range(len(prompt), len(whole)) if whole[at] in special), default=None)
    end = len(whole) if last_special is None else last_special + 1
    kept = min(end, max_length)
    return Encoded(
        input_ids=whole[:kept],
        supervised=[at >= len(prompt) for at in range(kept)],
        prompt_tokens=len(prompt),
        truncated=kept < end,
        ends_turn=last_special is not None and kept == end,
    )


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer: the template's end-of-turn token and the tokenizer's end-of-text, ascending."""
    probe = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    encoded = encode(probe, tokenizer, max_length=1_000_000)
    stops = {encoded.input_ids[-1]} if encoded.ends_turn else set()
    if tokenizer.eos_token_id is not None:
        stops.add(tokenizer.eos_token_id)
    return sorted(stops)


def _render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool) -> list[int]:
    from jinja2.exceptions import TemplateError

    if tokenizer.chat_template is None:
        raise ModelUnavailable(
            f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruct model, or add a chat_template.jinja"
        )
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            [message.model_dump() for message in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
            # Models that can think at length would otherwise be trained with an empty thought that serving does not put there.
            enable_thinking=False,
        )
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise DataError(f"the model's chat template refuses a conversation of roles {roles}: {error}") from None
    return list(ids)
