"""Finds flow runs whose process or worker was lost, or that hang, marks them Crashed and starts them again.

The open-source server does not look after its runs. Each of ours says every 30 s that it lives (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, set in
deployments/pools/), and this flow looks who has fallen silent. It goes by what is so, not by what was told: the server's triggers only
hasten it. They alone would not do: after a restart the server holds back for 15 minutes what happens to runs that began before, forgets
whom it was waiting for, and takes the silence of its own absence for theirs.

Finished stages are in the object store, so a run that is started again does not do them again. Should its first process live after all,
behind a broken network, both do the same work and neither harms the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Scheduled

from flows.found_runs import OURS, RESTART, heartbeats, ours, unchanged
from flows.stuck_runs import ended_as_stuck, stuck

SILENT = timedelta(seconds=75)
"""Two heartbeats are missing."""
LISTEN_S = 45.0
"""Who is silent is listened to for longer than a heartbeat takes: it may be the server that was away."""
LOOK_S = 3.0
SERVER_AWAY = re.compile(
    r"encountered an exception: (ConcurrencySlotAcquisitionError: Unable to acquire|RuntimeError: Failed to reach API|ConnectError: )"
)
"""How Prefect says that a run failed because the server could not be reached."""
GIVEN_UP = timedelta(days=1)
"""A run that crashed longer ago is a matter for people."""


@flow(name="watch-runs", flow_run_name="look for runs that are lost or stuck")
def watch_runs(max_restarts: int = 3, pending_minutes: float = 30.0, stuck_hours: float = 6.0) -> State[Any]:
    """Mark lost and stuck runs Crashed, and start runs again that crashed or met no server and carry the tag ``restart-when-crashed``.

    Args:
        max_restarts: A run that crashed more often than this is left Crashed, for a person to look at.
        pending_minutes: A worker that has not started a run after so long was lost; a GPU node that is added for it takes its time.
        stuck_hours: A run that lives and shows no work for so long hangs. What may take long shows a step, a batch of answers or a look at
            its job at least each hour, what shows nothing is ended by its timeout after two, and six leave room for a slow machine.
    """
    told: list[str] = []
    with get_client(sync_client=True) as client:
        for run, why in lost(client, timedelta(minutes=pending_minutes)):
            cancelling = run.state is not None and run.state.is_cancelling()
            client.set_flow_run_state(run.id, Cancelled(message=why) if cancelling else Crashed(message=why))
            told.append(f"{run.name}: {why}")
        for run, why in stuck(client, timedelta(hours=stuck_hours)):
            client.set_flow_run_state(run.id, Cancelling(message=why))  # its worker ends its process
            told.append(f"{run.name}: {why}")
        for run, why in ended_as_stuck(client, datetime.now(UTC) - GIVEN_UP):
            client.set_flow_run_state(run.id, Crashed(message=why), force=True)  # Cancelled is an end that Prefect keeps otherwise
            told.append(f"{run.name}: {why}")
        for run in crashed(client):
            again = restart(run, client.read_flow_run_states(run.id), max_restarts)
            if again and unchanged(client, run):
                client.set_flow_run_state(run.id, again)
                told.append(f"{run.name}: {again.message}")
    for line in told:
        get_run_logger().warning("%s", line)
    return Completed(message="; ".join(told) or "every run lives")


def lost(client: SyncPrefectClient, pending: timedelta) -> list[tuple[FlowRun, str]]:
    """Return the runs that nobody works on any more, and how that shows; takes 45 s where one is silent, no time otherwise."""
    found, silent = [], []
    now = datetime.now(UTC)
    for run in ours(client, "RUNNING", "PENDING", "CANCELLING", "PAUSED"):
        assert run.state is not None  # noqa: S101 - it was found by its state
        if run.state.is_pending():
            if now - run.state.timestamp > pending:
                found.append((run, f"Pending for {_minutes(now - run.state.timestamp)}: its worker was lost before it started."))
        elif (heard := heartbeats(client, run)) and now - heard.last > SILENT:  # one that never said that it lives cannot fall silent
            silent.append((run, heard))
    deadline = time.monotonic() + LISTEN_S
    while silent and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        # A heartbeat has the time of the run's own host, whose clock may be behind: one more counts, however old it says that it is.
        silent = [(run, heard) for run, heard in silent if heartbeats(client, run) == heard]
    why = f"No heartbeat for more than {SILENT.total_seconds() + LISTEN_S:.0f} s: its process and its worker are lost."
    return [(run, told) for run, told in [*found, *((run, why) for run, _ in silent)] if unchanged(client, run)]


def crashed(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the runs that fell less than a day ago and are to be started again; a part of another run is started with that one."""
    since = datetime.now(UTC) - GIVEN_UP
    found = ours(client, "CRASHED", "FAILED", tags=(OURS, RESTART))
    return [run for run in found if run.deployment_id and run.state and fell(run.state) and run.state.timestamp > since]


def fell(state: State[Any]) -> bool:
    """Return whether a run ended through no fault of its own: it crashed, or it failed because Prefect's own requests found no server.

    Prefect's client asks again while a server that it has reached is away; a client that is made meanwhile, as before each task, does not.
    """
    return state.is_crashed() or (state.is_failed() and SERVER_AWAY.search(state.message or "") is not None)


def restart(run: FlowRun, states: Sequence[State[Any]], max_restarts: int) -> State[Any] | None:
    """Return the state that starts a run again that fell; None = by its ``states`` it fell too often, and a person has to look."""
    crashes = sum(map(fell, states))
    if crashes > max_restarts:
        return None
    was = f"{run.state.name}: {run.state.message}" if run.state else "lost"
    return Scheduled(message=f"restart {crashes} of {max_restarts}. It was {was}")


def _minutes(time: timedelta) -> str:
    return f"{time.total_seconds() / 60:.0f} minutes"
