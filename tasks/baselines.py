"""Prompt the base model: what a candidate must beat."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Baseline, Store, Task
from prooftune.types import ModelRef, StageOutput
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.scoring import show_evaluations
from tasks.stage import Stage


@task(**policy("baselines", 1, 12 * 60, "gpu"))
def run_baselines(store: Store, options: Task, baseline: Baseline, model: ModelRef, splits: StageOutput) -> StageOutput:
    """Score each rung of the ladder on the sealed holdout; hands on its predictions, evaluation and prompt."""
    from prooftune.evaluation.baselines import run_baselines as run

    stage = Stage(store)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    seal = str(splits.figures["holdout_sha256"])
    progress, trust = report_to_ui("baselines"), model.trust_remote_code
    output = stage.perform(
        lambda out: run(train, holdout, seal, local_folder(model).path, options, baseline, out, progress, trust_remote_code=trust)
    )
    show_evaluations("baselines", stage, output)
    return output
