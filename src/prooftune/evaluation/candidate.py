"""The candidate on the same holdout that the baselines answered, under the system message it was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prooftune.data.lines import read_lines
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.gate.looks import alpha_by_look, look_in_turn
from prooftune.evaluation.scoring import evaluate, figures, open_contest
from prooftune.models.loading import Kind, load_candidate, load_tokenizer
from prooftune.spec import Gate, Task
from prooftune.training.encoding import with_system
from prooftune.types import Evaluation, Example, Prediction, Report, no_report

NAME = "candidate"
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
    model_folder: Path,
    adapter: Path,
    task: Task,
    out: Path,
    report: Report = no_report,
    *,
    kind: Kind = "lora",
    trust_remote_code: bool = False,
    further: Sequence[Path] = (),
    baselines: Mapping[str, Sequence[Prediction]] | None = None,
    gate: Gate | None = None,
    seed: int = 7,
) -> dict[str, Any]:
    """Let the candidate (``adapter`` on the base model, or the whole model of a ``full`` training) answer the holdout; return its figures.

    Writes ``candidate.predictions.jsonl`` and ``candidate.evaluation.json``. Where ``gate.looks`` allows it, the ``further`` checkpoints
    (the next best by validation loss first) are tried after a candidate that would not be promoted over ``baselines``. The files are then
    those of the one that would, or else of the first; ``looks.json`` tells of all, and the figures say ``look`` and ``alpha``.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, or a prompt does not fit into the model's context.
        ModelUnavailable: the model or adapter cannot be loaded safely.
        ValueError: there are further checkpoints to try, and no baselines to beat.
    """
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    contest = open_contest(list(read_lines(train, Example)), holdout, holdout_sha256, task, tokenizer)
    description = f"fine-tuned ({kind}), {'system message' if task.system else 'no system message'}, no demonstrations"

    def ask(weights: Path, folder: Path) -> Evaluation:
        answerer = LocalAnswerer(load_candidate(model_folder, weights, kind=kind, trust_remote_code=trust_remote_code), tokenizer)
        return evaluate(NAME, description, lambda example: with_system(example.prompt, task.system), contest, answerer, folder, report)

    candidates = [adapter, *further][: gate.looks if gate else 1]
    if gate is None or len(candidates) == 1:
        return {NAME: figures(ask(adapter, out))}
    if baselines is None:
        raise ValueError(f"{len(candidates)} checkpoints are to be tried, and there are no baselines for them to beat; pass baselines")
    return _try_in_turn(candidates, ask, baselines, task, gate, seed, out)


def _try_in_turn(
    candidates: Sequence[Path],
    ask: Callable[[Path, Path], Evaluation],
    baselines: Mapping[str, Sequence[Prediction]],
    task: Task,
    gate: Gate,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Put the files of the first candidate that would be promoted into ``out``, or else those of the first of all; return its figures."""
    with TemporaryDirectory(dir=out) as aside:
        folders = [Path(aside) / str(number) for number in range(1, len(candidates) + 1)]
        evaluations: list[Evaluation] = []

        def answer(weights: Path, folder: Path) -> list[Prediction]:
            folder.mkdir()
            evaluations.append(ask(weights, folder))
            return list(read_lines(folder / f"{NAME}.predictions.jsonl", Prediction))

        contenders = [partial(answer, weights, folder) for weights, folder in zip(candidates, folders, strict=True)]
        decisions = look_in_turn(contenders, baselines, task, gate, seed)
        taken = len(decisions) - 1 if decisions[-1].verdict == "promote" else 0
        shutil.copytree(folders[taken], out, dirs_exist_ok=True)
    shares = alpha_by_look(gate.alpha, len(candidates))
    looks = [
        {**decision.model_dump(mode="json", include=SHOWN), "share": share} for decision, share in zip(decisions, shares, strict=False)
    ]
    (out / "looks.json").write_text(json.dumps({"planned": len(candidates), "looks": looks}, indent=1) + "\n", encoding="utf-8")
    return {NAME: figures(evaluations[taken]), "look": taken + 1, "alpha": shares[taken]}
