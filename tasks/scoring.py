"""Score the candidate on the holdout that the baselines were scored on."""

from __future__ import annotations

from typing import Any

from prefect import task

from prooftune.spec import Gate, Method, Store, Task
from prooftune.types import Evaluation, ModelRef, Prediction, StageOutput
from tasks.artifacts import show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage

EVALUATION, PREDICTIONS = ".evaluation.json", ".predictions.jsonl"


@task(**policy("evaluate", 3, 12 * 60, "gpu"))
def evaluate(
    store: Store,
    options: Task,
    method: Method,
    looks: Gate | None,
    seed: int,
    model: ModelRef,
    splits: StageOutput,
    trained: StageOutput,
    baselines: StageOutput | None,
) -> StageOutput:
    """Score the candidate on the sealed holdout; hands on its predictions and evaluation.

    ``looks`` and ``baselines`` are given where more than one checkpoint may be tried; ``figures["weights"]`` names the one that was taken.
    """
    from prooftune.evaluation.candidate import evaluate_candidate

    stage = Stage(store)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    folders = ["model" if method.kind == "full" else "adapter"]
    if looks is not None:
        folders += [f"further/{step}" for step in trained.figures["further_steps"]]
    weights = [stage.folder(trained, folder) for folder in folders]
    rungs = read_rungs(stage, baselines) if baselines is not None else None

    def work(out: Any) -> dict[str, Any]:
        figures = evaluate_candidate(
            train,
            holdout,
            str(splits.figures["holdout_sha256"]),
            local_folder(model).path,
            weights[0],
            options,
            out,
            report_to_ui("evaluate"),
            kind=method.kind,
            trust_remote_code=model.trust_remote_code,
            further=weights[1:],
            baselines=rungs,
            gate=looks,
            seed=seed,
        )
        return {**figures, "weights": folders[int(figures.get("look", 1)) - 1]}

    output = stage.perform(work)
    show_evaluations("evaluate", stage, output)
    return output


def read_evaluations(stage: Stage, output: StageOutput) -> tuple[Evaluation, ...]:
    """Return the evaluations that a stage handed on, rungs in the order of the ladder."""
    return tuple(
        Evaluation.model_validate_json(stage.path(output, f"{name}{EVALUATION}").read_bytes()) for name in contestants(output, EVALUATION)
    )


def contestants(output: StageOutput, suffix: str) -> list[str]:
    """Return whose files a stage handed on, rungs in the order of the ladder: of two that are equally good the earlier one counts."""
    names = [name.removesuffix(suffix) for name in output.artifacts if name.endswith(suffix) and "/" not in name]
    ladder = list(output.figures)  # a rung's figures stand where the rung stood
    return sorted(names, key=lambda name: ladder.index(name) if name in ladder else len(ladder))


def read_predictions(stage: Stage, output: StageOutput, name: str) -> list[Prediction]:
    """Return a contestant's answers, in holdout order."""
    from prooftune.data.lines import read_lines

    return list(read_lines(stage.path(output, name), Prediction))


def read_rungs(stage: Stage, baselines: StageOutput) -> dict[str, list[Prediction]]:
    """Return each rung's answers."""
    return {name: read_predictions(stage, baselines, f"{name}{PREDICTIONS}") for name in contestants(baselines, PREDICTIONS)}


def best_rung(stage: Stage, baselines: StageOutput, metric: str) -> str:
    """Return the rung with the best value of the metric: the one that the candidate must beat."""
    return max(read_evaluations(stage, baselines), key=lambda evaluation: evaluation.metrics[metric].value).name


def show_evaluations(key: str, stage: Stage, output: StageOutput) -> None:
    """Show a table of contestants in the UI."""
    rows = []
    for evaluation in read_evaluations(stage, output):
        row: dict[str, Any] = {"contestant": evaluation.name}
        for name, metric in evaluation.metrics.items():
            row[name] = f"{metric.value:.3f} [{metric.ci_low:.3f}, {metric.ci_high:.3f}] n={metric.n}"
        rows.append(row | {"answer tokens p50": evaluation.answer_tokens_p50, "latency p50 (s)": round(evaluation.latency_p50_s, 2)})
    show_table(rows, key=key, description="On the sealed holdout, with 95 % intervals")
