"""What a deployment ran for a run that was killed is paid for as well: the next try counts it, or says that nobody can."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner
from fixtures_serving import NAME, OPTIONS, left_behind, swept

from prooftune.errors import TransientError
from prooftune.providers.deployment_leases import PAST, read_leases
from prooftune.providers.serving import SWEEP, served
from prooftune.providers.tuning import Deployment
from prooftune.storage.leases import DEAD_AFTER_S, SKEW_S

pytest_plugins = ["fixtures_serving"]

HOUR = pytest.approx(1, abs=0.01)
NONE = pytest.approx(0, abs=0.01)
"""What a use takes that does nothing."""


def heard(leases_at: MemoryStore, tuner: MemoryTuner, use: str = "evaluate") -> list[float | None]:
    """Use the model and return what is heard of deployments."""
    hours: list[float | None] = []
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, hours.append, use):
        pass
    return hours


def test_the_next_try_counts_what_a_dead_one_left_running(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Until the next try begins; what it uses itself comes after. Of another use nothing is counted here, but kept for it."""
    left_behind(leases_at, tuner, minutes=60, use="evaluate")
    left_behind(leases_at, tuner, minutes=120, use="forgetting", holder="other")
    assert heard(leases_at, tuner) == [HOUR, NONE]
    assert not tuner.running
    assert [key.startswith(PAST) for key in leases_at.objects] == [True]
    assert heard(leases_at, tuner, "forgetting") == [pytest.approx(2, abs=0.01), NONE]
    assert not leases_at.objects


def test_what_a_sweep_took_down_is_counted_until_then(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Also hours later. A run of which nobody counts hours leaves nothing to be counted."""
    left_behind(leases_at, tuner, minutes=60, use="evaluate")
    left_behind(leases_at, tuner, minutes=60, holder="nobody")
    assert swept(leases_at, tuner).deployments[0].removed
    assert len(leases_at.objects) == 1
    assert heard(leases_at, tuner) == [HOUR, NONE]
    assert not leases_at.objects


@pytest.mark.parametrize("noticed", ["a sweep", "the next try"])
def test_of_what_is_gone_by_itself_nobody_knows(leases_at: MemoryStore, tuner: MemoryTuner, noticed: str) -> None:
    """Somebody took it down at the provider's console: that it ran is said, and no hours are made up."""
    left_behind(leases_at, tuner, minutes=60, use="evaluate")
    tuner.running.clear()
    if noticed == "a sweep":
        swept(leases_at, tuner)
    assert heard(leases_at, tuner) == [None, NONE]
    assert not leases_at.objects


def test_a_deployment_that_stops_by_itself_is_paid_for_until_then(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Nobody asked it anything after the kill, so that it was idle from then on."""
    left_behind(leases_at, tuner, minutes=600, use="evaluate")
    tuner.running[NAME] = tuner.running[NAME].model_copy(update={"idle_s": 1800.0})
    assert heard(leases_at, tuner) == [pytest.approx(0.5, abs=0.01), NONE]


def test_of_a_try_that_may_be_alive_nobody_knows(leases_at: MemoryStore, tuner: MemoryTuner, caplog: pytest.LogCaptureFixture) -> None:
    """Its lease was renewed a moment ago: the deployment is left to it, and the hours that come are said to be unknown."""
    left_behind(leases_at, tuner, minutes=1, use="evaluate")
    assert heard(leases_at, tuner) == [NONE, None]
    assert set(tuner.running) == {NAME}
    assert f"{(DEAD_AFTER_S + SKEW_S) / 60:.0f} minutes after its end: {SWEEP}" in caplog.text


def test_one_that_dies_while_the_next_try_is_at_work_is_counted_until_that_began(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """From then on the hours are the next try's own."""
    left_behind(leases_at, tuner, minutes=1, use="evaluate")
    hours: list[float | None] = []
    with served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, hours.append, "evaluate"):
        left_behind(leases_at, tuner, minutes=60, use="evaluate")
        assert hours == []
    assert hours == [NONE, HOUR]
    assert not tuner.running
    assert not leases_at.objects


def test_a_try_that_could_not_take_it_down_is_counted_by_the_next(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Its own hours are not said yet: they go on."""
    tuner.take_downs = [TransientError("not now")]
    hours: list[float | None] = []
    with pytest.raises(TransientError), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, hours.append, "evaluate"):
        pass
    assert hours == []
    (lease,) = read_leases(leases_at)
    then = datetime.now(UTC) - timedelta(hours=1)
    left_behind(leases_at, tuner, holder=lease.holder, use="evaluate", stuck=True, leaving=True, since=then)
    assert heard(leases_at, tuner) == [HOUR, NONE]


@pytest.mark.parametrize("fails", ["deploy", "wait"])
def test_what_ran_before_it_failed_to_answer_is_counted(
    leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Whether the provider's adapter waits for it or we do: from the request that made it until it was taken down."""
    hours: list[float | None] = []

    def deploy(model: str, name: str) -> Deployment:
        tuner.running[name] = Deployment(name=name, model=model, ready=False, told="starting", chat=model)
        if fails == "wait":
            return tuner.running[name]
        raise TransientError("it did not start within half an hour")

    def refused() -> list[Deployment]:
        raise TransientError("503")

    monkeypatch.setattr(tuner, "deploy", deploy)
    monkeypatch.setattr(tuner, "deployments", refused)
    with pytest.raises(TransientError), served(tuner, leases_at, "tuned-1", NAME, OPTIONS, 1.7, QUICK, hours.append, "evaluate"):
        raise AssertionError("not reached")
    assert hours == [NONE]
    assert not tuner.running


def test_what_a_dead_try_left_is_taken_down_whatever_the_provider_says(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """That the model answers as it is: nobody else would find the deployment once the dead try's lease is gone. Its hours are counted."""
    left_behind(leases_at, tuner, minutes=60, use="evaluate")
    tuner.needs_deployment = False
    assert heard(leases_at, tuner) == [HOUR, NONE]
    assert not tuner.running
    assert not leases_at.objects


@pytest.mark.parametrize("by", ["the next try", "another sweep"])
def test_two_that_end_a_dead_try_s_lease_count_it_once(leases_at: MemoryStore, tuner: MemoryTuner, by: str) -> None:
    """One does it, and the next try counts it, while a sweep that had read the lease before asks what runs."""
    left_behind(leases_at, tuner, minutes=60, use="evaluate")
    look, tried = tuner.deployments, []

    def deployments() -> list[Deployment]:
        tuner.deployments = look  # type: ignore[method-assign]  # once
        if by == "another sweep":
            swept(leases_at, tuner)
        tried.extend(heard(leases_at, tuner))
        return look()

    tuner.deployments = deployments  # type: ignore[method-assign]  # a try comes between
    swept(leases_at, tuner)
    assert tried == [HOUR, NONE]
    assert not leases_at.objects
    assert heard(leases_at, tuner) == [NONE]
