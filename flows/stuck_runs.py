"""Finds flow runs that live and do nothing: a request that never returns, a lock that nobody frees.

Prefect sends a run's heartbeats from a thread of their own, so a run that hangs goes on saying that it lives. What it no longer does is
work: it writes no line to its log, shows no progress, begins and ends no task. A worker ends the process of a run that is to be cancelled,
with SIGKILL where it has to, and nothing else on the server does; so a run that is stuck is first Cancelling, and Crashed once its
process is gone. Where no worker ends it, both may be at work for a while, and neither harms the other: see ``lost_runs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, LogFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import ArtifactSort
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter, EventOccurredFilter

from flows.found_runs import HEARTBEAT, PAGE, heartbeats, ours, unchanged

STUCK = "Stuck: "
"""How the message of a run begins whose process is ended for that reason."""
KILLED_WITHIN = timedelta(minutes=5)
"""A worker asks a process to end, and kills it 30 s later."""


def stuck(client: SyncPrefectClient, silence: timedelta) -> list[tuple[FlowRun, str]]:
    """Return the runs of deployments that say that they live, and have shown no work for so long; and how that shows."""
    found = []
    for run in ours(client, "RUNNING"):
        if run.deployment_id is None:  # no worker started it: it is a part of one that is looked at, or a person sits before it
            continue
        heard = heartbeats(client, run)
        if heard is None or run.state is None:
            continue
        # By the clock of the run's host, which its log and its heartbeats share; or by ours, if that one is ahead.
        since = min(heard.last, datetime.now(UTC)) - silence
        began = run.state.timestamp
        if began < since and not _works_or_waits(client, run, began, since) and unchanged(client, run):
            hours = silence.total_seconds() / 3600
            found.append((run, f"{STUCK}it lives, and has shown no work for more than {hours:.3g} hours. Its process is ended."))
    return found


def ended_as_stuck(client: SyncPrefectClient, since: datetime) -> list[tuple[FlowRun, str]]:
    """Return the runs that were stuck and whose process was ended since, or could not be ended; and what became of it."""
    found = []
    cancelled = ours(client, "CANCELLED", end_time={"after_": since})
    for run in [*cancelled, *ours(client, "CANCELLING")]:
        asked = max(_told_to_end(client.read_flow_run_states(run.id)), key=lambda state: state.timestamp, default=None)
        if asked is None or run.state is None or not str(asked.message).startswith(STUCK):
            continue
        if run.state.is_cancelled():
            found.append((run, str(asked.message)))
        elif datetime.now(UTC) - asked.timestamp > KILLED_WITHIN:
            found.append((run, f"{asked.message} No worker has ended it: end it on its host, if it is there still."))
    return [(run, why) for run, why in found if unchanged(client, run)]


def _told_to_end(states: Sequence[State[Any]]) -> list[State[Any]]:
    return [state for state in states if state.type == StateType.CANCELLING]


def _works_or_waits(client: SyncPrefectClient, run: FlowRun, began: datetime, since: datetime) -> bool:
    """Return whether a run, or a part of it, has shown work since then, or has waited, since it began, for a person or for a slot."""
    family = _family(client, run)
    ids = [one.id for one in family]
    asks = any(one.state is not None and one.state.is_paused() for one in family)
    return asks or any(shown(client, ids, since) for shown in (_told, _logged, _showed)) or _queued(client, ids, began)


def _family(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """Return a run and every run below it: they share its process, and the one above is silent while one below works."""
    family, above = [run], [run.id]
    while above:
        wanted = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": above}})
        below = client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)
        family, above = [*family, *below], [one.id for one in below]
    return family


def _told(client: SyncPrefectClient, ids: Sequence[UUID], since: datetime) -> bool:
    """Return whether a state of these runs or of their tasks has changed, or anything else was told of them but that they live."""
    events = EventFilter(
        occurred=EventOccurredFilter(since=since),
        event=EventNameFilter(exclude_name=[HEARTBEAT]),
        any_resource=EventAnyResourceFilter(id=[f"prefect.flow-run.{one}" for one in ids]),
    )
    return client.read_events(filter=events, limit=1).total > 0


def _logged(client: SyncPrefectClient, ids: Sequence[UUID], since: datetime) -> bool:
    lines = LogFilter.model_validate({"flow_run_id": {"any_": ids}, "timestamp": {"after_": since}})
    return bool(client.read_logs(log_filter=lines, limit=1))


def _showed(client: SyncPrefectClient, ids: Sequence[UUID], since: datetime) -> bool:
    """Return whether an artifact was made or changed: progress is one."""
    of_them = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=list(ids)))
    newest = client.read_artifacts(artifact_filter=of_them, sort=ArtifactSort.UPDATED_DESC, limit=1)
    return any(one.updated is not None and one.updated > since for one in newest)


def _queued(client: SyncPrefectClient, ids: Sequence[UUID], began: datetime) -> bool:
    """Return whether a task is Pending, as while it waits for a slot; older ones were left so by a process that was lost."""
    pending = TaskRunFilter.model_validate({"flow_run_id": {"any_": ids}, "state": {"type": {"any_": ["PENDING"]}}})
    found = client.read_task_runs(task_run_filter=pending, limit=PAGE)
    return any(one.state is not None and one.state.timestamp >= began for one in found)
