"""Puts one contestant, a prompted base model or the candidate, to the sealed holdout: answers, scores, metrics, files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prooftune.data.counting import Counter
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import verify_seal
from prooftune.errors import DataError
from prooftune.evaluation.answers.answering import Answer, Answerer
from prooftune.evaluation.metrics import measure, metrics_for, score
from prooftune.evaluation.metrics.labels import write_confusion
from prooftune.evaluation.metrics.refusals import share_of_empty, share_of_refusals
from prooftune.spec import Task
from prooftune.types import Evaluation, Example, Message, Prediction, Report, no_report

INTERVAL_SEED = 0
"""Of the bootstrap intervals of single metrics; the gate's comparison has its own."""


@dataclass(frozen=True, slots=True)
class Contest:
    """What is the same for every contestant: the questions, how long an answer may be, and how it is judged."""

    holdout: tuple[Example, ...]
    """The questions: the sealed holdout, or the validation examples of a choice that must not see it."""
    holdout_sha256: str
    """Seal of the holdout; empty where the questions are not the holdout."""
    metrics: tuple[str, ...]
    """The one that the gate decides on comes first; each scores at least one of the questions."""
    max_new_tokens: int
    task: Task


def open_contest(train: Sequence[Example], holdout: Path, holdout_sha256: str, task: Task, counter: Counter) -> Contest:
    """Check the holdout's seal and read it.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        SpecError: ``task.json_schema`` is no JSON Schema.
        DataError: the holdout is empty, ``task.metric`` applies to none of its targets, or there is neither ``task.max_answer_tokens`` nor
            a training target to take it from.
        EnvironmentLacks: a custom metric is not installed.
    """
    verify_seal(holdout, holdout_sha256)
    examples = tuple(read_lines(holdout, Example))
    if not examples:
        raise DataError(f"{holdout.name} holds no example; at least one is required to evaluate a model: raise data.split.holdout")
    return _contest(train, examples, holdout_sha256, task, counter)


def open_unsealed_contest(train: Sequence[Example], examples: Sequence[Example], task: Task, counter: Counter) -> Contest:
    """Return a contest on other examples than the holdout's, for choices that must not see it.

    Raises:
        SpecError, DataError, EnvironmentLacks: as ``open_contest``.
    """
    if not examples:
        raise DataError("there is no validation example to choose on; at least one is required: raise data.split.validation")
    return _contest(train, tuple(examples), "", task, counter)


def _contest(train: Sequence[Example], examples: tuple[Example, ...], sha256: str, task: Task, counter: Counter) -> Contest:
    targets = [example.target for example in examples]
    suitable = metrics_for([*(example.target for example in train), *targets], task)
    metrics = tuple(name for name in suitable if any(score(name, target, target, task) is not None for target in targets))
    if task.metric not in metrics:
        raise DataError(f"task.metric {task.metric} applies to none of the {len(targets)} targets; set another, such as exact_match")
    return Contest(examples, sha256, metrics, task.max_answer_tokens or _answer_limit(train, counter), task)


def evaluate(
    name: str,
    description: str,
    prompt_of: Callable[[Example], Sequence[Message]],
    contest: Contest,
    answerer: Answerer,
    out: Path,
    report: Report = no_report,
    model: str = "",
) -> Evaluation:
    """Let a contestant answer every question and write its answers, in the questions' order, and how it did.

    Writes ``NAME.predictions.jsonl``, ``NAME.evaluation.json`` and, where the targets are labels, ``NAME.confusion.csv``. Everything but
    the timings is the same each time. ``model`` is the contestant's as the spec calls it; empty = the candidate's own base model.
    """
    prompts = [prompt_of(example) for example in contest.holdout]
    started = time.perf_counter()
    answers = answerer.answer(
        prompts, max_new_tokens=contest.max_new_tokens, report=lambda progress: report(progress.model_copy(update={"text": name}))
    )
    measured = not any(answer.kept or answer.latency_s is None for answer in answers)
    seconds = time.perf_counter() - started if measured else None
    predictions = [_prediction(example, answer, contest) for example, answer in zip(contest.holdout, answers, strict=True)]
    evaluation = summarise(name, description, predictions, contest, seconds, answerer.batch_size, model)
    write_lines(out / f"{name}.predictions.jsonl", predictions)
    (out / f"{name}.evaluation.json").write_text(evaluation.model_dump_json(indent=1), encoding="utf-8")
    if {"label_accuracy", "macro_f1"} & set(contest.metrics):
        write_confusion(out / f"{name}.confusion.csv", [p.answer for p in predictions], [p.target for p in predictions])
    return evaluation


def summarise(
    name: str, description: str, predictions: Sequence[Prediction], contest: Contest, seconds: float | None, batch_size: int, model: str
) -> Evaluation:
    """Return how a contestant did, from its answers: metrics with 95 % intervals, lengths in tokens, timings in seconds.

    A timing is None where it was not measured: a percentile where one of the latencies is, the throughput where ``seconds`` is.
    """
    import numpy as np

    answers, targets = [prediction.answer for prediction in predictions], [prediction.target for prediction in predictions]
    answer_tokens = [prediction.answer_tokens for prediction in predictions]
    latencies = [prediction.latency_s for prediction in predictions if prediction.latency_s is not None]
    timed = len(latencies) == len(predictions)
    return Evaluation(
        name=name,
        description=description,
        metrics=measure(contest.metrics, answers, targets, contest.task, seed=INTERVAL_SEED),
        model=model,
        answer_tokens_mean=float(np.mean(answer_tokens)),
        answer_tokens_p50=float(np.percentile(answer_tokens, 50)),
        answer_tokens_p95=float(np.percentile(answer_tokens, 95)),
        prompt_tokens_mean=float(np.mean([prediction.prompt_tokens for prediction in predictions])),
        latency_p50_s=float(np.percentile(latencies, 50)) if timed else None,
        latency_p95_s=float(np.percentile(latencies, 95)) if timed else None,
        batch_size=batch_size,
        tokens_per_second=None if seconds is None else sum(answer_tokens) / seconds,
        seconds=seconds,
        refusals=share_of_refusals(list(zip(answers, targets, strict=True))),
        empty=share_of_empty(answers),
        holdout_sha256=contest.holdout_sha256,
    )


def figures(evaluation: Evaluation) -> dict[str, object]:
    """Return what a stage hands on about a contestant: its metrics, without the timings, which differ each time."""
    return {
        "metrics": {name: metric.model_dump(mode="json", exclude={"name"}) for name, metric in evaluation.metrics.items()},
        "description": evaluation.description,
        "answer_tokens_p50": evaluation.answer_tokens_p50,
        "prompt_tokens_mean": evaluation.prompt_tokens_mean,
    }


def _answer_limit(train: Sequence[Example], counter: Counter) -> int:
    if not train:
        raise DataError("there is no training example to take the length of an answer from; set task.max_answer_tokens")
    longest = max(counter.text_tokens([example.target for example in train]))
    end_of_turn = 1
    return math.ceil(1.5 * (longest + end_of_turn))


def _prediction(example: Example, answer: Answer, contest: Contest) -> Prediction:
    questions = [message.content for message in example.prompt if message.role == "user"]
    return Prediction(
        example_id=example.id,
        prompt=questions[-1] if questions else "",
        target=example.target,
        answer=answer.text,
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        finished=answer.finished,
        latency_s=answer.latency_s,
        scores={name: score(name, answer.text, example.target, contest.task) for name in contest.metrics},
    )
