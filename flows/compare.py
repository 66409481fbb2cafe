"""One spec on several backends: the same sealed holdout, the same prompts, one paired table."""

from __future__ import annotations

from prefect import flow

from flows.finetune import finetune
from prooftune.spec import RunSpec
from prooftune.types import RunResult, RunWaiting, StageOutput
from tasks.comparison import compare_results
from tasks.policies import results_in


@flow(name="compare", flow_run_name="{spec.name}: {backends}", validate_parameters=True)
def compare(spec: RunSpec, backends: tuple[str, ...]) -> StageOutput | RunWaiting:
    """Run the spec on each backend and compare the candidates; a backend that waits lets the comparison wait."""
    results = {name: finetune(spec.on_backend(name)) for name in backends}
    runs = {name: result.run_id for name, result in results.items() if isinstance(result, RunResult)}
    if waiting := [result for result in results.values() if isinstance(result, RunWaiting)]:
        return waiting[0]
    with results_in(spec.store):
        return compare_results(spec.store, spec.name, runs)
