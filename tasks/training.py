"""Train the candidate on this machine, or on a Ray cluster of one's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prefect import task

from prooftune.report.wording import name_of
from prooftune.spec import Backend, Cluster, Method, Store, Task, Tracking
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import FileRef, ModelRef, StageOutput
from tasks.artifacts import show_figures
from tasks.live_loss import with_live_loss
from tasks.models import local_folder
from tasks.policies import errand, policy
from tasks.progress import report_to_ui
from tasks.stage import Stage
from tasks.submission import Submitted


@task(**policy("train", 2, 7 * 24 * 60))
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
    start: FileRef | None = None,
) -> StageOutput:
    """Train by the spec's method; hands on ``adapter/`` (``model/`` for ``full``) and ``log.jsonl``.

    ``keep`` checkpoints are handed on, the further ones as ``further/STEP/``. A killed training goes on from its last whole checkpoint.
    ``cluster`` is the Ray cluster that it runs on, and None this machine: the result is the same. ``start`` is the run whose weights it
    goes on from; None = it starts from the base model.
    """
    stage = Stage(store)
    examples, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    base, progress = local_folder(model).path, with_live_loss(report_to_ui("train"))
    run_training = training_on(cluster, store, stage.key, model) if cluster else training_here(stage.objects, method, model, start)

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
    show_figures(output.figures, key="train", description=f"The candidate was made by {name_of(method.kind)}, and this is how it went.")
    return output


@task(**errand("wait", 7 * 24 * 60))
def wait_on_cluster(
    store: Store,
    options: Task,
    method: Method,
    tracking: Tracking,
    keep: int,
    cluster: Cluster,
    model: ModelRef,
    splits: StageOutput,
    *,
    record: str,
    again: bool,
) -> Submitted:
    """See to it that ``train``, whose record this is, has one job on the Ray cluster, and wait for it, at most ``provider.hold_minutes``.

    Not ``again`` = a job that failed or was stopped is not started once more: a schedule would do that for ever.
    """
    from prooftune.providers.ray import id_of, run_on_ray

    objects, key = open_store(store), record.removesuffix("/record.json")
    submitted = Submitted(key=id_of(objects, key), job=id_of(objects, key), ended=True)
    if objects.exists(record):
        return submitted
    examples, validation = (objects.fetch(splits.artifacts[f"{name}.jsonl"]) for name in ("train", "validation"))
    found = run_on_ray(
        (examples, validation, model, options, method, tracking, keep),
        cluster.address,
        store,
        key,
        with_live_loss(report_to_ui("train")),
        cpus=cluster.cpus,
        gpus=cluster.gpus,
        hold_s=None if cluster.hold_minutes is None else cluster.hold_minutes * 60,
        again=again,
    )
    return submitted.model_copy(update={"ended": found is not None})


def training_here(objects: ObjectStore, method: Method, model: ModelRef, start: FileRef | None) -> Callable[..., dict[str, object]]:
    """Return the training on this machine, from where it starts."""
    from prooftune.training.sft import train as train_here
    from prooftune.training.start import start_folder

    backend = Backend(model=model.name, method=method)
    return partial(train_here, start=None if start is None else start_folder(objects, start.path, backend, model))


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
