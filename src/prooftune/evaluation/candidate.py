"""The candidate on the same holdout that the baselines answered, under the system message it was trained with."""

from __future__ import annotations

from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.evaluation.scoring import evaluate, figures, open_contest
from prooftune.models.loading import Kind, load_candidate, load_tokenizer
from prooftune.spec import Task
from prooftune.training.encoding import with_system
from prooftune.types import Example, Report, no_report

NAME = "candidate"


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
) -> dict[str, object]:
    """Let the candidate (``adapter`` on the base model, or the whole model of a ``full`` training) answer the holdout; return its figures.

    Writes ``candidate.predictions.jsonl`` and ``candidate.evaluation.json``.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, or a prompt does not fit into the model's context.
        ModelUnavailable: the model or adapter cannot be loaded safely.
    """
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    contest = open_contest(list(read_lines(train, Example)), holdout, holdout_sha256, task, tokenizer)
    model = load_candidate(model_folder, adapter, kind=kind, trust_remote_code=trust_remote_code)
    description = f"fine-tuned ({kind}), {'system message' if task.system else 'no system message'}, no demonstrations"
    evaluation = evaluate(
        NAME, description, lambda example: with_system(example.prompt, task.system), contest, model, tokenizer, out, report
    )
    return {NAME: figures(evaluation)}
