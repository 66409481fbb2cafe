"""The main job: from a spec to a proven verdict."""

from __future__ import annotations

from typing import Any

from prefect import flow, tags

from flows.promotion import promotion
from prooftune.errors import JobFailed
from prooftune.spec import RunSpec
from prooftune.storage.objects import open_store
from prooftune.storage.registry_approval import waits_for_approval
from prooftune.types import Decision, FileRef, ModelRef, RunResult, RunWaiting, StageOutput
from tasks.advice import advise
from tasks.approval import ask_person
from tasks.baselines import run_baselines
from tasks.beginning import Base, Before, begin
from tasks.evidence import count_costs, find_champion, judge, measure_forgetting, meet_champion
from tasks.formatting import format_splits
from tasks.gate import gate
from tasks.ingest import ingest
from tasks.learning import analyse_failures, learn_on_share, learning_curve
from tasks.names import title_of_run
from tasks.policies import on_gpu, record_of, results_in
from tasks.preflight import preflight
from tasks.reporting import report
from tasks.result import lineage_of, run_facts, run_id_of, run_result
from tasks.scoring import evaluate
from tasks.spending import estimate_spend, hold_budget, settle_failed, settle_spend
from tasks.splitting import split
from tasks.submission import Probed, collect_job, require_tunable, submit_job, waiting_run
from tasks.tokens import count_tokens
from tasks.training import train, wait_on_cluster
from tasks.upload import register, upload
from tasks.validation import validate
from tasks.verdict import begin_story, tell_verdict


@flow(name="finetune", flow_run_name=title_of_run, validate_parameters=True)
def finetune(spec: RunSpec) -> RunResult | RunWaiting:
    """Fine-tune only when it pays, and prove it: end in promote, keep_baseline, inconclusive or do_not_fine_tune."""
    return carry_through(spec)


@flow(name="finish", flow_run_name=title_of_run, validate_parameters=True)
def finish(spec: RunSpec, source: str, run_key: str) -> RunResult | RunWaiting:
    """Go on with the run ``run_key``, which waited for its job; ``source`` is the fingerprint of the data that it had read."""
    return carry_through(spec, Before(source, run_key))


def carry_through(spec: RunSpec, before: Before | None = None) -> RunResult | RunWaiting:
    """Run the graph from the source to the verdict; what is done already is found done."""
    data, task, baseline, method, store = spec.data, spec.task, spec.baseline, spec.backend.method, spec.store
    begin_story(spec)
    with results_in(store):
        probed, model, base, prompted, larger, embedding, source, files, run_key = begin(spec, before)

        ingested = ingest(store, data.source, source)
        validated = validate(store, data, ingested, files.get("old"))
        splits = split(store, data.split, validated, files.get("old") or files.get("start_from"))
        formatted = format_splits(store, task.of_training, splits)
        tokens = count_tokens(store, task.of_training, None if probed else method.max_length, base, splits)
        checked = preflight(spec, files, base, splits, validated)
        outputs: tuple[StageOutput, ...] = (ingested, validated, splits, formatted, tokens, checked)
        if probed:
            require_tunable(spec, probed.capability, splits)
            estimate = estimate_spend(spec, files["prices"], validated, splits)
            outputs += ask_person(spec, run_key, hold_budget(spec, run_key, estimate))
        if undecided(outputs):
            baselines = on_gpu(run_baselines, here=probed is None)(
                store, task.of_answers, baseline.of_answers, prompted, larger, embedding, files.get("documents"), splits
            )
            outputs += (baselines, advise(spec, files["prices"], validated, tokens, splits, baselines))
        if undecided(outputs):
            if probed:
                trained = train_at_provider(spec, run_key, source, probed, outputs)
            else:
                made_of = (model, splits, checked, files.get("start_from"))
                trained = train_ourselves(spec, run_key, source, made_of, again=before is None)
            if isinstance(trained, RunWaiting):
                return trained
            outputs += weigh(spec, run_key, base, embedding, files, outputs, trained)

        decision = Decision.model_validate(outputs[-1].figures["decision"])
        if probed:
            outputs += (settle_spend(spec, run_key, outputs),)
        run_id = run_id_of(spec, run_key, outputs)
        made_from = lineage_of(spec, source, files, model, outputs, probed.capability if probed else None)
        outputs += (report(spec, run_id, model, made_from, outputs),)
        facts = run_facts(spec, run_id, made_from, decision, outputs)
        uploaded = upload(spec, run_id, facts, outputs)
        register(spec, run_id, uploaded)
        if spec.gate.approve_promotion and waits_for_approval(open_store(spec.store), spec.name, run_id):
            promotion(spec.store, run_id, spec.gate.approve_within_hours)
        return tell_verdict(spec, run_result(spec, run_id))


def undecided(outputs: tuple[StageOutput, ...]) -> bool:
    """Return whether no stage so far ended the run in ``do_not_fine_tune``."""
    return not any(output.figures.get("decision") for output in outputs)


def train_at_provider(
    spec: RunSpec, run_key: str, source: str, probed: Probed, outputs: tuple[StageOutput, ...]
) -> StageOutput | RunWaiting:
    """See to it that there is one job, wait for it, and collect what it left; a job that takes longer than the run may hold on is left."""
    done = {output.stage: output for output in outputs}
    with tags(f"managed:{spec.backend.provider}"):  # queues where deployments/limits.yaml says how many jobs the account may have
        submitted = submit_job(spec, run_key, float(done["estimate"].figures["usd"]), done["split"])
    if not submitted.ended:
        return waiting_run(spec, run_key, source, submitted)
    try:
        return collect_job(spec, probed.capability, submitted, done["split"])
    except JobFailed:
        settle_failed(spec, run_key, submitted.key, outputs)
        raise


def train_ourselves(spec: RunSpec, run_key: str, source: str, made_of: tuple[Any, ...], *, again: bool) -> StageOutput | RunWaiting:
    """Train on this machine, or in a job of the Ray cluster; one that takes longer than the run may hold on is left, as at a provider."""
    how = (spec.store, spec.task.of_training, spec.backend.method, spec.tracking, spec.gate.looks, spec.cluster, *made_of)
    if spec.cluster is None:
        return on_gpu(train, here=True)(*how)
    if spec.provider.hold_minutes is not None:
        submitted = wait_on_cluster(*how[:8], record=record_of(train, *how), again=again)
        if not submitted.ended:
            return waiting_run(spec, run_key, source, submitted)
    return train(*how)


def weigh(
    spec: RunSpec,
    run_key: str,
    base: Base,
    embedding: ModelRef | None,
    files: dict[str, FileRef],
    outputs: tuple[StageOutput, ...],
    trained: StageOutput,
) -> tuple[StageOutput, ...]:
    """Gather the evidence on the candidate; the gate's decision is the last output."""
    task, method, store, seed = spec.task.of_answers, spec.backend.method, spec.store, spec.data.split.seed
    done = {output.stage: output for output in outputs}
    splits, checked, baselines = done["split"], done["preflight"], done["baselines"]
    looks = (spec.gate, baselines) if spec.gate.looks > 1 else (None, None)
    here = isinstance(base, ModelRef)
    candidate = on_gpu(evaluate, here=here)(store, task, method, looks[0], seed, base, splits, trained, looks[1])

    champion = find_champion(store, spec.name, run_key, (splits, checked, baselines, trained, candidate))
    weighed = [
        on_gpu(meet_champion, here=here)(store, spec.of_contest, champion, base, splits, trained, candidate),
        count_costs(spec, files["prices"], baselines, trained, candidate, done.get("estimate")),
    ]
    if spec.general.measures:
        suite = (spec.general, files.get("lm_eval_folder"))
        weighed.append(on_gpu(measure_forgetting, here=here)(store, *suite, method, base, trained, candidate))
    if spec.judge.model is not None:
        weighed.append(judge(store, spec.judge.of_verdicts, task, files.get("human_labels"), files["prices"], baselines, candidate))

    next_time = [analyse_failures(store, task, embedding, seed, splits, candidate)]
    if spec.learning_curve.shares and isinstance(base, ModelRef):
        learn = on_gpu(learn_on_share, here=True)
        points = tuple(learn(store, task, method, base, share, seed, splits) for share in spec.learning_curve.shares)
        next_time.append(on_gpu(learning_curve, here=True)(store, task, method, base, seed, splits, points, trained))
    decided = gate(spec, splits, baselines, candidate, tuple(weighed))
    return (trained, candidate, *weighed, *next_time, decided)
