"""Puts one contestant, a prompted base model or the candidate, to the sealed holdout: answers, scores, metrics, files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import verify_seal
from prooftune.errors import DataError
from prooftune.evaluation.generation import BATCH_SIZE, Generation, generate
from prooftune.evaluation.metrics import measure, metrics_for, score
from prooftune.evaluation.refusals import share_of_empty, share_of_refusals
from prooftune.spec import Task
from prooftune.training.encoding import prompt_ids
from prooftune.types import Evaluation, Example, Message, Prediction, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INTERVAL_SEED = 0
"""Of the bootstrap intervals of single metrics; the gate's comparison has its own."""


@dataclass(frozen=True, slots=True)
class Contest:
    """What is the same for every contestant: the questions, how long an answer may be, and how it is judged."""

    holdout: tuple[Example, ...]
    holdout_sha256: str
    metrics: tuple[str, ...]
    """The one that the gate decides on comes first; each scores at least one held-out example."""
    max_new_tokens: int


def open_contest(train: Sequence[Example], holdout: Path, holdout_sha256: str, task: Task, tokenizer: PreTrainedTokenizerBase) -> Contest:
    """Check the holdout's seal and read it.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, ``task.metric`` applies to none of its targets, or there is neither ``task.max_answer_tokens`` nor
            a training target to take it from.
    """
    verify_seal(holdout, holdout_sha256)
    examples = tuple(read_lines(holdout, Example))
    if not examples:
        raise DataError(f"{holdout.name} holds no example; at least one is required to evaluate a model: raise data.split.holdout")
    targets = [example.target for example in examples]
    suitable = metrics_for([*(example.target for example in train), *targets], task)
    metrics = tuple(name for name in suitable if any(score(name, "", target) is not None for target in targets))
    if task.metric not in metrics:
        raise DataError(
            f"task.metric {task.metric} applies to none of the {len(targets)} held-out targets; set another, such as exact_match"
        )
    return Contest(examples, holdout_sha256, metrics, task.max_answer_tokens or _answer_limit(train, tokenizer))


def evaluate(
    name: str,
    description: str,
    prompt_of: Callable[[Example], Sequence[Message]],
    contest: Contest,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    report: Report = no_report,
) -> Evaluation:
    """Let a contestant answer the whole holdout; write ``NAME.predictions.jsonl`` (in holdout order) and ``NAME.evaluation.json``.

    Everything but the latencies and tokens per second is the same each time.
    """
    prompts = [prompt_ids(prompt_of(example), tokenizer) for example in contest.holdout]
    started = time.perf_counter()
    answers = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=contest.max_new_tokens,
        report=lambda progress: report(progress.model_copy(update={"text": name})),
    )
    seconds = time.perf_counter() - started
    predictions = [
        _prediction(example, len(prompt), answer, contest.metrics)
        for example, prompt, answer in zip(contest.holdout, prompts, answers, strict=True)
    ]
    evaluation = _summary(name, description, predictions, contest, seconds)
    write_lines(out / f"{name}.predictions.jsonl", predictions)
    (out / f"{name}.evaluation.json").write_text(evaluation.model_dump_json(indent=1), encoding="utf-8")
    return evaluation


def figures(evaluation: Evaluation) -> dict[str, object]:
    """Return what a stage hands on about a contestant: its metrics, without the timings, which differ each time."""
    return {
        "metrics": {name: metric.model_dump(mode="json", exclude={"name"}) for name, metric in evaluation.metrics.items()},
        "description": evaluation.description,
        "answer_tokens_p50": evaluation.answer_tokens_p50,
        "prompt_tokens_mean": evaluation.prompt_tokens_mean,
    }


def _answer_limit(train: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> int:
    if not train:
        raise DataError("there is no training example to take the length of an answer from; set task.max_answer_tokens")
    targets = tokenizer([example.target for example in train], add_special_tokens=False)["input_ids"]
    end_of_turn = 1
    return math.ceil(1.5 * (max(len(target) for target in targets) + end_of_turn))


def _prediction(example: Example, prompt_tokens: int, answer: Generation, names: Sequence[str]) -> Prediction:
    questions = [message.content for message in example.prompt if message.role == "user"]
    return Prediction(
        example_id=example.id,
        prompt=questions[-1] if questions else "",
        target=example.target,
        answer=answer.text,
        prompt_tokens=prompt_tokens,
        answer_tokens=len(answer.tokens),
        finished=answer.finished,
        latency_s=answer.latency_s,
        scores={name: score(name, answer.text, example.target) for name in names},
    )


def _summary(name: str, description: str, predictions: Sequence[Prediction], contest: Contest, seconds: float) -> Evaluation:
    import numpy as np

    answer_tokens = [prediction.answer_tokens for prediction in predictions]
    latencies = [prediction.latency_s for prediction in predictions]
    return Evaluation(
        name=name,
        description=description,
        metrics=measure(contest.metrics, [p.answer for p in predictions], [p.target for p in predictions], seed=INTERVAL_SEED),
        answer_tokens_mean=float(np.mean(answer_tokens)),
        answer_tokens_p50=float(np.percentile(answer_tokens, 50)),
        answer_tokens_p95=float(np.percentile(answer_tokens, 95)),
        prompt_tokens_mean=float(np.mean([prediction.prompt_tokens for prediction in predictions])),
        latency_p50_s=float(np.percentile(latencies, 50)),
        latency_p95_s=float(np.percentile(latencies, 95)),
        batch_size=BATCH_SIZE,
        tokens_per_second=sum(answer_tokens) / seconds,
        seconds=seconds,
        refusals=share_of_refusals([(p.answer, p.target) for p in predictions]),
        empty=share_of_empty([p.answer for p in predictions]),
        holdout_sha256=contest.holdout_sha256,
    )
