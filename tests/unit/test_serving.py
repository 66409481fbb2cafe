"""Deployments cost money while they run: whoever uses one takes it down, whatever happens, unless another run uses it."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner
from fixtures_serving import NAME, OPTIONS, left_behind, swept

from prooftune.errors import EnvironmentLacks, StoreUnavailable, TransientError
from prooftune.providers import serving
from prooftune.providers.deployment_leases import read_leases
from prooftune.providers.serving import SWEEP, served
from prooftune.providers.tuning import Deployment
from prooftune.storage.local import LocalStore

pytest_plugins = ["fixtures_serving"]


def test_what_answers_is_gone_afterwards(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """While it is used a lease says by whom and what it costs; afterwards there is neither deployment nor lease."""
    tuner.ready_after = 3
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK) as chat:
        assert chat == f"chat with tuned-1#{NAME}"  # type: ignore[comparison-overlap]  # the provider in memory gives a string
        (lease,) = read_leases(leases_at)
        assert (lease.name, lease.provider, lease.address, lease.model, lease.usd_per_hour) == (
            NAME,
            "azure",
            tuner.address,
            "tuned-1",
            1.7,
        )
        assert set(tuner.running) == {NAME}
    assert not tuner.running
    assert not leases_at.objects


def test_a_model_that_answers_as_it_is_needs_nothing(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """No deployment is made, and none is waited for."""
    tuner.needs_deployment = False
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, None, QUICK) as chat:
        assert chat == "chat with tuned-1"  # type: ignore[comparison-overlap]  # the provider in memory gives a string
    assert not leases_at.objects


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), TransientError("503")])
def test_whatever_ends_the_use_takes_the_deployment_down(leases_at: MemoryStore, tuner: MemoryTuner, error: BaseException) -> None:
    """The error is told as it is, and nothing is left."""
    with pytest.raises(type(error)), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise error
    assert not tuner.running
    assert not leases_at.objects


def test_a_failure_to_deploy_leaves_nothing(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider may have begun to deploy before it failed."""

    def deploy(model: str, name: str) -> Deployment:
        tuner.running[name] = Deployment(name=name, model=model, ready=False, told="starting", chat=model)
        raise TransientError("503")

    monkeypatch.setattr(tuner, "deploy", deploy)
    with pytest.raises(TransientError, match="503"), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not leases_at.objects


def test_a_deployment_that_never_gets_ready_is_taken_down(
    leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says in which state it was, and what to look at."""
    monkeypatch.setattr(serving, "READY_WITHIN_S", 0.05)
    tuner.ready_after = 10**9
    with (
        pytest.raises(EnvironmentLacks, match=f"{NAME} is starting after .* quota"),
        served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK),
    ):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not leases_at.objects


def test_a_deployment_that_failed_is_not_waited_for(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken down at once, and the error says what the provider calls its state."""

    def deploy(model: str, name: str) -> Deployment:
        tuner.running[name] = Deployment(name=name, model=model, ready=False, told="Failed", chat=model, failed=True)
        return tuner.running[name]

    monkeypatch.setattr(tuner, "deploy", deploy)
    with pytest.raises(EnvironmentLacks, match=f"{NAME} is Failed"), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not leases_at.objects


def test_two_runs_share_a_deployment(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Whoever leaves first leaves it to the other; a dead run's lease keeps nobody from taking it down."""
    left_behind(leases_at, tuner, minutes=60)
    hours: list[float | None] = []
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, ran=hours.append):
            assert len(list(read_leases(leases_at, NAME))) == 2
        assert set(tuner.running) == {NAME}
        assert len(hours) == 1
    assert not tuner.running
    assert not leases_at.objects


def test_two_that_leave_at_once_leave_nothing(tmp_path: Path, tuner: MemoryTuner) -> None:
    """Each says that it leaves before it looks for the other: at least one finds itself the last."""
    leases_at = LocalStore(tmp_path)
    for _ in range(20):
        both = Barrier(2)

        def use(both: Barrier = both) -> None:
            with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
                both.wait(10)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(use), pool.submit(use)]:
                done.result(10)
        assert not tuner.running
        assert list(read_leases(leases_at)) == []


def test_what_could_not_be_taken_down_is_left_to_a_sweep(
    leases_at: MemoryStore, tuner: MemoryTuner, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names it and the command, and beside another one it is logged. The lease stays, or no sweep would know where to look."""
    tuner.take_downs = [TransientError("not now")]
    with (
        pytest.raises(TransientError, match=rf"{NAME} may still run .*not now.*{SWEEP}"),
        served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK),
    ):
        pass
    tuner.take_downs = [TransientError("not now")]
    with pytest.raises(ValueError, match="the first"), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise ValueError("the first")
    assert SWEEP in caplog.text
    assert [(lease.leaving, lease.stuck) for lease in read_leases(leases_at, NAME)] == [(True, True)]
    assert swept(leases_at, tuner).deployments[0].removed
    assert not tuner.running
    assert not leases_at.objects


def refuse(*_: object, **__: object) -> Any:
    """What a store says whose disk is full, or whose keys have expired."""
    raise StoreUnavailable("no space left on device")


def test_a_full_store_keeps_nothing_running(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a lease cannot be written at the end is no reason to go on paying: nobody else uses the deployment."""
    hours: list[float | None] = []
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, ran=hours.append):
        monkeypatch.setattr(leases_at, "put", refuse)
    assert not tuner.running
    assert not leases_at.objects
    assert len(hours) == 1


def test_what_nobody_can_tell_to_be_unused_is_named(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not show the leases leaves the deployment up: the error says which one, and how to take it down."""
    with (
        pytest.raises(EnvironmentLacks, match=rf"{NAME} may still run and cost money \(no space.*{SWEEP}"),
        served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK),
    ):
        monkeypatch.setattr(leases_at, "list", refuse)
    monkeypatch.undo()
    assert set(tuner.running) == {NAME}
    assert swept(leases_at, tuner).deployments[0].removed


def test_without_a_lease_nothing_is_deployed(leases_at: MemoryStore, tuner: MemoryTuner, caplog: pytest.LogCaptureFixture) -> None:
    """A store that does not take it ends the use, and nobody is told to take something down."""
    leases_at.next_puts = ["failed"]
    with pytest.raises(TransientError), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise AssertionError("not reached")
    assert (tuner.running, leases_at.objects, SWEEP in caplog.text) == ({}, {}, False)


@pytest.mark.parametrize("leaver", ["a run", "a sweep"])
def test_who_arrives_while_another_takes_it_down_waits(leaver: str, tmp_path: Path, tuner: MemoryTuner) -> None:
    """Between the look at the leases and the deployment's end nobody takes what is about to be gone for what is there."""
    leases_at, arrived, left = LocalStore(tmp_path), Event(), Event()
    down = tuner.take_down

    def arrive() -> None:
        with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
            arrived.set()
            assert left.wait(10)
            assert set(tuner.running) == {NAME}

    with ThreadPoolExecutor(1) as pool:

        def take_down(name: str) -> None:
            tuner.take_down = down  # type: ignore[method-assign]  # the next one is the arriver's
            arrivals.append(pool.submit(arrive))
            assert not arrived.wait(0.2), "it was given a deployment that is being taken down"
            down(name)

        arrivals: list[Future[None]] = []
        tuner.take_down = take_down  # type: ignore[method-assign]  # the provider takes its time
        if leaver == "a run":
            with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
                pass
        else:
            left_behind(leases_at, tuner, minutes=60)
            assert swept(leases_at, tuner).deployments[0].removed
        assert arrived.wait(10)
        left.set()
        arrivals[0].result(10)
    assert not tuner.running
    assert not list(read_leases(leases_at))


def test_a_deployment_that_is_gone_before_it_is_ready_is_made_anew(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Somebody took it down at the provider's console while it started."""
    tuner.ready_after = 3
    look = tuner.deployments

    def deployments() -> list[Deployment]:
        tuner.deployments = look  # type: ignore[method-assign]  # once
        tuner.running.clear()
        return look()

    tuner.deployments = deployments  # type: ignore[method-assign]  # somebody comes between
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        assert set(tuner.running) == {NAME}


def test_a_lease_is_renewed_while_the_model_is_used(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the store failed to take a renewal."""
    monkeypatch.setattr(serving, "RENEW_S", 0.01)
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        (first,) = read_leases(leases_at)
        leases_at.next_puts = ["failed", "failed"]
        deadline = time.monotonic() + 10
        while (lease := next(read_leases(leases_at))).renewed == first.renewed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert lease.since == first.since
    assert not leases_at.objects
