"""Who answers: a model on this machine, or one behind an API, asked in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from prooftune.evaluation.answers.generation import BATCH_SIZE, generate
from prooftune.training.encoding import prompt_ids
from prooftune.types import Message, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one prompt."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    """Tokens generated, the end-of-turn token included where it is counted."""
    finished: bool
    """True when the model ended its turn; False when it was cut at the token limit."""
    latency_s: float | None
    """None = not measured: it came through a provider's batch API."""
    kept: bool = field(default=False, compare=False)
    """Whether an earlier call had it already: then the time that this one took says nothing."""


class Answerer(Protocol):
    """A model that can be prompted."""

    model: str
    """As the spec calls it."""
    batch_size: int
    """Prompts under way at once: latencies can be compared between equal ones only."""

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Return the answer to each prompt, in order; deterministic as far as the model's host lets it be."""


class LocalAnswerer:
    """A model on this machine: greedy, in batches, what all prompts begin with run once."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "") -> None:
        self.model = name
        self.batch_size = BATCH_SIZE
        self._weights = model
        self._tokenizer = tokenizer

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Return the answer to each prompt, in order.

        Raises:
            DataError: a prompt does not fit into the model's context.
        """
        ids = [prompt_ids(prompt, self._tokenizer) for prompt in prompts]
        found = generate(self._weights, self._tokenizer, ids, max_new_tokens=max_new_tokens, report=report)
        return [Answer(one.text, len(prompt), len(one.tokens), one.finished, one.latency_s) for prompt, one in zip(ids, found, strict=True)]
