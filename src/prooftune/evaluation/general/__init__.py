"""Forgetting: a general suite put to the base model and to the candidate.

Multiple choice: the choice whose characters are likeliest after the question wins (log-likelihood divided by length, as ``acc_norm`` of
lm-evaluation-harness). Perplexity: exp of the mean loss over all tokens of the texts. Both are likelihoods, so nothing is generated and an
answer's form does not count. The suite was written for Prooftune; it is small, and shows large losses only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.evaluation import statistics
from prooftune.evaluation.answers.likelihood import choice_scores, text_losses
from prooftune.evidence import Forgetting
from prooftune.evidence import General as Part
from prooftune.models.loading import Kind, load_base, load_candidate, load_tokenizer
from prooftune.spec import General
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SEED = 0
"""Of the bootstrap intervals."""


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

    right: tuple[bool, ...]
    """By question."""
    losses: tuple[tuple[float, int], ...]
    """By text: summed loss in nats, and how many tokens it is summed over."""


def measure_forgetting(
    model_folder: Path,
    weights: Path,
    options: General,
    out: Path,
    report: Report = no_report,
    *,
    kind: Kind = "lora",
    trust_remote_code: bool = False,
) -> dict[str, object]:
    """Measure the base model and the candidate on the general suite; return the parts as figures.

    Writes ``forgetting.json`` and ``general.jsonl``, the suite's answers item by item. With ``suite`` none, lm-eval's tasks are run alone.
    With ``kind`` qlora both answer on the base model's 4-bit weights, so that what quantising costs is no part of the change.

    Raises:
        ModelUnavailable: the model or the candidate cannot be loaded safely.
        EnvironmentLacks: lm-eval's tasks are wanted, and the package is not installed.
        DataError: lm-eval knows no such task, or it measures no accuracy.
    """
    questions, texts = (load_questions(), load_texts()) if options.suite == "shipped" else ((), ())
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    tuned = load_candidate(model_folder, weights, kind=kind, trust_remote_code=trust_remote_code)
    after = answer_suite(tuned, tokenizer, questions, texts, _part(report, 0))
    harness_after = _harness(tuned, tokenizer, options)
    with _base(tuned, lambda: load_base(model_folder, kind=kind, trust_remote_code=trust_remote_code)) as base:
        before = answer_suite(base, tokenizer, questions, texts, _part(report, 1))
        harness_before = _harness(base, tokenizer, options)
    parts = [*compare_suite(questions, texts, before, after), *_compare_harness(harness_before, harness_after)]
    (out / "forgetting.json").write_text(Forgetting(parts=tuple(parts)).model_dump_json(indent=1) + "\n", encoding="utf-8")
    _write_items(out / "general.jsonl", questions, texts, before, after)
    return {"parts": [part.model_dump(mode="json") for part in parts]}


def load_questions() -> tuple[Question, ...]:
    """Return the shipped questions."""
    rows = (json.loads(line) for line in _suite("questions.jsonl"))
    return tuple(Question(row["topic"], row["question"], tuple(row["choices"]), row["answer"]) for row in rows)


def load_texts() -> tuple[Text, ...]:
    """Return the shipped texts."""
    return tuple(Text(**json.loads(line)) for line in _suite("texts.jsonl"))


def answer_suite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    texts: Sequence[Text],
    report: Report = no_report,
) -> Answers:
    """Return what a model makes of questions and texts."""
    scores = choice_scores(model, tokenizer, [question.question for question in questions], [q.choices for q in questions], report)
    right = tuple(max(range(len(row)), key=row.__getitem__) == q.answer for q, row in zip(questions, scores, strict=True))
    return Answers(right, tuple(text_losses(model, tokenizer, [text.text for text in texts])))


def compare_suite(questions: Sequence[Question], texts: Sequence[Text], before: Answers, after: Answers) -> Iterator[Part]:
    """Yield both parts as wholes, then each topic; of no items, nothing."""
    if questions:
        yield _accuracy("multiple choice", before.right, after.right)
    if texts:
        yield _perplexity("perplexity", before.losses, after.losses)
    for topic in dict.fromkeys(question.topic for question in questions):
        chosen = [at for at, question in enumerate(questions) if question.topic == topic]
        yield _accuracy(f"multiple choice: {topic}", [before.right[at] for at in chosen], [after.right[at] for at in chosen])
    for topic in dict.fromkeys(text.topic for text in texts):
        chosen = [at for at, text in enumerate(texts) if text.topic == topic]
        yield _perplexity(f"perplexity: {topic}", [before.losses[at] for at in chosen], [after.losses[at] for at in chosen])


def _accuracy(name: str, before: Sequence[bool], after: Sequence[bool]) -> Part:
    gained, lost = statistics.discordant(before, after)
    low, high = statistics.paired_proportions_interval(gained, lost, len(before))
    return Part(
        name=name,
        unit="accuracy",
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        change=(gained - lost) / len(before),
        ci_low=low,
        ci_high=high,
        p_value=statistics.mcnemar_exact(before, after),
        n=len(before),
    )


def _perplexity(name: str, before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Part:
    """Compare on the same resamples of texts: both models meet the same tokens, so the mean loss is over the same number of them."""
    import numpy as np

    tokens = np.asarray([count for _, count in before], dtype=np.float64)
    rises = np.asarray([late - early for (early, _), (late, _) in zip(before, after, strict=True)], dtype=np.float64)

    def rise(counts: statistics.Floats) -> statistics.Floats:
        means: statistics.Floats = counts @ rises / (counts @ tokens)
        return means

    draws = statistics.bootstrap(rise, len(before), seed=SEED)
    low, high = statistics.percentile_interval(draws)
    mean = float(rises.sum() / tokens.sum())
    return Part(
        name=name,
        unit="nats_per_token",
        before=float(sum(loss for loss, _ in before) / tokens.sum()),
        after=float(sum(loss for loss, _ in after) / tokens.sum()),
        change=-math.expm1(mean),
        ci_low=-math.expm1(high),
        ci_high=-math.expm1(low),
        p_value=statistics.bootstrap_p(draws, int(np.count_nonzero(rises))),
        n=len(before),
    )


@contextmanager
def _base(tuned: PreTrainedModel, load: Callable[[], PreTrainedModel]) -> Iterator[PreTrainedModel]:
    """Give the base model: the candidate without its adapter, or, where all weights were tuned, the base model loaded anew."""
    if not hasattr(tuned, "disable_adapter"):
        yield load()
        return
    with tuned.disable_adapter():
        yield tuned


def _harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: General) -> dict[str, list[float]]:
    if not options.lm_eval:
        return {}
    from prooftune.evaluation.general.harness import run_tasks

    return run_tasks(model, tokenizer, options)


def _compare_harness(before: dict[str, list[float]], after: dict[str, list[float]]) -> Iterator[Part]:
    for task, values in before.items():
        yield _accuracy(f"lm-eval: {task}", [value == 1.0 for value in values], [value == 1.0 for value in after[task]])


def _part(report: Report, position: int) -> Report:
    def report_part(progress: Progress) -> None:
        name = ("candidate", "base model")[position]
        report(progress.model_copy(update={"done": progress.done + position * progress.total, "total": 2 * progress.total, "text": name}))

    return report_part


def _write_items(path: Path, questions: Sequence[Question], texts: Sequence[Text], before: Answers, after: Answers) -> None:
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
