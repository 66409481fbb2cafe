"""The main job: from a spec to a proven verdict."""

from __future__ import annotations

from prefect import flow

from prooftune.spec import RunSpec
from prooftune.types import Decision, FileRef, ModelRef, RunResult, StageOutput
from tasks.advice import advise
from tasks.baselines import run_baselines
from tasks.evidence import count_costs, find_champion, judge, measure_forgetting, meet_champion
from tasks.formatting import format_splits
from tasks.gate import gate
from tasks.ingest import fingerprint, fingerprint_files, ingest
from tasks.learning import analyse_failures, learn_on_share, learning_curve
from tasks.models import find_model
from tasks.policies import results_in
from tasks.preflight import preflight
from tasks.reporting import report
from tasks.result import lineage_of, run_facts, run_id_of, run_key_of, run_result
from tasks.scoring import evaluate
from tasks.splitting import split
from tasks.tokens import count_tokens
from tasks.training import train
from tasks.upload import register, upload
from tasks.validation import validate


@flow(name="finetune", flow_run_name="{spec.name}", validate_parameters=True)
def finetune(spec: RunSpec) -> RunResult:
    """Fine-tune only when it pays, and prove it: end in promote, keep_baseline, inconclusive or do_not_fine_tune."""
    data, task, baseline, method, store = spec.data, spec.task, spec.baseline, spec.backend.method, spec.store
    with results_in(store):
        model = find_model(spec.backend.model, spec.backend.revision, spec.backend.trust_remote_code)
        prompted = model if baseline.model is None else find_model(baseline.model, None, False)
        larger = None if baseline.larger_here is None else find_model(baseline.larger_here, None, False)
        embedding = None if baseline.embedding is None else find_model(baseline.embedding, None, False)
        source, files = fingerprint(data.source), fingerprint_files(spec)
        models = tuple(one for one in (model, prompted, larger, embedding) if one is not None)
        run_key = run_key_of(spec, source, files, models)

        ingested = ingest(store, data.source, source)
        validated = validate(store, data, ingested)
        splits = split(store, data.split, validated)
        formatted = format_splits(store, task.of_training, splits)
        tokens = count_tokens(store, task.of_training, method.max_length, model, splits)
        checked = preflight(spec, files, model, splits)
        baselines = run_baselines(store, task.of_answers, baseline.of_answers, prompted, larger, embedding, files.get("documents"), splits)
        advised = advise(spec, files["prices"], validated, tokens, splits, baselines)
        outputs: tuple[StageOutput, ...] = (ingested, validated, splits, formatted, tokens, checked, baselines, advised)
        if advised.figures["decision"] is None:
            outputs += train_and_weigh(spec, run_key, model, embedding, files, splits, checked, baselines)

        decision = Decision.model_validate(outputs[-1].figures["decision"])
        run_id = run_id_of(spec, run_key, outputs)
        made_from = lineage_of(spec, source, files, model, outputs)
        outputs += (report(spec, run_id, model, made_from, outputs),)
        facts = run_facts(spec, run_id, made_from, decision, outputs)
        uploaded = upload(spec, run_id, facts, outputs)
        register(spec, run_id, decision, uploaded)
        return run_result(spec, run_id)


def train_and_weigh(
    spec: RunSpec,
    run_key: str,
    model: ModelRef,
    embedding: ModelRef | None,
    files: dict[str, FileRef],
    splits: StageOutput,
    checked: StageOutput,
    baselines: StageOutput,
) -> tuple[StageOutput, ...]:
    """Train the candidate and gather the evidence on it; the gate's decision is the last output."""
    task, method, store, seed = spec.task.of_answers, spec.backend.method, spec.store, spec.data.split.seed
    trained = train(store, task.of_training, method, spec.tracking, spec.gate.looks, model, splits, checked)
    looks = (spec.gate, baselines) if spec.gate.looks > 1 else (None, None)
    candidate = evaluate(store, task, method, looks[0], seed, model, splits, trained, looks[1])

    champion = find_champion(store, spec.name, run_key, (splits, checked, baselines, trained, candidate))
    weighed = [
        meet_champion(store, spec.of_contest, champion, model, splits, trained, candidate),
        count_costs(spec, files["prices"], baselines, trained, candidate),
    ]
    if spec.general.measures:
        weighed.append(measure_forgetting(store, spec.general, files.get("lm_eval_folder"), method, model, trained, candidate))
    if spec.judge.model is not None:
        weighed.append(judge(store, spec.judge.of_verdicts, task, files.get("human_labels"), files["prices"], baselines, candidate))

    shares = spec.learning_curve.shares
    points = tuple(learn_on_share(store, task, method, model, share, seed, splits) for share in shares)
    next_time = [analyse_failures(store, task, embedding, seed, splits, candidate)]
    if points:
        next_time.append(learning_curve(store, task, method, model, seed, splits, points, trained))
    decided = gate(spec, splits, baselines, candidate, tuple(weighed))
    return (trained, candidate, *weighed, *next_time, decided)
