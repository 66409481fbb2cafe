"""What to do next: whether more examples would help, and which ones."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Method, Store, Task
from prooftune.types import ModelRef, StageOutput
from tasks.artifacts import show_figures, show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage


@task(**policy("learn", 1, 7 * 24 * 60))
def learn_on_share(
    store: Store, options: Task, method: Method, model: ModelRef, share: float, seed: int, splits: StageOutput
) -> StageOutput:
    """Train on a share of the training split and score the validation split; hands on ``point.json``."""
    from prooftune.evaluation.learning.learning_curve import train_on_share

    stage = Stage(store)
    train, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    output = stage.perform(
        lambda out: train_on_share(
            train,
            validation,
            local_folder(model).path,
            options,
            method,
            share,
            seed,
            out,
            report_to_ui("learn"),
            model_name=model.name,
            trust_remote_code=model.trust_remote_code,
        ),
        resumable=True,
    )
    show_figures(output.figures, key=f"learn-{share * 100:.0f}-percent", description=f"What {share:.0%} of the training split teaches.")
    return output


@task(**policy("learning_curve", 1, 60))
def learning_curve(
    store: Store,
    options: Task,
    method: Method,
    model: ModelRef,
    seed: int,
    splits: StageOutput,
    points: tuple[StageOutput, ...],
    trained: StageOutput,
) -> StageOutput:
    """Fit the losses of the shares and of the candidate; hands on ``learning_curve.json``."""
    from prooftune.evaluation.learning.learning_curve import write_curve

    stage = Stage(store)
    train, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    known = [stage.path(point, "point.json") for point in points]
    weights = stage.folder(trained, "model" if method.kind == "full" else "adapter")
    output = stage.perform(
        lambda out: write_curve(
            known,
            train,
            validation,
            local_folder(model).path,
            weights,
            options,
            float(trained.figures["validation_loss"]),
            seed,
            out,
            kind=method.kind,
            trust_remote_code=model.trust_remote_code,
        )
    )
    show_figures(output.figures, key="learning-curve", description="Whether more examples would help, from trainings on shares of them.")
    return output


@task(**policy("failures", version=2, timeout_minutes=60))
def analyse_failures(
    store: Store, options: Task, embedding: ModelRef | None, seed: int, splits: StageOutput, candidate: StageOutput
) -> StageOutput:
    """Cluster the candidate's failures and name what they share; hands on ``failures.json`` and ``labelling.jsonl``."""
    from prooftune.evaluation.learning.failures import analyse_failures as analyse

    stage = Stage(store)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    answers = stage.path(candidate, "candidate.predictions.jsonl")
    folder = local_folder(embedding).path if embedding else None
    output = stage.perform(lambda out: analyse(train, holdout, answers, options, out, embedding_folder=folder, seed=seed))
    groups = output.figures["clusters"]
    shared = "What the candidate's failures share, and what would teach it better."
    show_table(groups, key="failures", description=shared if groups else "There is no group of failures that share anything.")
    return output
