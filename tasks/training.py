"""Train the candidate on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import task

from prooftune.spec import Cluster, Method, Store, Task, Tracking
from prooftune.types import ModelRef, Progress, Report, StageOutput
from tasks.artifacts import show_markdown
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage


@task(**policy("train", 2, 7 * 24 * 60, "gpu"))
def train(
    store: Store,
    options: Task,
    method: Method,
    tracking: Tracking,
    keep: int,
    cluster: Cluster | None,
    model: ModelRef,
    splits: StageOutput,
    preflight: StageOutput,
) -> StageOutput:
    """Train by the spec's method; hands on ``adapter/`` (``model/`` for ``full``) and ``log.jsonl``.

    ``keep`` checkpoints are handed on, the further ones as ``further/STEP/``. A killed training goes on from its last whole checkpoint.
    ``cluster`` is the Ray cluster that it runs on, and None this machine: the result is the same.
    """
    stage = Stage(store)
    examples, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    base, progress = local_folder(model).path, with_live_loss(report_to_ui("train"))
    run_training = training_here if cluster is None else training_on(cluster, store, stage.key, model)

    output = stage.perform(
        lambda out: run_training(
            examples,
            validation,
            base,
            options,
            method,
            out,
            model_name=model.name,
            trust_remote_code=model.trust_remote_code,
            tracking=tracking,
            report=progress,
            keep=keep,
        ),
        resumable=True,
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in output.figures.items())
    show_markdown(f"Training\n\n| figure | value |\n|---|---|\n{rows}", key="train", description="How training went")
    return output


def training_here(*inputs: Any, **options: Any) -> dict[str, object]:
    """Train on this machine."""
    from prooftune.training.sft import train as train_here

    return train_here(*inputs, **options)


def training_on(cluster: Cluster, store: Store, key: str, model: ModelRef) -> Callable[..., dict[str, object]]:
    """Return the same training as a job of a Ray cluster."""
    from prooftune.providers.ray import train_on_ray

    return partial(
        train_on_ray,
        address=cluster.address,
        store=store,
        key=key,
        model_revision=model.revision or None,
        cpus=cluster.cpus,
        gpus=cluster.gpus,
    )


def with_live_loss(report: Report) -> Report:
    """Show the loss so far in the UI whenever there is a new validation loss."""
    lines: list[str] = []
    shown = ""

    def live(progress: Progress) -> None:
        nonlocal shown
        report(progress)
        validation = progress.text.partition("validation ")[2]
        if not validation or validation == shown:
            return
        shown = validation
        lines.append(f"| {progress.done} | {progress.text} |")
        table = "\n".join(lines)
        text = f"Loss so far, of {progress.total} steps\n\n| step | loss |\n|---|---|\n{table}"
        show_markdown(text, key="live-loss", description="While it trains")

    return live
