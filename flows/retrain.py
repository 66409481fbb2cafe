"""Retraining: a signal, a schedule or a person starts it, the champion is the reference, and only the gate promotes."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.finetune import finetune
from prooftune.economics.spending import BudgetExceeded
from prooftune.retraining.admission import Admission
from prooftune.retraining.calendar import due, jitter_of
from prooftune.retraining.composition import Composition
from prooftune.retraining.holding import holding
from prooftune.spec import Old, RunSpec
from prooftune.storage.objects import open_store
from prooftune.watching.signals import Signal
from tasks.beginning import begin
from tasks.ingest import fingerprint, ingest
from tasks.policies import results_in
from tasks.retraining import ask_to_start, begun_before, came_of, compose_data, end_retraining, ends, name_run, note_run, within_budget
from tasks.turns import wait_for_turn
from tasks.validation import validate


@flow(name="retrain", flow_run_name="{spec.name}: retraining", validate_parameters=True)
def retrain(spec: RunSpec, signal: Signal | None = None, jitter_minutes: float = 0.0) -> State[Any]:
    """Retrain on new and old data where a signal says so, once an occurrence; without a signal, the week is the occurrence.

    While another retraining of the task is under way it waits, ``AwaitingRetraining``. What is refused, has nothing new, or does not beat
    the champion ends as completed, and says so.
    """
    if flow_run.run_count <= 1:  # started again after a crash it is late already
        time.sleep(jitter_of(spec.name, jitter_minutes))
    signal = signal or due(spec.name, flow_run.scheduled_start_time)  # started again in another week, it is the same occurrence
    admission = wait_for_turn(spec, signal, ask_to_start(spec, signal))
    if admission.token is None:
        return ends(spec, admission.decision, admission.reason, admission)
    try:
        with holding(open_store(spec.store), spec.name, admission.token):
            return admitted(spec, signal, admission, admission.token)
    except BudgetExceeded as error:  # of the run, whose estimate is known by now
        return ends(spec, "over_budget", str(error), admission)


def admitted(spec: RunSpec, signal: Signal, admission: Admission, token: int) -> State[Any]:
    """Put together what is learnt from, and run it to a verdict."""
    made = begun_before(spec, signal, admission) or composed(spec, signal, admission)
    if made.nothing_new:
        end_retraining(spec, token, None)
        return ends(spec, "nothing_new", f"the champion {made.champion} knows all {made.known:,} examples", admission)
    name_run(f"{spec.name}: {made.text}")
    run_key = begin(made.spec).run_key
    if not note_run(spec, token, run_key):
        return ends(spec, "running", "this run was taken for dead, and another retraining has started in its place", admission)
    result = finetune(within_budget(spec, made, admission, run_key))
    kept = end_retraining(spec, token, result)
    return ends(spec, *came_of(made, result, kept), result)


def composed(spec: RunSpec, signal: Signal, admission: Admission) -> Composition:
    """Read and validate the source, and say what of it is new."""
    data = spec.data.model_copy(update={"old": Old()})
    with results_in(spec.store):
        ingested = ingest(spec.store, data.source, fingerprint(data.source))
        return compose_data(spec, signal, admission, validate(spec.store, data, ingested))
