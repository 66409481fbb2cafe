"""Retrainings of one task that meet: one is under way, the others wait for their turn, visibly, and hold nothing meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fixtures_deployed import await_state, await_true, worker
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from flows.retrain import retrain
from prooftune.retraining.admission import admit
from prooftune.retraining.claims import Claim, finish, read_retrains
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.objects import open_store
from prooftune.watching.looks import week_of
from prooftune.watching.signals import Signal
from tasks.turns import AWAITS, WAITS_AT_MOST

pytest_plugins = ["fixtures_deployed"]
pytestmark = pytest.mark.slow  # a Prefect server


@pytest.fixture(autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """A task without data: what is admitted fails at once, and its claim says that it was admitted."""
    fields = {
        "name": f"turns-{uuid4().hex[:8]}",
        "data": {"source": str(tmp_path / "none.jsonl")},
        "retrain": {"cool_down_hours": 0},
        "store": {"uri": str(tmp_path / "store")},
    }
    return parse_spec(fields)


def drop(spec: RunSpec, digest: str = "d1") -> Signal:
    """Return a signal that a sensor repeats."""
    return Signal(kind="quality", task=spec.name, digest=digest, reason="it fell", at=datetime.now(UTC).isoformat())


def under_way(spec: RunSpec, started: datetime | None = None) -> int:
    """Let somebody else hold the task's retraining; return the token."""
    told = admit(open_store(spec.store), spec, drop(spec, "another"), "somebody else", started or datetime.now(UTC))
    assert told.token is not None
    return told.token


def claims(spec: RunSpec) -> list[Claim]:
    """Return what was started besides."""
    return [claim for claim in read_retrains(open_store(spec.store), spec.name).claims if claim.digest != "another"]


def due_run(client: SyncPrefectClient, spec: RunSpec, signal: Signal | None, due: datetime | None = None) -> FlowRun:
    """Return a flow run of a deployment that no worker takes."""
    flow_id = client.create_flow(retrain)
    deployment = client.create_deployment(flow_id=flow_id, name="turns", work_pool_name=None)
    parameters = {"spec": spec.model_dump(mode="json"), "signal": signal and signal.model_dump(mode="json")}
    state = Scheduled(scheduled_time=due or datetime.now(UTC))
    return client.create_flow_run_from_deployment(deployment, parameters=parameters, state=state)


def carry_out(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Do what a worker's process does with a flow run, and return it as it then is."""
    try:
        run_flow(retrain, flow_run=client.read_flow_run(run.id), return_type="state")
    except Pause:  # its process ends
        assert client.read_flow_run(run.id).state_name == AWAITS
    return client.read_flow_run(run.id)


def hasten(client: SyncPrefectClient, run: FlowRun) -> None:
    """Let a waiting run ask at once, as a person may in the UI."""
    client.set_flow_run_state(run.id, Scheduled(scheduled_time=datetime.now(UTC)))


def test_who_meets_another_retraining_waits_and_starts_when_it_has_ended(client: SyncPrefectClient, spec: RunSpec) -> None:
    """Also while that lasts for long; the state says for whom, and the week of a calendar's run is not lost."""
    token = under_way(spec)
    run = due_run(client, spec, None)
    for _ in range(2):
        waiting = carry_out(client, run)
        assert (waiting.state_name, waiting.name) == (AWAITS, f"{spec.name}: waits for its turn")
        assert waiting.state is not None
        assert str(waiting.state.message).startswith("waits: the retraining for quality another is under way since ")
        assert timedelta(minutes=8) < waiting.next_scheduled_start_time - datetime.now(UTC) < timedelta(minutes=11)
        assert f"schedule {week_of(datetime.now(UTC))}" in waiting.tags
        hasten(client, run)
    assert claims(spec) == []
    assert finish(open_store(spec.store), spec.name, token, "promote, run other-0a1b")
    ended = carry_out(client, run)
    assert ended.state_name == "Failed", "there are no data"
    [claim] = claims(spec)
    assert (claim.kind, claim.holder, claim.attempts) == ("schedule", f"{run.id}/3", 1)


def test_one_flow_run_waits_for_an_occurrence_however_often_it_is_signalled(client: SyncPrefectClient, spec: RunSpec) -> None:
    """A sensor's repetition finds that one waits already and ends; another occurrence waits beside it."""
    under_way(spec)
    runs = [due_run(client, spec, drop(spec)) for _ in range(3)]
    first, last = min(runs, key=lambda run: run.id), max(runs, key=lambda run: run.id)
    assert carry_out(client, last).state_name == AWAITS
    assert carry_out(client, first).state_name == AWAITS, "the two did not know of each other"
    hasten(client, last)
    for run in (one for one in runs if one is not first):
        ended = carry_out(client, run)
        assert ended.name == f"{spec.name}: duplicate"
        assert ended.state is not None
        assert "waits for quality d1 already" in str(ended.state.message)
    hasten(client, first)
    assert carry_out(client, first).state_name == AWAITS
    assert carry_out(client, due_run(client, spec, drop(spec, "d2"))).state_name == AWAITS
    assert claims(spec) == []


def test_the_calendar_waits_for_the_end_of_the_cool_down_and_a_sensor_says_it_again(client: SyncPrefectClient, spec: RunSpec) -> None:
    """Nobody repeats a week; what a sensor repeats ends and says until when the cool-down lasts."""
    spec = spec.model_copy(update={"retrain": spec.retrain.model_copy(update={"cool_down_hours": 24})})
    started = datetime.now(UTC) - timedelta(hours=1)
    assert finish(open_store(spec.store), spec.name, under_way(spec, started), "promote, run other-0a1b")
    assert carry_out(client, due_run(client, spec, drop(spec))).name == f"{spec.name}: cooling down"
    waiting = carry_out(client, due_run(client, spec, None))
    assert waiting.state_name == AWAITS
    assert abs(waiting.next_scheduled_start_time - started - timedelta(hours=24)) < timedelta(seconds=5)


@pytest.mark.parametrize("deployed_at_all", [True, False])
def test_who_cannot_wait_any_longer_or_at_all_ends_and_says_so(client: SyncPrefectClient, spec: RunSpec, deployed_at_all: bool) -> None:
    """A run that was due a week ago gives way to the next one, and one without a deployment would never be started again."""
    under_way(spec)
    due = datetime.now(UTC) - WAITS_AT_MOST
    state = (
        run_flow(retrain, flow_run=due_run(client, spec, drop(spec), due), return_type="state")
        if deployed_at_all
        else retrain(spec, drop(spec), return_state=True)
    )
    assert state.is_completed()
    assert str(state.message).startswith("running: ")


def test_two_deployments_share_the_turn_on_a_real_worker(
    deployed: dict[str, Any], client: SyncPrefectClient, server: dict[str, Any], home: dict[str, str], spec: RunSpec, tmp_path: Path
) -> None:
    """The weekly run waits without a process and without its deployment's slot, and starts after all."""
    token = under_way(spec)
    weekly = client.read_deployment_by_name("retrain/weekly-retrain")
    parameters = {"spec": spec.model_dump(mode="json"), "jitter_minutes": 0}
    with worker(home | {"PREFECT_API_URL": server["api"]}, tmp_path / "worker.log"):
        run = client.create_flow_run_from_deployment(weekly.id, parameters=parameters)
        await_state(client, run.id, AWAITS, 120)
        time.sleep(10)  # a process that ended badly would have been reported by now
        assert client.read_flow_run(run.id).state_name == AWAITS
        signal = drop(spec).model_dump(mode="json")
        other = client.create_flow_run_from_deployment(weekly.id, parameters=parameters | {"signal": signal})
        await_state(client, other.id, AWAITS, 120)
        names = [state.name for state in client.read_flow_run_states(other.id)]
        assert "AwaitingConcurrencySlot" not in names, "who waits holds no slot"
        assert finish(open_store(spec.store), spec.name, token, "promote, run other-0a1b")
        hasten(client, run)
        await_true("the turn", lambda: client.read_flow_run(run.id).state_name == "Failed", 120)
    [claim] = claims(spec)
    assert (claim.kind, claim.holder.partition("/")[0]) == ("schedule", str(run.id))
