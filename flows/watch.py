"""The sensors as flows: each looks once, tells the Prefect server what is worth a retraining, and ends.

They are level-triggered: while something holds it is told at each look, until its retraining has ended or is under way. So an event that
was lost, or met a server that was down, costs one interval. Which event starts a training is decided in the retraining.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from prooftune.spec import RunSpec
from tasks.watching import asked_again, looked, tell


@flow(name="watch-data", flow_run_name="{spec.name}: look for new data", validate_parameters=True)
def watch_data(spec: RunSpec) -> State[Any]:
    """Look for valid examples that the champion was not made from, and for requests whose retraining has not ended."""
    return tell(spec, (looked(spec, "data"), looked(spec, "request")))


@flow(name="watch-quality", flow_run_name="{spec.name}: look at quality and inputs", validate_parameters=True)
def watch_quality(spec: RunSpec) -> State[Any]:
    """Look whether the champion does worse than it was promoted for, and whether production's prompts have drifted."""
    return tell(spec, (looked(spec, "quality"), looked(spec, "drift")))


@flow(name="watch-models", flow_run_name="{spec.name}: look at the base model's last day", validate_parameters=True)
def watch_models(spec: RunSpec) -> State[Any]:
    """Look whether the champion's base model is shut down soon."""
    return tell(spec, (looked(spec, "sunset"),))


@flow(name="evaluate-champion", flow_run_name="{spec.name}: ask the holdout again", validate_parameters=True)
def evaluate_champion(spec: RunSpec) -> State[Any]:
    """Ask the champion its sealed holdout again, and tell where it has dropped."""
    if asked_again(spec) is None:
        return Completed(message=f"{spec.name} has no champion yet")
    return tell(spec, (looked(spec, "quality"),))
