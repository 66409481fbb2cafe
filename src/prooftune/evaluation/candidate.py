"""The candidate on the same holdout that the baselines answered, under the system message it was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from prooftune.data.counting import Counter
from prooftune.data.lines import read_lines
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.gate.looks import alpha_by_look, look_in_turn
from prooftune.evaluation.scoring import evaluate, figures, open_contest
from prooftune.spec import Gate, Task
from prooftune.training.encoding import with_system
from prooftune.types import Evaluation, Example, Prediction, Report, no_report

NAME = "candidate"
ASIDE = "looks.unfinished"
Open = Callable[[], AbstractContextManager[Answerer]]
"""Loads or deploys a tuned model, and lets go of it again."""
SHOWN = {
    "verdict",
    "metric",
    "baseline",
    "baseline_value",
    "candidate_value",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "alpha",
    "look",
}
"""What ``looks.json`` holds of each look's decision, beside the look's ``share`` of ``gate.alpha``."""


def evaluate_candidate(
    train: Path,
    holdout: Path,
    holdout_sha256: str,
    candidates: Sequence[Open],
    counter: Counter,
    how: str,
    task: Task,
    out: Path,
    report: Report = no_report,
    *,
    baselines: Mapping[str, Sequence[Prediction]] | None = None,
    gate: Gate | None = None,
    seed: int = 7,
) -> dict[str, Any]:
    """Let the candidate, the first of ``candidates``, answer the holdout; return its figures.

    Writes ``candidate.predictions.jsonl`` and ``candidate.evaluation.json``. Where ``gate.looks`` allows it, the further candidates
    (training's next best checkpoints by validation loss) are tried after one that would not be promoted over ``baselines``. The files are
    then those of the one that would, or else of the first; ``looks.json`` tells of all, and the figures say ``look`` and ``alpha``.

    ``counter`` is the base model's: the candidate may answer at the same length as the baselines. ``how`` says in words how it was tuned.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, or a prompt does not fit into the model's context.
        ModelUnavailable: the model or adapter cannot be loaded safely.
        TransientError, EnvironmentLacks: a model behind an API could not be asked.
        ValueError: there are further checkpoints to try, and no baselines to beat.
    """
    contest = open_contest(list(read_lines(train, Example)), holdout, holdout_sha256, task, counter)
    description = f"fine-tuned ({how}), {'system message' if task.system else 'no system message'}, no demonstrations"

    def ask(opened: Open, folder: Path) -> Evaluation:
        with opened() as answerer:
            return evaluate(NAME, description, lambda example: with_system(example.prompt, task.system), contest, answerer, folder, report)

    candidates = candidates[: gate.looks if gate else 1]
    if gate is None or len(candidates) == 1:
        return {NAME: figures(ask(candidates[0], out))}
    if baselines is None:
        raise ValueError(f"{len(candidates)} checkpoints are to be tried, and there are no baselines for them to beat; pass baselines")
    return _try_in_turn(candidates, ask, baselines, task, gate, seed, out)


def _try_in_turn(
    candidates: Sequence[Open],
    ask: Callable[[Open, Path], Evaluation],
    baselines: Mapping[str, Sequence[Prediction]],
    task: Task,
    gate: Gate,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Put the files of the first candidate that would be promoted into ``out``, or else those of the first of all; return its figures."""
    aside = out / ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # what a killed call left
    folders = [aside / str(number) for number in range(1, len(candidates) + 1)]
    evaluations: list[Evaluation] = []

    def answer(opened: Open, folder: Path) -> list[Prediction]:
        folder.mkdir(parents=True)
        evaluations.append(ask(opened, folder))
        return list(read_lines(folder / f"{NAME}.predictions.jsonl", Prediction))

    contenders = [partial(answer, opened, folder) for opened, folder in zip(candidates, folders, strict=True)]
    decisions = look_in_turn(contenders, baselines, task, gate, seed)
    taken = len(decisions) - 1 if decisions[-1].verdict == "promote" else 0
    shutil.copytree(folders[taken], out, dirs_exist_ok=True)
    shutil.rmtree(aside)
    shares = alpha_by_look(gate.alpha, len(candidates))
    looks = [
        {**decision.model_dump(mode="json", include=SHOWN), "share": share} for decision, share in zip(decisions, shares, strict=False)
    ]
    (out / "looks.json").write_text(json.dumps({"planned": len(candidates), "looks": looks}, indent=1) + "\n", encoding="utf-8")
    return {NAME: figures(evaluations[taken]), "look": taken + 1, "alpha": shares[taken]}
