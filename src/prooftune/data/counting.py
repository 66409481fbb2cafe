"""How many tokens a text or a prompt has: by the tokenizer of a model on this machine, or as a provider counts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from prooftune.economics.lengths import CHARACTERS_PER_TOKEN, TOKENS_PER_TURN
from prooftune.training.encoding import prompt_ids
from prooftune.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Counter(Protocol):
    """Counts tokens as one model sees them."""

    exact: bool
    """False = an estimate: the model's tokenizer is not public."""

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, without any that the conversation puts around it."""

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the model sees before it answers."""

    def conversation_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a training row of the whole conversation has."""


class TokenizerCounter:
    """Counts with a tokenizer and its chat template."""

    exact = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return [len(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the model sees before it answers.

        Raises:
            DataError: the chat template refuses the messages.
            ModelUnavailable: the tokenizer has no chat template.
        """
        return len(prompt_ids(messages, self._tokenizer))

    def conversation_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the chat template makes of the conversation."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return len(self._tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])


class OpenAICounter:
    """Counts as OpenAI and Azure bill: 3 tokens a message, its role and its text, and 3 to open the answer.

    Source: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken.
    """

    exact = True

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text in o200k_base, the vocabulary of every model that can be tuned there."""
        encoding = _o200k()
        return [len(encoding.encode_ordinary(text)) for text in texts]

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the model sees before it answers."""
        return 3 + 3 * len(messages) + sum(self.text_tokens([part for message in messages for part in (message.role, message.content)]))

    conversation_tokens = prompt_tokens
    """A training row is billed by the same rule."""


@cache
def _o200k() -> Any:
    """Return OpenAI's encoding; made once, since making it takes as long as thousands of texts."""
    from bpe_openai import get_encoding

    return get_encoding("o200k_base")


class CharacterCounter:
    """Estimates tokens from characters: for models whose tokenizer is not public, or not on this machine."""

    exact = False

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the likely tokens of each text."""
        return [math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts]

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the model likely sees before it answers; the opening of its turn counts as a turn."""
        return TOKENS_PER_TURN * (len(messages) + 1) + sum(self.text_tokens([message.content for message in messages]))

    conversation_tokens = prompt_tokens
    """The same estimate."""


def counter_at(provider: str) -> Counter:
    """Return who counts the tokens of a provider's models."""
    return OpenAICounter() if provider in ("openai", "azure") else CharacterCounter()


def counter_of(provider: str, tokenizer: str | None) -> Counter:
    """Return who counts what a provider bills; ``tokenizer`` is a hub id or folder with an open model's own.

    Raises:
        ModelUnavailable: it cannot be had.
    """
    if tokenizer is None:
        return counter_at(provider)
    from prooftune.models.loading import load_tokenizer
    from prooftune.models.resolve import resolve_tokenizer

    return TokenizerCounter(load_tokenizer(resolve_tokenizer(tokenizer)))
