"""The main job: from a spec to a proven verdict."""

from __future__ import annotations

from prefect import flow

from prooftune.spec import RunSpec
from prooftune.types import Decision, RunResult, StageOutput
from tasks.baselines import run_baselines
from tasks.formatting import format_splits
from tasks.ingest import fingerprint, ingest
from tasks.models import find_model
from tasks.policies import results_in
from tasks.preflight import preflight
from tasks.reporting import report
from tasks.result import run_facts, run_id_of, run_result
from tasks.scoring import advise, evaluate, gate
from tasks.splitting import split
from tasks.tokens import count_tokens
from tasks.training import train
from tasks.upload import register, upload
from tasks.validation import validate


@flow(name="finetune", flow_run_name="{spec.name}", validate_parameters=True)
def finetune(spec: RunSpec) -> RunResult:
    """Fine-tune only when it pays, and prove it: end in promote, keep_baseline, inconclusive or do_not_fine_tune."""
    data, task, method, store = spec.data, spec.task, spec.backend.method, spec.store
    with results_in(store):
        model = find_model(spec.backend.model, spec.backend.revision, spec.backend.trust_remote_code)
        source = fingerprint(data.source)
        ingested = ingest(store, data.source, source)
        validated = validate(store, data, ingested)
        splits = split(store, data.split, validated)
        formatted = format_splits(store, task, splits)
        tokens = count_tokens(store, task, method.max_length, model, splits)
        checked = preflight(store, task, method, model, splits)
        prompted = model if spec.baseline.model is None else find_model(spec.baseline.model, None, False)
        baselines = run_baselines(store, task, spec.baseline, prompted, splits)
        outputs: tuple[StageOutput, ...] = (ingested, validated, splits, formatted, tokens, checked, baselines)

        decided = advise(store, spec, splits, baselines)
        if decided.figures["decision"] is None:
            trained = train(store, task, method, spec.tracking, model, splits, checked)
            candidate = evaluate(store, task, method, model, splits, trained)
            decided = gate(store, task, spec.gate, data.split.seed, baselines, candidate)
            outputs = (*outputs, trained, candidate)

        decision = Decision.model_validate(decided.figures["decision"])
        outputs = (*outputs, decided)
        run_id = run_id_of(spec, source, (model, prompted), outputs)
        outputs = (*outputs, report(spec, run_id, model, outputs))
        facts = run_facts(spec, run_id, decision, outputs)
        uploaded = upload(spec, run_id, facts, outputs)
        register(spec, run_id, decision, uploaded)
        return run_result(spec, run_id)
