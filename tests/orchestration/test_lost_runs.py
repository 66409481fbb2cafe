"""Runs that queue, and runs whose process and worker are killed, on a real server with real workers."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from fixtures_deployed import await_state, await_true, deploy_slow, kill, worker
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed, Failed, Paused, Pending, Running, Suspended

from flows.found_runs import heartbeats
from flows.lost_runs import fell, lost, restart
from tasks.policies import GPU

pytest_plugins = ["fixtures_deployed"]


def a_run(state: State[Any], name: str = "run") -> FlowRun:
    """Return a flow run of a deployment."""
    return FlowRun(name=name, flow_id=uuid4(), deployment_id=uuid4(), state=state)


@pytest.mark.parametrize(("crashes", "message"), [(1, "restart 1 of 3"), (3, "restart 3 of 3"), (4, None)])
def test_a_crashed_run_is_started_again_so_often(crashes: int, message: str | None) -> None:
    """Three times it is scheduled again, and says why; after the fourth crash it is left for a person."""
    states = [Running(), Crashed(message="Its process was killed.")] * crashes
    new = restart(a_run(states[-1]), states, max_restarts=3)
    assert (new and str(new.message).partition(".")[0]) == message
    assert new is None or str(new.message).endswith("Its process was killed.")


@pytest.mark.parametrize(
    ("message", "again"),
    [
        ("ConcurrencySlotAcquisitionError: Unable to acquire concurrency slots on ['tag:validate']", True),
        ("RuntimeError: Failed to reach API at http://127.0.0.1:4200/api", True),
        ("ConnectError: All connection attempts failed", True),
        ("DataError: the source holds no data files", False),
        ("BudgetExceeded: Failed to reach API is what the budget is called", False),
    ],
)
def test_a_run_that_met_no_server_is_started_again(message: str, again: bool) -> None:
    """Its failure is the server's absence and not its own; one that failed by itself is left as it is."""
    state = Failed(message=f"Flow run encountered an exception: {message}")
    assert fell(state) is again
    if again:
        new = restart(a_run(state), [Crashed(), state], max_restarts=3)
        assert new is not None
        assert str(new.message).startswith("restart 2 of 3. It was Failed: ")


class Server:
    """What the look asks a server: runs, and the heartbeats that each has sent by the time of a look."""

    def __init__(self, runs: list[FlowRun], heartbeats: dict[str, list[datetime | None]]) -> None:
        self.runs, self.heartbeats = runs, heartbeats
        self.looks: Counter[str] = Counter()
        self.moved_on: set[str] = set()
        """Runs that have another state than when they were listed."""

    def read_flow_runs(self, flow_run_filter: Any, limit: int, offset: int) -> list[FlowRun]:
        return self.runs[offset:]

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        run = next(run for run in self.runs if run.id == run_id)
        return run.model_copy(update={"state": Running()}) if run.name in self.moved_on else run

    def read_events(self, filter: Any, limit: int) -> SimpleNamespace:
        [resource] = filter.resource.id
        run = next(run for run in self.runs if resource == f"prefect.flow-run.{run.id}")
        said = self.heartbeats[run.name]
        by_now = [at for at in said[: self.looks[run.name] + 1] if at is not None]
        self.looks[run.name] += 1
        newest = [SimpleNamespace(occurred=max(by_now))] if by_now else []  # by the time that they carry, as the server has it
        return SimpleNamespace(events=newest, total=len(by_now))


def test_a_run_is_lost_when_it_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost is who was silent and stays so, and who is Pending for too long; not who speaks again, by any clock, or starts after all."""
    monkeypatch.setattr("flows.lost_runs.LISTEN_S", 0.2)
    monkeypatch.setattr("flows.lost_runs.LOOK_S", 0.01)
    now = datetime.now(UTC)
    long_ago, soon = now - timedelta(minutes=10), now + timedelta(seconds=1)
    runs = [
        a_run(Running(), "alive"),
        a_run(Running(), "dead"),
        a_run(Paused(), "dead while paused"),
        a_run(Running(), "unheard while the server was away"),
        a_run(Running(), "on a host whose clock is slow"),
        a_run(Running(), "without heartbeats"),
        a_run(Suspended(), "suspended"),
        a_run(Pending(), "starting"),
        a_run(Pending(timestamp=now - timedelta(minutes=31)), "never started"),
        a_run(Pending(timestamp=now - timedelta(minutes=31)), "started while others were listened to"),
    ]
    heartbeats: dict[str, list[datetime | None]] = {run.name: [long_ago] for run in runs}
    heartbeats |= {"alive": [now], "unheard while the server was away": [long_ago, soon], "without heartbeats": [None]}
    heartbeats["on a host whose clock is slow"] = [long_ago, long_ago - timedelta(minutes=5)]
    server = Server(runs, heartbeats)
    server.moved_on = {"started while others were listened to"}
    found = lost(server, timedelta(minutes=30))  # type: ignore[arg-type]  # all that it uses of a client
    assert {run.name for run, _ in found} == {"dead", "dead while paused", "never started"}


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_crashed_and_ends_on_another(
    deployed: dict[str, Any], client: SyncPrefectClient, server: dict[str, Any], home: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL of worker and flow process: the server finds out by the silence, and a new worker completes the same flow run."""
    env = home | {"PREFECT_API_URL": server["api"]}
    deployment = client.read_deployment_by_name(deploy_slow(tmp_path, env))
    parameters = {"folder": str(tmp_path), "name": "lost", "first_seconds": 900}
    with worker(env, tmp_path / "first.log") as first:
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        await_true("the flow's task", (tmp_path / "lost.holds").exists, 120)
        await_true("its first heartbeat", lambda: heartbeats(client, run), 60)  # who never beats cannot fall silent
        flow_process = psutil.Process(int((tmp_path / "lost.pid").read_text()))
        kill(first)
        killed = time.monotonic()
    assert not flow_process.is_running() or flow_process.status() == psutil.STATUS_ZOMBIE
    assert client.read_flow_run(run.id).state_name == "Running"  # nobody is left who could say otherwise
    with worker(env, tmp_path / "second.log"):
        crashed = await_state(client, run.id, "Crashed", 240)
        noticed = time.monotonic() - killed
        await_state(client, run.id, "Completed", 240)
        ended = time.monotonic() - killed
    states = [state.name for state in sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)]
    assert states.count("Crashed") == 1
    assert states[-1] == "Completed"
    assert crashed.deployment_id == deployment.id
    assert (tmp_path / "lost.held").exists()
    print(f"\nworker and flow killed: Crashed after {noticed:.0f} s, restarted and Completed after {ended:.0f} s")  # noqa: T201 - the figure


@pytest.mark.slow
def test_one_runs_and_the_next_waits_visibly(
    deployed: dict[str, Any], client: SyncPrefectClient, server: dict[str, Any], home: dict[str, str], tmp_path: Path
) -> None:
    """Of two runs of a deployment with a limit of one, the second is AwaitingConcurrencySlot while the first runs, and then runs."""
    env = home | {"PREFECT_API_URL": server["api"]}
    deployment = client.read_deployment_by_name(deploy_slow(tmp_path, env, limit=1))
    with worker(env, tmp_path / "worker.log"):
        parameters = {"folder": str(tmp_path), "name": "first", "first_seconds": 20}
        runs = [client.create_flow_run_from_deployment(deployment.id, parameters=parameters)]
        await_true("the first", (tmp_path / "first.holds").exists, 120)
        runs.append(client.create_flow_run_from_deployment(deployment.id, parameters=parameters | {"name": "second", "first_seconds": 1}))
        await_state(client, runs[1].id, "AwaitingConcurrencySlot", 60)
        assert client.read_flow_run(runs[0].id).state_name == "Running"
        for run in runs:
            await_state(client, run.id, "Completed", 180)
    assert float((tmp_path / "second.holds").read_text()) >= float((tmp_path / "first.held").read_text())


@pytest.mark.slow
def test_one_task_a_gpu(
    deployed: dict[str, Any], client: SyncPrefectClient, server: dict[str, Any], home: dict[str, str], tmp_path: Path
) -> None:
    """Of two runs whose tasks use the GPU, the second's is Pending while the first's runs: the limit of deployments/limits.yaml."""
    env = home | {"PREFECT_API_URL": server["api"]}
    deployment = client.read_deployment_by_name(deploy_slow(tmp_path, env, tag=GPU))
    with worker(env, tmp_path / "worker.log"):
        runs = {
            name: client.create_flow_run_from_deployment(
                deployment.id, parameters={"folder": str(tmp_path), "name": name, "first_seconds": 20}
            )
            for name in ("one", "other")
        }
        held = await_true("one that holds", lambda: [name for name in runs if (tmp_path / f"{name}.holds").exists()], 120)[0]
        waits = next(name for name in runs if name != held)
        await_true("the other has begun", (tmp_path / f"{waits}.pid").exists, 120)
        its_tasks = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[runs[waits].id]))
        pending = await_true("its task", lambda: client.read_task_runs(task_run_filter=its_tasks), 60)
        assert not (tmp_path / f"{held}.held").exists()
        assert [task.state_name for task in pending] == ["Pending"]
        for run in runs.values():
            await_state(client, run.id, "Completed", 180)
    assert float((tmp_path / f"{waits}.holds").read_text()) >= float((tmp_path / f"{held}.held").read_text())
