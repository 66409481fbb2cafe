"""Prompt the base model: what a candidate must beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from prooftune.evaluation.answers.managed import ManagedBase
from prooftune.spec import Baseline, Store, Task
from prooftune.types import FileRef, ModelRef, StageOutput
from tasks.models import answerer_of, base_of, local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.scoring import show_evaluations
from tasks.stage import Stage


@task(**policy("baselines", 3, 24 * 60))
def run_baselines(
    store: Store,
    options: Task,
    baseline: Baseline,
    model: ModelRef | ManagedBase,
    larger: ModelRef | None,
    embedding: ModelRef | None,
    documents: FileRef | None,
    splits: StageOutput,
) -> StageOutput:
    """Score each rung of the ladder on the sealed holdout; hands on its predictions, evaluation and prompts.

    ``model`` is prompted, on this machine or behind its provider's API. ``larger`` is the model of the rung larger_model where it is on
    this machine, ``documents`` what the rung rag reads. A killed ladder goes on with the rung it was at, and pays for no answer twice.
    """
    from prooftune.evaluation.ladder.baselines import run_baselines as run

    stage = Stage(store)
    train, validation, holdout = (stage.path(splits, f"{name}.jsonl") for name in ("train", "validation", "holdout"))

    def work(out: Path) -> dict[str, Any]:
        with base_of(model, stage.objects, out / "base_model.answers.jsonl") as subject:
            return run(
                train,
                validation,
                holdout,
                str(splits.figures["holdout_sha256"]),
                subject,
                options,
                baseline,
                out,
                report_to_ui("baselines"),
                larger=lambda: answerer_of(baseline.larger, larger, out),
                embedding_folder=local_folder(embedding).path if embedding else None,
                documents=Path(documents.path) if documents else None,
            )

    output = stage.perform(work, resumable=True)
    show_evaluations("baselines", stage, output)
    return output
