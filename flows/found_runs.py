"""Finds flow runs of ours on the Prefect server, for whoever looks after them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter

OURS = "prooftune"
RESTART = "restart-when-crashed"
"""Tags of runs that are looked after, and of those that are started again as well."""
HEARTBEAT = "prefect.flow-run.heartbeat"
PAGE = 200


class Heard(NamedTuple):
    """What a run has said."""

    last: datetime
    """When, by the clock of its host."""
    times: int


def heartbeats(client: SyncPrefectClient, run: FlowRun) -> Heard | None:
    """Return how often, and when last, a run said that it lives; None = never, so that nothing follows from its silence."""
    said = EventFilter(event=EventNameFilter(name=[HEARTBEAT]), resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]))
    page = client.read_events(filter=said, limit=1)
    return Heard(page.events[0].occurred, page.total) if page.events else None


def ours(client: SyncPrefectClient, *kinds: str, tags: Sequence[str] = (OURS,), **filters: Any) -> list[FlowRun]:
    """Return every run with these tags in a state of these kinds, but for those that are suspended; ``filters`` are more of Prefect's."""
    wanted = FlowRunFilter.model_validate({"tags": {"all_": list(tags)}, "state": {"type": {"any_": list(kinds)}}, **filters})
    found: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(found)):
        found += page
    return [run for run in found if run.state and run.state.name != "Suspended"]  # that has no process, and needs none


def unchanged(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Return whether a run is still in the state in which it was found: another look may be at work beside this one."""
    state = client.read_flow_run(run.id).state
    return state is not None and run.state is not None and state.id == run.state.id
