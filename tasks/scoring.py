"""Score the candidate on the holdout that the baselines were scored on, and let the gate decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from prooftune.spec import Gate, Method, RunSpec, Store, Task
from prooftune.types import Decision, Evaluation, ModelRef, Prediction, StageOutput
from tasks.artifacts import show_markdown, show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage

EVALUATION, PREDICTIONS = ".evaluation.json", ".predictions.jsonl"


@task(**policy("evaluate", 1, 12 * 60, "gpu"))
def evaluate(store: Store, options: Task, method: Method, model: ModelRef, splits: StageOutput, trained: StageOutput) -> StageOutput:
    """Score the candidate on the sealed holdout; hands on its predictions and evaluation."""
    from prooftune.evaluation.candidate import evaluate_candidate

    stage = Stage(store)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    weights = stage.folder(trained, "model" if method.kind == "full" else "adapter")
    seal, base, trust = str(splits.figures["holdout_sha256"]), local_folder(model).path, model.trust_remote_code
    progress = report_to_ui("evaluate")
    output = stage.perform(
        lambda out: evaluate_candidate(
            train, holdout, seal, base, weights, options, out, progress, kind=method.kind, trust_remote_code=trust
        )
    )
    show_evaluations("evaluate", stage, output)
    return output


@task(**policy("advise", version=1, timeout_minutes=5))
def advise(store: Store, spec: RunSpec, splits: StageOutput, baselines: StageOutput) -> StageOutput:
    """Say whether training is worth it at all; hands on ``decision.json`` where it is not."""
    from prooftune.evaluation.gate import worth_training

    stage = Stage(store)
    counts = splits.figures["counts"]
    decision = worth_training(counts["train"], counts["holdout"], read_evaluations(stage, baselines), spec)
    output = stage.perform(lambda out: write_decision(decision, out))
    show_markdown(decision_text(decision) if decision else "Training is worth a try.", key="advise", description="Is training worth it?")
    return output


@task(**policy("gate", version=1, timeout_minutes=30))
def gate(store: Store, options: Task, rules: Gate, seed: int, baselines: StageOutput, candidate: StageOutput) -> StageOutput:
    """Decide on the paired evidence; hands on ``decision.json``."""
    from prooftune.evaluation.gate import decide

    stage = Stage(store)
    rungs = {
        name.removesuffix(PREDICTIONS): read_predictions(stage, baselines, name)
        for name in baselines.artifacts
        if name.endswith(PREDICTIONS)
    }
    answers = read_predictions(stage, candidate, f"candidate{PREDICTIONS}")
    output = stage.perform(lambda out: write_decision(decide(rungs, answers, options, rules, seed), out))
    show_markdown(decision_text(Decision.model_validate(output.figures["decision"])), key="verdict", description="The gate's decision")
    return output


def read_evaluations(stage: Stage, output: StageOutput) -> tuple[Evaluation, ...]:
    """Return the evaluations that a stage handed on, in its order."""
    names = [name for name in output.artifacts if name.endswith(EVALUATION)]
    return tuple(Evaluation.model_validate_json(stage.path(output, name).read_bytes()) for name in names)


def read_predictions(stage: Stage, output: StageOutput, name: str) -> list[Prediction]:
    """Return a contestant's answers, in holdout order."""
    from prooftune.data.lines import read_lines

    return list(read_lines(stage.path(output, name), Prediction))


def write_decision(decision: Decision | None, out: Path) -> dict[str, Any]:
    """Write ``decision.json`` where there is a decision; the figures carry it too, since the flow branches on it."""
    if decision is None:
        return {"decision": None}
    (out / "decision.json").write_text(decision.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return {"decision": decision.model_dump(mode="json")}


def decision_text(decision: Decision) -> str:
    """Return the verdict and its reasons as Markdown."""
    return f"# {decision.verdict}\n\n" + "\n".join(f"- {reason}" for reason in decision.reasons)


def show_evaluations(key: str, stage: Stage, output: StageOutput) -> None:
    """Show a table of contestants in the UI."""
    rows = []
    for evaluation in read_evaluations(stage, output):
        row: dict[str, Any] = {"contestant": evaluation.name}
        for name, metric in evaluation.metrics.items():
            row[name] = f"{metric.value:.3f} [{metric.ci_low:.3f}, {metric.ci_high:.3f}] n={metric.n}"
        rows.append(row | {"answer tokens p50": evaluation.answer_tokens_p50, "latency p50 (s)": round(evaluation.latency_p50_s, 2)})
    show_table(rows, key=key, description="On the sealed holdout, with 95 % intervals")
