"""What the gate weighs besides the answers to the holdout: forgetting, the judge's opinion, the champion in use, the money."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from prooftune.spec import General, Method, RunSpec, Store
from prooftune.types import ModelRef, StageOutput
from tasks.artifacts import show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.scoring import best_rung, read_evaluations, read_predictions
from tasks.stage import Stage


@task(**policy("forgetting", 1, 12 * 60, "gpu"))
def measure_forgetting(
    store: Store, options: General, method: Method, model: ModelRef, trained: StageOutput, candidate: StageOutput
) -> StageOutput:
    """Put the general suite to the base model and to the candidate; hands on ``forgetting.json``."""
    from prooftune.evaluation.general import measure_forgetting as measure

    stage = Stage(store)
    weights = stage.folder(trained, str(candidate.figures["weights"]))
    output = stage.perform(
        lambda out: measure(
            local_folder(model).path,
            weights,
            options,
            out,
            report_to_ui("forgetting"),
            kind=method.kind,
            trust_remote_code=model.trust_remote_code,
        )
    )
    show_table(output.figures["parts"], key="forgetting", description="The general suite before and after tuning")
    return output


@task(**policy("judge", 1, 48 * 60, "managed"))
def judge(spec: RunSpec, labels: str | None, prices: str, baselines: StageOutput, candidate: StageOutput) -> StageOutput:
    """Let a language model compare the candidate's answers with the best baseline's; hands on ``judge.json`` and ``judge.jsonl``.

    ``labels`` and ``prices`` are digests of the human labels and of the price list. After a kill only what is missing is asked for.
    """
    from prooftune.economics.prices import price_judge
    from prooftune.evaluation.judge import judge_pairs

    stage = Stage(spec.store)
    best = best_rung(stage, baselines, spec.task.metric)
    baseline = read_predictions(stage, baselines, f"{best}.predictions.jsonl")
    answers = read_predictions(stage, candidate, "candidate.predictions.jsonl")
    human = Path(spec.judge.human_labels) if labels and spec.judge.human_labels else None

    def work(out: Path) -> dict[str, Any]:
        judge_pairs(spec.judge, spec.task, best, baseline, answers, out, report_to_ui("judge"), human_labels=human)
        return price_judge(spec, out / "judge.json")

    output = stage.perform(work, resumable=True)
    show_table([output.figures], key="judge", description="The judge's verdicts, each pair in both orders")
    return output


@task(**(policy("find_champion", version=1, timeout_minutes=10) | {"cache_policy": NO_CACHE, "persist_result": False}))
def find_champion(store: Store, name: str, trained: StageOutput) -> str | None:
    """Return the run that was the champion before this candidate. Never cached: the registry changes."""
    from prooftune.storage.objects import open_store
    from prooftune.storage.registry import champion_before

    weights = {ref.sha256 for path, ref in trained.artifacts.items() if path.endswith(".safetensors")}
    return champion_before(open_store(store), name, weights)


@task(**policy("champion", 1, 12 * 60, "gpu"))
def meet_champion(
    spec: RunSpec, champion: str | None, model: ModelRef, splits: StageOutput, trained: StageOutput, candidate: StageOutput
) -> StageOutput:
    """Compare the candidate with the champion on the champion's holdout and on the new one; hands on ``champion.json``."""
    from prooftune.evaluation.champion import evaluate_against_champion, no_champion

    stage = Stage(spec.store)
    if champion is None:
        return stage.perform(no_champion)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    answers = stage.path(candidate, "candidate.predictions.jsonl")
    weights = stage.folder(trained, str(candidate.figures["weights"]))
    return stage.perform(
        lambda out: evaluate_against_champion(
            stage.objects,
            champion,
            train,
            holdout,
            str(splits.figures["holdout_sha256"]),
            answers,
            local_folder(model).path,
            weights,
            spec,
            out,
            report_to_ui("champion"),
        )
    )


@task(**policy("costs", version=1, timeout_minutes=10))
def count_costs(spec: RunSpec, prices: str, baselines: StageOutput, trained: StageOutput, candidate: StageOutput) -> StageOutput:
    """Price every way to serve the task from measured tokens and seconds; hands on ``costs.json``.

    ``prices`` is the digest of the price list.
    """
    from prooftune.economics.costs import write_costs

    stage = Stage(spec.store)
    rungs = read_evaluations(stage, baselines)
    best = best_rung(stage, baselines, spec.task.metric)
    [tuned] = read_evaluations(stage, candidate)
    output = stage.perform(lambda out: write_costs(spec, rungs, best, tuned, trained.figures, trained.seconds, out))
    show_table(output.figures["options"], key="costs", description="What each way to serve the task costs")
    return output
