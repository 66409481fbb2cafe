"""Trains on parts of the training split and scores each on the validation split, to show what more data gives."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prooftune.data.counting import TokenizerCounter
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import in_spread_order
from prooftune.errors import DataError
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.learning.power_law import fit_curve
from prooftune.evaluation.metrics import measure
from prooftune.evaluation.scoring import INTERVAL_SEED, open_unsealed_contest
from prooftune.evidence import CurvePoint
from prooftune.models.loading import Kind, load_candidate, load_tokenizer
from prooftune.spec import Method, Split, Task
from prooftune.training import sft
from prooftune.training.encoding import with_system
from prooftune.types import Example, Metric, Report, no_report

POINT = "point.json"
"""Written before the weights are removed: where it is, they are no longer needed."""


def subset(train: Path, share: float, seed: int, out: Path) -> int:
    """Write ``train.jsonl``, a share of the training split, into ``out`` and return how many examples it holds.

    Near-duplicates stay together, few labels stay in proportion as in the split, and with the same seed a smaller share is part of every
    larger one. At least one group is taken; otherwise the number is off the share by at most half of the largest group.

    Raises:
        DataError: the training split is empty.
    """
    rows = list(read_lines(train, Example))
    if not rows:
        raise DataError(f"{train.name} holds no example to take a share of; bring more data, or lower data.split.holdout and validation")
    taken: list[Example] = []
    for group in in_spread_order(rows, Split(seed=seed)):
        if taken and len(taken) + len(group) / 2 > share * len(rows):
            break
        taken += group
    taken.sort(key=lambda row: (row.id, row.source))
    return write_lines(out / "train.jsonl", taken)


def train_on_share(
    train: Path,
    validation: Path,
    model_folder: Path,
    task: Task,
    method: Method,
    share: float,
    seed: int,
    out: Path,
    report: Report = no_report,
    *,
    model_name: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Train on a share of the training split as the candidate is trained, score the validation split, and return the curve's point.

    Writes ``point.json`` and, below ``training/``, the subset and the training's log and figures; the weights are removed. After a kill,
    the same call with the same ``out`` goes on where it was.

    Raises:
        DataError, SpecError, ModelUnavailable: as ``sft.train`` and ``score_on_validation``.
    """
    training = out / "training"
    training.mkdir(exist_ok=True)
    examples = subset(train, share, seed, training)
    trained: dict[str, Any] = sft.train(
        training / "train.jsonl",
        validation,
        model_folder,
        task,
        method,
        training,
        model_name=model_name,
        trust_remote_code=trust_remote_code,
        report=report,
    )
    weights = training / ("model" if method.kind == "full" else "adapter")
    if not (out / POINT).is_file():
        found = score_on_validation(
            train, validation, model_folder, weights, task, report, kind=method.kind, trust_remote_code=trust_remote_code
        )
        point = _point(share, examples, trained["validation_loss"], found)
        unfinished = out / f"{POINT}.unfinished"
        unfinished.write_text(point.model_dump_json(indent=1) + "\n", encoding="utf-8")
        unfinished.replace(out / POINT)
    shutil.rmtree(weights, ignore_errors=True)  # gone already, if a kill came after this
    done = CurvePoint.model_validate_json((out / POINT).read_bytes())
    return done.model_dump(mode="json") | {"trained_tokens": trained["trained_tokens"]}


def score_on_validation(
    train: Path,
    validation: Path,
    model_folder: Path,
    weights: Path,
    task: Task,
    report: Report = no_report,
    *,
    kind: Kind = "lora",
    trust_remote_code: bool = False,
) -> Metric:
    """Return ``task.metric`` of greedy answers to the validation split.

    ``train`` is the whole training split for every point, so that all may answer at equal length.

    Raises:
        DataError: the validation split is empty, or ``task.metric`` applies to none of its targets.
        ModelUnavailable: the model or adapter cannot be loaded safely.
    """
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    questions = list(read_lines(validation, Example))
    contest = open_unsealed_contest(list(read_lines(train, Example)), questions, task, TokenizerCounter(tokenizer))
    model = load_candidate(model_folder, weights, kind=kind, trust_remote_code=trust_remote_code)
    answers = LocalAnswerer(model, tokenizer).answer(
        [with_system(example.prompt, task.system) for example in questions], max_new_tokens=contest.max_new_tokens, report=report
    )
    texts, targets = [answer.text for answer in answers], [example.target for example in questions]
    return measure((task.metric,), texts, targets, task, seed=INTERVAL_SEED)[task.metric]


def write_curve(
    known: Sequence[Path],
    train: Path,
    validation: Path,
    model_folder: Path,
    weights: Path,
    task: Task,
    validation_loss: float,
    seed: int,
    out: Path,
    report: Report = no_report,
    *,
    kind: Kind = "lora",
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Score the candidate (``weights``) as the shares' points (``known``) were, fit the curve, and return it.

    Writes ``learning_curve.json``. ``validation_loss`` is the candidate's at its best checkpoint.

    Raises:
        DataError: fewer than two points of unlike size, or as ``score_on_validation``.
        ModelUnavailable: the model or adapter cannot be loaded safely.
    """
    found = score_on_validation(train, validation, model_folder, weights, task, report, kind=kind, trust_remote_code=trust_remote_code)
    whole = _point(1.0, sum(1 for _ in read_lines(train, Example)), validation_loss, found)
    curve = fit_curve([*(CurvePoint.model_validate_json(path.read_bytes()) for path in known), whole], seed)
    (out / "learning_curve.json").write_text(curve.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return curve.model_dump(mode="json")


def _point(share: float, examples: int, validation_loss: float, found: Metric) -> CurvePoint:
    return CurvePoint(share=share, examples=examples, validation_loss=validation_loss, metric=found.value, n=found.n)
