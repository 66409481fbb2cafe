"""A chat model behind an API, whoever provides it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from prooftune.errors import DataError, EnvironmentLacks, SpecError
from prooftune.types import Frozen, Message, Report, no_report

KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "together": "TOGETHER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
}
"""Environment variable with the key, by provider."""
COMPATIBLE = {"together": "https://api.together.ai/v1", "fireworks": "https://api.fireworks.ai/inference/v1"}
"""Addresses of providers that speak OpenAI's chat protocol."""
REQUESTS_AT_ONCE = 8
"""Under way at the same time: latencies can be compared between equal numbers only, and small accounts are rate-limited above it."""

Prompt = Sequence[Message]
Ask = Callable[[Prompt], "ChatAnswer"]
Question = TypeVar("Question")


class ChatAnswer(Frozen):
    """What a chat model answered to one prompt."""

    text: str
    prompt_tokens: int
    """As billed."""
    answer_tokens: int
    """As billed: what a model thinks before it answers is in it."""
    finished: bool
    """True when the model ended its turn; False when it was cut at the token limit, or refused."""
    latency_s: float | None
    """Seconds of the request that succeeded, without waits and failed attempts before it; None = answered through a batch."""
    refusal: bool = False
    """Whether the provider marked the answer as a refusal."""


class ChatModel(Protocol):
    """A chat model that answers as repeatably as its provider lets it: temperature 0 and a fixed seed where there are such parameters.

    Every method raises what ``prooftune.providers.calls`` makes of a failed request: TransientError, EnvironmentLacks or SpecError.
    """

    name: str
    """As the provider calls it."""

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt; may be called from several threads."""

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there; ``REQUESTS_AT_ONCE`` are under way."""

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through the provider's batch API: cheaper, and slower.

        ``folder`` keeps the batch's id, so that a call after a crash waits for the same batch instead of paying for another.
        """


def open_chat(provider: str, model: str, base_url: str | None = None) -> ChatModel:
    """Return the client of a chat model; nothing is sent yet.

    ``base_url`` is the address of a server that speaks the provider's protocol; None = the provider's own, whatever the environment says:
    where data goes stands in the spec.

    Raises:
        EnvironmentLacks: the provider's key is not in the environment.
        SpecError: there is no such provider, or the address is none.
    """
    if provider not in KEYS:
        raise SpecError(f"provider {provider!r} has no chat API here; there are {', '.join(KEYS)}")
    if base_url is not None and not (urlsplit(base_url).scheme in ("http", "https") and urlsplit(base_url).hostname):
        raise SpecError(f"base_url {base_url!r} is no address; it is of the form https://host/v1")
    key = read_key(provider)
    if provider != "anthropic":
        from prooftune.providers.openai import OpenAIChat

        return OpenAIChat(model, key, base_url or COMPATIBLE.get(provider), provider)
    from prooftune.providers.anthropic import AnthropicChat

    return AnthropicChat(model, key, base_url)


def read_key(provider: str) -> str:
    """Return the provider's key from the environment.

    Raises:
        EnvironmentLacks: there is none, or it holds what no HTTP header can.
    """
    variable = KEYS[provider]
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EnvironmentLacks(
            f"{variable} is not set, and {provider} answers nobody without a key; set it in the environment of the command or the worker "
            "(a local server that checks no key takes any text)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EnvironmentLacks(f"{variable} holds spaces or characters that no key has; set it again, to the key alone")
    return key


def in_order(ask: Callable[[Question], ChatAnswer], questions: Sequence[Question]) -> Iterator[ChatAnswer]:
    """Yield the answer to each question, in order. After an error, or when the caller stops early, nothing further is asked."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="chat") as pool:
        yield from pool.map(ask, questions)


def as_dicts(prompt: Prompt) -> list[dict[str, str]]:
    """Return a prompt in the form both APIs know.

    Raises:
        DataError: a message is the result of a tool call; an API takes those only with the id of the call, which examples do not hold.
    """
    if any(message.role == "tool" for message in prompt):
        raise DataError("a prompt holds a message with role 'tool', which cannot be sent to an API; leave such examples out")
    return [{"role": message.role, "content": message.content} for message in prompt]
