"""The general suite, and what a model made of it. It was written for Prooftune; it is small, and shows large losses only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question."""

    topic: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text whose loss is measured."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model made of the suite."""

    right: tuple[bool | None, ...]
    """By question; None = unscored: it was asked in words and named no choice."""
    losses: tuple[tuple[float, int], ...]
    """By text: summed loss in nats, and how many tokens it is summed over."""


def load_questions() -> tuple[Question, ...]:
    """Return the shipped questions."""
    rows = (json.loads(line) for line in _suite("questions.jsonl"))
    return tuple(Question(row["topic"], row["question"], tuple(row["choices"]), row["answer"]) for row in rows)


def load_texts() -> tuple[Text, ...]:
    """Return the shipped texts."""
    return tuple(Text(**json.loads(line)) for line in _suite("texts.jsonl"))


def write_items(path: Path, questions: Sequence[Question], texts: Sequence[Text], before: Answers, after: Answers) -> None:
    """Write a line an item, with what both models made of it."""
    rows: list[dict[str, object]] = [
        {**asdict(question), "before": early, "after": late}
        for question, early, late in zip(questions, before.right, after.right, strict=True)
    ]
    rows += [
        {"topic": text.topic, "text": text.text, "tokens": tokens, "before": round(early, 6), "after": round(late, 6)}
        for text, (early, tokens), (late, _) in zip(texts, before.losses, after.losses, strict=True)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _suite(name: str) -> list[str]:
    return (resources.files("prooftune.evaluation.general") / "suite" / name).read_text(encoding="utf-8").splitlines()
