"""Takes down, on a schedule, what dead runs left at managed providers."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.jobs import sweep
from prooftune.spec import Store
from tasks.artifacts import show_table


@flow(name="sweep-deployments", flow_run_name="take down what dead runs left at providers")
def sweep_deployments(store: Store, remove: bool = True) -> State[Any]:
    """Find deployments that no run uses any more and take them down; Failed where one may go on costing money."""
    found = sweep(remove, store.uri, store.endpoint_url)
    deployments = found["deployments"]
    if deployments:
        show_table(deployments, key="sweep", description="Deployments of ours at managed providers")
    removed = sum(one["removed"] for one in deployments)
    troubles = [*found["not_asked"], *(f"{one['name']}: {one['failed']}" for one in deployments if one["failed"])]
    told = f"{len(deployments)} deployments found, {removed} taken down"
    get_run_logger().info("%s: %s", found["store"], told)
    return Failed(message=f"{told}; {'; '.join(troubles)}") if troubles else Completed(message=told)
