"""What the gate weighs besides the answers to the holdout: forgetting, the judge's opinion, the champion in use, the money."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from prooftune.evaluation.answers.managed import ManagedBase
from prooftune.evidence import Champion
from prooftune.spec import General, Judge, Method, RunSpec, Store, Task
from prooftune.types import FileRef, ModelRef, StageOutput
from tasks.artifacts import show_figures, show_table
from tasks.models import base_of, local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.scoring import ANSWERS, best_rung, open_tuned, read_evaluations, read_predictions, tuned_models
from tasks.stage import Stage
from tasks.upload import published


@task(**policy("forgetting", 2, 12 * 60))
def measure_forgetting(
    store: Store,
    options: General,
    tasks: FileRef | None,
    method: Method,
    model: ModelRef | ManagedBase,
    trained: StageOutput,
    candidate: StageOutput,
) -> StageOutput:
    """Put the general suite to the base model and to the candidate; hands on ``forgetting.json``.

    ``tasks`` are those of lm-eval that are the user's own. Models at a provider are asked in words, and none of their answers is paid for
    twice.
    """
    from prooftune.evaluation.general import ask_forgetting
    from prooftune.evaluation.general import measure_forgetting as measure

    stage = Stage(store)

    def work(out: Path) -> dict[str, Any]:
        report = report_to_ui("forgetting")
        if isinstance(model, ManagedBase):
            with base_of(model, stage.objects, out / f"general.base_model.{ANSWERS}") as base:
                return ask_forgetting(
                    base.answerer, lambda: open_tuned(stage, model, trained, out / f"general.candidate.{ANSWERS}"), options, out, report
                )
        return measure(
            local_folder(model).path,
            stage.folder(trained, str(candidate.figures["weights"])),
            options.model_copy(update={"lm_eval_folder": tasks.path if tasks else None}),
            out,
            report,
            kind=method.kind,
            trust_remote_code=model.trust_remote_code,
        )

    output = stage.perform(work, resumable=isinstance(model, ManagedBase))
    show_table(output.figures["parts"], key="forgetting", description="The general suite was put to the base model and to the candidate.")
    return output


@task(**policy("judge", 2, 48 * 60))
def judge(
    store: Store,
    options: Judge,
    task_options: Task,
    labels: FileRef | None,
    prices: FileRef,
    baselines: StageOutput,
    candidate: StageOutput,
) -> StageOutput:
    """Let a language model compare the candidate's answers with the best baseline's; hands on ``judge.json`` and ``judge.jsonl``.

    ``labels`` are people's. After a kill only what is missing is asked for.
    """
    from prooftune.economics.prices import price_judge
    from prooftune.evaluation.judge import judge_pairs

    stage = Stage(store)
    best = best_rung(stage, baselines, task_options.metric)
    baseline = read_predictions(stage, baselines, f"{best}.predictions.jsonl")
    answers = read_predictions(stage, candidate, "candidate.predictions.jsonl")
    human = Path(labels.path) if labels else None

    def work(out: Path) -> dict[str, Any]:
        if human is not None:
            shutil.copyfile(human, out / "human_labels.jsonl")
        judge_pairs(options, task_options, best, baseline, answers, out, report_to_ui("judge"), human_labels=human)
        return price_judge(options, prices.path, out / "judge.json")

    output = stage.perform(work, resumable=True)
    show_table([output.figures], key="judge", description="The judge compared each pair of answers in both orders.")
    return output


@task(**(policy("find_champion", version=2, timeout_minutes=60) | {"cache_policy": NO_CACHE, "persist_result": False}))
def find_champion(store: Store, name: str, run_key: str, outputs: tuple[StageOutput, ...]) -> Champion:
    """Return the champion that this candidate has to meet, and why it cannot where it cannot. Never cached: the registry changes.

    ``outputs`` are those that training and evaluation rest on, and their own: by them a repeated run is known.
    """
    from prooftune.evaluation.champion_files import opponent
    from prooftune.storage.objects import open_store
    from prooftune.storage.registry_contest import champion_to_meet

    objects = open_store(store)
    return opponent(objects, champion_to_meet(objects, name, run_key, published(outputs)))


@task(**policy("champion", 2, 12 * 60))
def meet_champion(
    store: Store,
    contest: RunSpec,
    champion: Champion,
    model: ModelRef | ManagedBase,
    splits: StageOutput,
    trained: StageOutput,
    candidate: StageOutput,
) -> StageOutput:
    """Compare the candidate with the champion on the champion's holdout and on the new one; hands on ``champion.json``."""
    from prooftune.evaluation.champion import FOLDER, evaluate_against_champion, not_compared

    stage, run_id = Stage(store), champion.run_id
    if run_id is None or champion.reason:
        output = stage.perform(lambda out: not_compared(champion, out))
        met = f"The candidate meets no champion: {champion.reason or 'none is in use'}."
        show_figures(output.figures, key="champion", description=met)
        return output
    train, validation, holdout = (stage.path(splits, f"{name}.jsonl") for name in ("train", "validation", "holdout"))
    answers = stage.path(candidate, "candidate.predictions.jsonl")

    def work(out: Path) -> dict[str, Any]:
        kept = out / FOLDER / f"candidate_old.{ANSWERS}"
        tuned = tuned_models(stage, model, contest.backend.method, trained, [str(candidate.figures["weights"])], kept)
        return evaluate_against_champion(
            stage.objects,
            run_id,
            train,
            validation,
            holdout,
            str(splits.figures["holdout_sha256"]),
            answers,
            tuned.candidates[0],
            tuned.counter,
            contest,
            out,
            report_to_ui("champion"),
        )

    output = stage.perform(work, resumable=True)
    show_figures(output.figures, key="champion", description=f"The candidate met the champion {run_id} on its holdout and on the new one.")
    return output


@task(**policy("costs", version=1, timeout_minutes=10))
def count_costs(spec: RunSpec, prices: FileRef, baselines: StageOutput, trained: StageOutput, candidate: StageOutput) -> StageOutput:
    """Price every way to serve the task from measured tokens and seconds; hands on ``costs.json``.

    ``prices`` is the price list that the spec names; it is here for the stage's key.
    """
    from prooftune.economics.costs import write_costs

    stage = Stage(spec.store)
    rungs = read_evaluations(stage, baselines)
    best = best_rung(stage, baselines, spec.task.metric)
    [tuned] = read_evaluations(stage, candidate)
    # Of a managed job the stage only collected what was left: the job's own time counts, 0 where the provider does not say.
    seconds = trained.figures.get("job_seconds", trained.seconds) or 0.0
    output = stage.perform(lambda out: write_costs(spec, rungs, best, tuned, trained.figures, seconds, out))
    show_table(
        output.figures["options"], key="costs", description="What each way to serve the task costs, from measured tokens and seconds."
    )
    return output
