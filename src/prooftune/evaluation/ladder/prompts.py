"""What stands before a question: an instruction and demonstrations, or passages for reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prooftune.data.counting import Counter
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message

Messages = tuple[Message, ...]
Help = TypeVar("Help")
"""What helps to answer: a demonstration or a passage."""


class Asked(Frozen):
    """A line of ``RUNG.prompts.jsonl``: what was asked for one example."""

    example_id: str
    messages: Messages


@dataclass(frozen=True, slots=True)
class Prompt:
    """An instruction and demonstrations, put before every question alike."""

    system: str
    """Empty = no system message."""
    demonstrations: tuple[Example, ...] = ()
    """In the order in which they are shown; the last one stands next to the question."""

    @property
    def messages(self) -> Messages:
        """What stands before every question."""
        return with_system(turns(self.demonstrations), self.system)

    def ask(self, example: Example) -> Messages:
        """Return the messages that put an example's question."""
        return ask(example, self.system, self.demonstrations)


def ask(example: Example, system: str, demonstrations: Sequence[Example] = ()) -> Messages:
    """Return the messages that put an example's question: system message (its own, if it brings one), demonstrations, then its prompt."""
    prompt = with_system(example.prompt, system)
    head = 1 if prompt and prompt[0].role == "system" else 0
    return (*prompt[:head], *turns(demonstrations), *prompt[head:])


def turns(demonstrations: Sequence[Example]) -> list[Message]:
    """Return the demonstrations' messages without their system messages."""
    return [message for example in demonstrations for message in example.messages if message.role != "system"]


def question_text(example: Example) -> str:
    """Return an example's prompt as one text, without its system message: what nearest examples and passages are searched by."""
    return "\n".join(message.content for message in example.prompt if message.role != "system")


@dataclass(frozen=True, slots=True)
class Room:
    """How long a prompt may be."""

    counter: Counter
    context: int | None
    """Tokens that the model can attend to; None = any number."""
    max_new_tokens: int
    """Of the context, what the answer needs."""

    def fit(self, best_first: Sequence[Help], put: Callable[[Sequence[Help]], Sequence[Message]]) -> tuple[Messages, int]:
        """Return the prompt with as many of the best helps as there is room for, and how many those are.

        A prompt without any help is returned even if it is too long: that is for whoever answers it to say.
        """
        for kept in range(len(best_first), 0, -1):
            messages = tuple(put(best_first[:kept]))
            if self.context is None or self.tokens_of(messages) + self.max_new_tokens <= self.context:
                return messages, kept
        return tuple(put([])), 0

    def tokens_of(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the model sees before it answers."""
        return self.counter.prompt_tokens(messages)
