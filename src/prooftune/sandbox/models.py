"""Who answers and who is trained behind a stand-in: canned answers, or the demo model, really tuned on this machine."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prooftune.types import Example, Message, Progress, Report

if TYPE_CHECKING:
    from prooftune.data.counting import Counter
    from prooftune.evaluation.answers.answering import LocalAnswerer

BATCH_WINDOW_S = 0.02
"""How long a question waits for others, to be answered together."""
LONGEST_ANSWER = 36
"""Tokens that the demo model says at most, enough for the demo's targets: untuned it would go on to any limit, for minutes."""
TUNED_LAYERS = 12
UNTUNED = "I am a stand-in without a model; start the sandbox without --fast for real answers."


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, with the tokens that are billed for it."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    finished: bool = True


class Brain(Protocol):
    """What thinks behind a stand-in."""

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a conversation, by the tokenizer of the model behind the stand-in."""

    def train(self, model: str, tuned: str, rows: Sequence[Example], validation: Sequence[Example], epochs: int, report: Report) -> None:
        """Tune ``model``, a base model or a tuned one, on the rows; from then on ``tuned`` answers.

        ``report`` hears of optimizer steps, with losses in its text.
        """

    def answer(self, model: str, prompt: Sequence[Message], max_tokens: int) -> Answered:
        """Answer as the base model or a tuned one would. Raises KeyError for a tuned model that does not exist."""

    def forget(self, tuned: str) -> None:
        """Delete a tuned model; one that is gone is fine."""


def count_words(messages: Sequence[Message]) -> int:
    """Count words and signs: the canned stand-in's tokens, where no tokenizer of a provider is asked for."""
    return sum(len(re.findall(r"\w+|[^\w\s]", message.content)) for message in messages)


@dataclass
class CannedBrain:
    """Answers without a model: a base model with one sentence, a tuned one with the target of the training example whose words are nearest.

    It is quick and the same every time. Its answers say nothing about any model. ``counter`` counts tokens as an open model would.
    """

    counter: Callable[[Sequence[Message]], int] = count_words
    tuned: dict[str, list[tuple[frozenset[str], str]]] = field(default_factory=dict)

    def train(self, model: str, tuned: str, rows: Sequence[Example], validation: Sequence[Example], epochs: int, report: Report) -> None:
        """Remember the rows, and those of the tuned model that is gone on from; losses are those of a curve, not of a model."""
        for epoch in range(1, epochs + 1):
            text = f"loss {2 / (epoch + 1):.4f}, validation {2.1 / (epoch + 1):.4f} (canned)"
            report(Progress(done=epoch, total=epochs, unit="steps", text=text))
        self.tuned[tuned] = self.tuned.get(model, []) + [(_words(row.prompt), row.target) for row in rows]

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a conversation."""
        return self.counter(messages)

    def answer(self, model: str, prompt: Sequence[Message], max_tokens: int) -> Answered:
        """Answer by the nearest training example, or, for a model that is no tuned one, with ``UNTUNED``."""
        text = UNTUNED
        if model in self.tuned:
            asked = _words(prompt)
            text = max(self.tuned[model], key=lambda known: len(asked & known[0]) / (len(asked | known[0]) or 1))[1]
        return Answered(text, self.count(prompt), self.count([Message(role="assistant", content=text)]))

    def forget(self, tuned: str) -> None:
        """Delete a tuned model."""
        self.tuned.pop(tuned, None)


def _words(messages: Sequence[Message]) -> frozenset[str]:
    last = [message.content for message in messages if message.role == "user"][-1:]
    return frozenset(re.findall(r"\w+", " ".join(last).lower()))


@dataclass
class _Question:
    prompt: Sequence[Message]
    max_tokens: int
    answered: threading.Event = field(default_factory=threading.Event)
    answer: Answered | None = None
    error: Exception | None = None


class DemoBrain:
    """The demo model: base models all answer as it does, tuned ones with adapters that are really trained here.

    Questions that come at the same time are answered together. Needs torch, and minutes for a training on a few hundred examples.
    """

    def __init__(self, folder: Path, model: str = "smollm2-135m-instruct") -> None:
        self.folder = folder
        self.model = model
        self._adapters: dict[str, Path] = {}
        self._answerers: dict[str, LocalAnswerer] = {}
        self._waiting: dict[str, list[_Question]] = {}
        self._lock = threading.Lock()
        self._using_model = threading.Lock()
        self._counter: Counter | None = None

    def train(self, model: str, tuned: str, rows: Sequence[Example], validation: Sequence[Example], epochs: int, report: Report) -> None:
        """Train a LoRA adapter on the upper layers, as the demo's spec does, or go on with a tuned model's."""
        from prooftune.data.lines import write_lines
        from prooftune.models.resolve import resolve_model
        from prooftune.spec import Method, Task, Tracking
        from prooftune.training.sft import train

        out = self.folder / re.sub(r"[^A-Za-z0-9.-]", "_", tuned)
        out.mkdir(parents=True, exist_ok=True)
        write_lines(out / "train.jsonl", rows)
        write_lines(out / "validation.jsonl", validation or rows[: max(1, len(rows) // 10)])
        base = resolve_model(self.model, None, False).path
        method = Method(epochs=epochs, layers=TUNED_LAYERS, batch_size=8, max_length=512)
        with self._using_model:
            train(
                out / "train.jsonl",
                out / "validation.jsonl",
                base,
                Task(),
                method,
                out,
                model_name=self.model,
                trust_remote_code=False,
                tracking=Tracking(),
                report=report,
                keep=1,
                start=self._adapters.get(model),
            )
        self._adapters[tuned] = out / "adapter"

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a conversation, with the demo model's chat template."""
        from prooftune.data.counting import counter_of

        with self._lock:
            if self._counter is None:
                self._counter = counter_of("", self.model)
            return self._counter.conversation_tokens(messages)

    def answer(self, model: str, prompt: Sequence[Message], max_tokens: int) -> Answered:
        """Answer together with the questions that came within ``BATCH_WINDOW_S``."""
        name = model if model in self._adapters else ""
        question = _Question(prompt, min(max_tokens, LONGEST_ANSWER))
        with self._lock:
            waiting = self._waiting.setdefault(name, [])
            waiting.append(question)
            first = len(waiting) == 1
        if first:
            time.sleep(BATCH_WINDOW_S)
            self._answer_waiting(name)
        question.answered.wait()
        if question.error is not None:
            raise question.error
        assert question.answer is not None  # noqa: S101 - set together with the event
        return question.answer

    def _answer_waiting(self, name: str) -> None:
        with self._using_model:
            with self._lock:
                batch = self._waiting.pop(name)
            try:
                found = self._answerer(name).answer([one.prompt for one in batch], max_new_tokens=max(one.max_tokens for one in batch))
                for question, answer in zip(batch, found, strict=True):
                    question.answer = Answered(answer.text, answer.prompt_tokens, answer.answer_tokens, answer.finished)
            except BaseException as error:
                for question in batch:
                    question.error = RuntimeError(f"the stand-in's model failed: {error}")
                raise
            finally:
                for question in batch:
                    question.answered.set()

    def _answerer(self, name: str) -> LocalAnswerer:
        from prooftune.evaluation.answers.answering import LocalAnswerer
        from prooftune.models.loading import load_base, load_candidate, load_tokenizer
        from prooftune.models.resolve import resolve_model

        if name not in self._answerers:
            base = resolve_model(self.model, None, False).path
            weights = load_candidate(base, self._adapters[name], kind="lora") if name else load_base(base)
            self._answerers[name] = LocalAnswerer(weights, load_tokenizer(base), self.model)
        return self._answerers[name]

    def forget(self, tuned: str) -> None:
        """Delete a tuned model."""
        self._adapters.pop(tuned, None)
        self._answerers.pop(tuned, None)
