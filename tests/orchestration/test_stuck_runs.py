"""Runs that hang while their heartbeats go on, and runs that only look as if they did, on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from fixtures_deployed import await_state, await_true, deploy_slow, worker
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Paused, Pending, Running

from flows.found_runs import HEARTBEAT, OURS, RESTART
from flows.stuck_runs import STUCK, ended_as_stuck, stuck
from prooftune.providers.tuning import Job
from tasks.listening import listeners
from tasks.submission import _telling

pytest_plugins = ["fixtures_deployed"]
pytestmark = pytest.mark.slow  # a Prefect server

SILENCE = timedelta(seconds=30)


@flow(name="hangs")
def hangs() -> None:
    """Is never run here: what is tested is what the server knows of its runs."""


@pytest.fixture(scope="module")
def deployment(client: SyncPrefectClient) -> UUID:
    """A deployment that no worker takes runs of."""
    return client.create_deployment(flow_id=client.create_flow(hangs), name=f"hangs-{uuid4().hex[:8]}")


def running(client: SyncPrefectClient, deployment: UUID) -> FlowRun:
    """Return a run that a process has begun."""
    return client.create_flow_run_from_deployment(deployment, state=Running(), tags=[OURS, RESTART])


def below(client: SyncPrefectClient, run: FlowRun, state: State[Any]) -> FlowRun:
    """Return a run that is a part of another."""
    task_run = client.create_task_run(a_task(), run.id, dynamic_key=uuid4().hex, state=state)
    return client.create_flow_run(hangs, parent_task_run_id=task_run.id, state=state, tags=[OURS, RESTART])


def a_task() -> Any:
    """Return a task that is never run here."""
    from prefect import task

    return task(lambda: None, name="part")


def tell(client: SyncPrefectClient, run: FlowRun, event: str) -> None:
    """Send an event of a run, as its process does."""
    body = {"event": event, "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}"}, "id": str(uuid4())}
    client.request("POST", "/events", json=[body | {"occurred": datetime.now(UTC).isoformat()}])


def write_line(client: SyncPrefectClient, run: FlowRun) -> None:
    """Write a line to a run's log."""
    line = {"name": "prefect.flow_runs", "level": 20, "message": "step 7", "timestamp": datetime.now(UTC).isoformat()}
    client.create_logs([line | {"flow_run_id": str(run.id)}])  # type: ignore[list-item]  # takes what JSON has


def show_progress(client: SyncPrefectClient, run: FlowRun) -> None:
    """Show progress of a run."""
    client.create_artifact(ArtifactCreate(key="train-progress", type="progress", data=7.0, flow_run_id=run.id))


def queue_a_task(client: SyncPrefectClient, run: FlowRun) -> None:
    """Let a task of a run wait for a slot."""
    client.create_task_run(a_task(), run.id, dynamic_key="queued", state=Pending())


SIGNS: dict[str, Callable[[SyncPrefectClient, FlowRun], None]] = {
    "writes a line": write_line,
    "shows progress": show_progress,
    "says something": lambda client, run: tell(client, run, "prooftune.verdict.reached"),
}


def test_who_lives_and_does_nothing_is_stuck(client: SyncPrefectClient, deployment: UUID) -> None:
    """Not a run that works, itself or in a part of a part of it, or waits for a person or a slot; nor one that never beats."""
    names = ["hangs", "waits for a slot", "has a part that works", "has a part that asks", "never beats", *SIGNS]
    runs = {name: running(client, deployment) for name in names}
    queue_a_task(client, runs["waits for a slot"])
    below(client, runs["has a part that asks"], Paused())
    works = below(client, below(client, runs["has a part that works"], Running()), Running())
    time.sleep(SILENCE.total_seconds() + 2)
    late = running(client, deployment)
    for run in (late, *(run for name, run in runs.items() if name != "never beats")):
        tell(client, run, HEARTBEAT)

    def found() -> set[str]:
        stuck_ids = {run.id for run, _ in stuck(client, SILENCE)}
        return {name for name, run in (runs | {"late": late}).items() if run.id in stuck_ids}

    await_true("heartbeats", lambda: found() == {"hangs", "has a part that works", *SIGNS}, 20)
    write_line(client, works)
    for name, sign in SIGNS.items():
        sign(client, runs[name])
    await_true("signs of work", lambda: found() == {"hangs"}, 20)
    for run in (late, *runs.values()):
        client.delete_flow_run(run.id)


def test_a_job_that_only_goes_on_shows_that_it_is_looked_at(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at a managed job that tells nothing are shown each hour, and not each minute."""
    heard: list[Any] = []
    monkeypatch.setattr("tasks.listening.listeners", [*listeners, heard.append])

    @flow
    def looks() -> list[int]:
        tell, counts = _telling(), []
        for pause in (0.0, 0.0, 0.0, 1.1, 0.0):
            time.sleep(pause)
            tell(Job(id="ftjob-1", status="running", told="running"), [])
            counts.append(len(heard))
        return counts

    monkeypatch.setattr("tasks.submission.SAY_EVERY_S", 1.0)
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        counts = looks()
    assert counts == [1, 1, 1, 2, 2]


def test_whose_process_was_ended_as_stuck_is_found(client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled for that reason, or not ended by any worker in time; not one that a person has cancelled."""
    message = f"{STUCK}it lives."
    told: dict[str, list[State[Any]]] = {
        "ended": [Cancelling(message=message), Cancelled()],
        "not ended": [Cancelling(message=message)],
        "cancelled by a person": [Cancelling(message="Cancelled in the UI."), Cancelled()],
        "cancelled at once": [Cancelled()],
    }
    runs = {name: running(client, deployment) for name in told}
    for name, states in told.items():
        for state in states:
            client.set_flow_run_state(runs[name].id, state, force=True)
    names = {run.id: name for name, run in runs.items()}

    def found() -> dict[str, str]:
        since = datetime.now(UTC) - timedelta(days=1)
        return {names[run.id]: why for run, why in ended_as_stuck(client, since) if run.id in names}

    assert found() == {"ended": message}
    monkeypatch.setattr("flows.stuck_runs.KILLED_WITHIN", timedelta(0))
    given_up = f"{message} No worker has ended it: end it on its host, if it is there still."
    assert found() == {"ended": message, "not ended": given_up}
    for run in runs.values():
        client.delete_flow_run(run.id)


def test_a_run_that_hangs_is_ended_and_started_again(
    deployed: dict[str, Any], client: SyncPrefectClient, server: dict[str, Any], home: dict[str, str], tmp_path: Path
) -> None:
    """Its heartbeats go on; the worker kills its process, the run is Crashed and started again, and ends."""
    env = home | {"PREFECT_API_URL": server["api"]}
    hanging = client.read_deployment_by_name(deploy_slow(tmp_path, env))
    looks = client.read_deployment_by_name("watch-runs/watch-runs")
    silence_s = 60

    def look() -> None:
        run = client.create_flow_run_from_deployment(looks.id, parameters={"stuck_hours": silence_s / 3600})
        await_state(client, run.id, "Completed", 180)

    with worker(env, tmp_path / "worker.log"):
        parameters = {"folder": str(tmp_path), "name": "hung", "first_seconds": 36_000}
        run = client.create_flow_run_from_deployment(hanging.id, parameters=parameters)
        await_true("the flow's task", (tmp_path / "hung.holds").exists, 120)
        process = psutil.Process(int((tmp_path / "hung.pid").read_text()))
        hung = time.monotonic()
        time.sleep(silence_s + 40)  # a heartbeat, 30 s after the one before, of after the silence has to be heard
        assert client.read_flow_run(run.id).state_name == "Running"
        look()
        await_state(client, run.id, "Cancelled", 120)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        look()
        await_state(client, run.id, "Completed", 240)
        ended = time.monotonic() - hung
    states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    assert [state.name for state in states].count("Crashed") == 1
    [crashed] = [state for state in states if state.name == "Crashed"]
    assert str(crashed.message).startswith(f"{STUCK}it lives, and has shown no work for more than 0.0167 hours")
    assert any(str(state.message).startswith("restart 1 of 3. It was Crashed: Stuck: ") for state in states)
    print(f"\nhung: ended, restarted and Completed {ended:.0f} s later, of which {silence_s} s are its silence")  # noqa: T201 - the figure
