"""The prompt-only ladder: what the base model can do when it is only asked well. A candidate must beat the best rung."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prooftune.data.lines import read_lines, write_lines
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.answers.subject import Subject
from prooftune.evaluation.ladder.prompts import Asked
from prooftune.evaluation.ladder.rungs import RUNGS, Questions, Setting
from prooftune.evaluation.scoring import evaluate, figures, open_contest
from prooftune.spec import Baseline, Rung, Task
from prooftune.types import Evaluation, Example, Progress, Report, no_report


def run_baselines(
    train: Path,
    validation: Path,
    holdout: Path,
    holdout_sha256: str,
    base: Subject,
    task: Task,
    baseline: Baseline,
    out: Path,
    report: Report = no_report,
    *,
    larger: Callable[[], Answerer] | None = None,
    embedding_folder: Path | None = None,
    documents: Path | None = None,
) -> dict[str, Any]:
    """Let each rung answer the holdout once; return each rung's figures. All but the rung larger_model prompt ``base``.

    Writes ``RUNG.predictions.jsonl``, ``RUNG.evaluation.json``, ``RUNG.prompt.json`` (the messages that stand before every question),
    ``RUNG.prompts.jsonl`` where prompts differ by more than the question, and ``RUNG.choice.json`` where a number of demonstrations was
    chosen. Demonstrations come from ``train`` alone, choices from ``validation`` alone. A rung whose evaluation is in ``out`` already is
    not run again.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, a question does not fit into the model's context, or the documents hold no text.
        SpecError: a rung lacks what it needs: another model, documents.
        ModelUnavailable: a model cannot be loaded safely.
        TransientError, EnvironmentLacks: a model behind an API could not be asked.
    """
    examples = tuple(read_lines(train, Example))
    setting = Setting(
        train=examples,
        validation=tuple(read_lines(validation, Example)),
        contest=open_contest(examples, holdout, holdout_sha256, task, base.counter),
        baseline=baseline,
        base=base,
        out=out,
        larger=larger,
        embedding_folder=embedding_folder,
        documents=documents,
    )
    results: dict[str, Any] = {}
    for position, rung in enumerate(baseline.ladder):
        if not (out / f"{rung}.evaluation.json").exists():
            _run(rung, setting, position, report)
        results[rung] = _figures(rung, out)
    return results


def _run(rung: Rung, setting: Setting, position: int, report: Report) -> None:
    """Put the rung's questions and write its files; its evaluation appears last, so that a rung that has one is whole."""
    size, parts = len(setting.contest.holdout), len(setting.baseline.ladder)

    def preparing(progress: Progress) -> None:
        text = f"{rung}: preparing, {progress.done} of {progress.total} {progress.unit}"
        report(Progress(done=position * size, total=parts * size, unit="answers", text=text))

    def answering(progress: Progress) -> None:
        report(progress.model_copy(update={"done": position * size + progress.done, "total": parts * size}))

    questions = RUNGS[rung](setting, preparing)
    unfinished = setting.out / f"{rung}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _write_prompts(rung, questions, setting.contest.holdout, unfinished)
    prompts = {example.id: prompt for example, prompt in zip(setting.contest.holdout, questions.prompts, strict=True)}
    answerer = questions.answerer
    evaluate(
        rung, questions.description, lambda example: prompts[example.id], setting.contest, answerer, unfinished, answering, answerer.model
    )
    last = f"{rung}.evaluation.json"
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == last):
        path.replace(setting.out / path.name)
    unfinished.rmdir()


def _figures(rung: Rung, out: Path) -> dict[str, Any]:
    evaluation = Evaluation.model_validate_json((out / f"{rung}.evaluation.json").read_bytes())
    choice = out / f"{rung}.choice.json"
    return figures(evaluation) | ({"choice": json.loads(choice.read_bytes())} if choice.exists() else {})


def _write_prompts(rung: Rung, questions: Questions, holdout: tuple[Example, ...], out: Path) -> None:
    text = json.dumps([message.model_dump() for message in questions.before], ensure_ascii=False, indent=1)
    (out / f"{rung}.prompt.json").write_text(f"{text}\n", encoding="utf-8")
    if not questions.alike:
        asked = (Asked(example_id=example.id, messages=prompt) for example, prompt in zip(holdout, questions.prompts, strict=True))
        write_lines(out / f"{rung}.prompts.jsonl", asked)
