"""Deployments cost money while they run: each is taken down, also after a crash, and none that somebody uses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import EnvironmentLacks, IntegrityError, TransientError
from prooftune.providers import serving
from prooftune.providers.serving import Lease, Sweep, key_of, read_leases, served, sweep
from prooftune.providers.tuning import Deployment, Tuner, open_tuner
from prooftune.spec import Provider
from prooftune.storage.leases import DEAD_AFTER_S
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import ObjectStore

NAME = "prooftune-0a1b2c"
OPTIONS = Provider()
DEAD = "dead"
"""Holder of a lease that a killed run left."""


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def tuner() -> MemoryTuner:
    """A provider whose tuned models have to be deployed."""
    return MemoryTuner(provider="azure")


def swept(store: ObjectStore, *tuners: MemoryTuner, remove: bool = True, minutes: float = 0) -> Sweep:
    """Sweep so many minutes from now, over these accounts; their base_url says which is which."""
    by_address = {tuner.address: tuner for tuner in tuners}

    def opened(provider: str, options: Provider) -> Tuner:
        return by_address[options.base_url or tuners[0].address]

    accounts = [(tuner.provider, Provider(base_url=tuner.address)) for tuner in tuners]
    return sweep(store, opened, accounts, remove=remove, now=datetime.now(UTC) + timedelta(minutes=minutes))


def left_behind(store: MemoryStore, tuner: MemoryTuner, name: str = NAME, rate: float | None = 1.7) -> None:
    """Leave a deployment and its lease as a killed run does."""
    tuner.deploy("tuned-1", name)
    now = datetime.now(UTC)
    options = Provider(base_url=tuner.address)
    lease = Lease(
        name=name,
        holder=DEAD,
        provider=tuner.provider,
        address=tuner.address,
        options=options,
        model="tuned-1",
        usd_per_hour=rate,
        since=now,
        renewed=now,
    )
    store.put(key_of(name, DEAD), lease.model_dump_json().encode())


def test_what_answers_is_gone_afterwards(store: MemoryStore, tuner: MemoryTuner) -> None:
    """While it is used a lease says by whom and what it costs; afterwards there is neither deployment nor lease."""
    tuner.ready_after = 3
    with served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK) as chat:
        assert chat == f"chat with tuned-1#{NAME}"  # type: ignore[comparison-overlap]  # the provider in memory gives a string
        (lease,) = read_leases(store)
        assert (lease.name, lease.provider, lease.address, lease.model, lease.usd_per_hour) == (
            NAME,
            "azure",
            tuner.address,
            "tuned-1",
            1.7,
        )
        assert set(tuner.running) == {NAME}
    assert not tuner.running
    assert not store.objects


def test_a_model_that_answers_as_it_is_needs_nothing(store: MemoryStore, tuner: MemoryTuner) -> None:
    """No deployment is made, and none is waited for."""
    tuner.needs_deployment = False
    with served(tuner, store, "tuned-1", NAME, OPTIONS, None, QUICK) as chat:
        assert chat == "chat with tuned-1"  # type: ignore[comparison-overlap]  # the provider in memory gives a string
    assert not store.objects


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), TransientError("503")])
def test_whatever_ends_the_use_takes_the_deployment_down(store: MemoryStore, tuner: MemoryTuner, error: BaseException) -> None:
    """The error is told as it is, and nothing is left."""
    with pytest.raises(type(error)), served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise error
    assert not tuner.running
    assert not store.objects


def test_a_failure_to_deploy_leaves_nothing(store: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider may have begun to deploy before it failed."""

    def deploy(model: str, name: str) -> Deployment:
        tuner.running[name] = Deployment(name=name, model=model, ready=False, told="starting", chat=model)
        raise TransientError("503")

    monkeypatch.setattr(tuner, "deploy", deploy)
    with pytest.raises(TransientError, match="503"), served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not store.objects


def test_a_deployment_that_never_gets_ready_is_taken_down(store: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says in which state it was, and what to look at."""
    monkeypatch.setattr(serving, "READY_WITHIN_S", 0.05)
    tuner.ready_after = 10**9
    with (
        pytest.raises(EnvironmentLacks, match=f"{NAME} is starting after .* quota"),
        served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK),
    ):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not store.objects


def test_a_deployment_that_failed_is_not_waited_for(store: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken down at once, and the error says what the provider calls its state."""

    def deploy(model: str, name: str) -> Deployment:
        tuner.running[name] = Deployment(name=name, model=model, ready=False, told="Failed", chat=model, failed=True)
        return tuner.running[name]

    monkeypatch.setattr(tuner, "deploy", deploy)
    with pytest.raises(EnvironmentLacks, match=f"{NAME} is Failed"), served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise AssertionError("not reached")
    assert not tuner.running
    assert not store.objects


def test_two_runs_share_a_deployment(store: MemoryStore, tuner: MemoryTuner) -> None:
    """Whoever leaves first leaves it to the other; a dead run's lease keeps nobody from taking it down."""
    left_behind(store, tuner)
    (dead,) = read_leases(store)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    store.put(key_of(NAME, DEAD), dead.model_copy(update={"renewed": long_ago}).model_dump_json().encode())
    hours: list[float] = []
    with served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        with served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK, ran=hours.append):
            assert len(list(read_leases(store, NAME))) == 3
        assert set(tuner.running) == {NAME}
        assert len(hours) == 1
    assert not tuner.running
    assert [lease.holder for lease in read_leases(store)] == [DEAD]


def test_two_that_leave_at_once_leave_nothing(tmp_path: Path, tuner: MemoryTuner) -> None:
    """Each says that it leaves before it looks for the other: at least one finds itself the last."""
    store = LocalStore(tmp_path)
    for _ in range(20):
        both = Barrier(2)

        def use(both: Barrier = both) -> None:
            with served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
                both.wait(10)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(use), pool.submit(use)]:
                done.result(10)
        assert not tuner.running
        assert list(read_leases(store)) == []


def test_what_could_not_be_taken_down_is_left_to_a_sweep(store: MemoryStore, tuner: MemoryTuner, caplog: pytest.LogCaptureFixture) -> None:
    """The error is told; beside another one it is logged with the command. The lease stays, or no sweep would know where to look."""
    tuner.take_downs = [TransientError("not now")]
    with pytest.raises(TransientError, match="not now"), served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        pass
    tuner.take_downs = [TransientError("not now")]
    with pytest.raises(ValueError, match="the first"), served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        raise ValueError("the first")
    assert "prooftune jobs sweep --remove" in caplog.text
    assert [lease.leaving for lease in read_leases(store, NAME)] == [True, True]
    assert swept(store, tuner, minutes=11).deployments[0].removed
    assert not tuner.running
    assert not store.objects


def test_a_lease_is_renewed_while_the_model_is_used(store: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the store failed to take a renewal."""
    monkeypatch.setattr(serving, "RENEW_S", 0.01)
    with served(tuner, store, "tuned-1", NAME, OPTIONS, 1.7, QUICK):
        (first,) = read_leases(store)
        store.next_puts = ["failed", "failed"]
        deadline = time.monotonic() + 10
        while (lease := next(read_leases(store))).renewed == first.renewed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert lease.since == first.since
    assert not store.objects


@pytest.mark.parametrize(("minutes", "dead"), [(0, False), (DEAD_AFTER_S / 60 - 0.5, False), (DEAD_AFTER_S / 60 + 0.5, True)])
def test_only_a_dead_run_s_deployment_is_swept(store: MemoryStore, tuner: MemoryTuner, minutes: float, dead: bool) -> None:
    """A lease in use protects; one that was not renewed for ten minutes does not. Hours and their price are told."""
    left_behind(store, tuner)
    (told,) = swept(store, tuner, remove=False, minutes=minutes).deployments
    assert (told.in_use, told.removed, told.leased, told.usd_per_hour) == (not dead, False, True, 1.7)
    assert told.hours == pytest.approx(minutes / 60, abs=0.001)
    assert set(tuner.running) == {NAME}
    (told,) = swept(store, tuner, minutes=minutes).deployments
    assert (told.in_use, told.removed) == (not dead, dead)
    assert (NAME in tuner.running, key_of(NAME, DEAD) in store.objects) == (not dead, not dead)


def test_a_deployment_of_another_store_is_told_and_left(store: MemoryStore, tuner: MemoryTuner) -> None:
    """Somebody with the same account uses it, for all that is known here."""
    made = datetime.now(UTC) - timedelta(hours=3)
    tuner.running["prooftune-ff"] = Deployment(name="prooftune-ff", model="theirs", ready=True, told="ready", chat="x", created_at=made)
    (told,) = swept(store, tuner).deployments
    assert (told.leased, told.in_use, told.removed, told.usd_per_hour) == (False, False, False, None)
    assert told.hours == pytest.approx(3, abs=0.01)
    assert set(tuner.running) == {"prooftune-ff"}


def test_leases_of_what_is_gone_are_forgotten(store: MemoryStore, tuner: MemoryTuner) -> None:
    """Somebody took it down at the provider's console. Without --remove nothing changes, and a lease in use is left."""
    left_behind(store, tuner)
    tuner.running.clear()
    swept(store, tuner, minutes=5)
    swept(store, tuner, remove=False, minutes=11)
    assert list(store.objects) == [key_of(NAME, DEAD)]
    assert swept(store, tuner, minutes=11) == Sweep(deployments=(), not_asked=())
    assert not store.objects


def test_each_account_is_asked_once_and_for_its_own(store: MemoryStore) -> None:
    """Two accounts of one provider: what cannot be taken down in one keeps its lease while the other is swept."""
    one, other = (MemoryTuner(provider="azure", address=f"https://{name}.example") for name in ("one", "other"))
    left_behind(store, one, "prooftune-01")
    left_behind(store, other, "prooftune-02")
    other.take_downs = [TransientError("the portal is down")]
    found = {told.name: told for told in swept(store, one, other, one, minutes=11).deployments}
    assert set(found) == {"prooftune-01", "prooftune-02"}
    assert (found["prooftune-01"].removed, found["prooftune-02"].removed) == (True, False)
    assert found["prooftune-02"].failed == "the portal is down"
    assert list(store.objects) == [key_of("prooftune-02", DEAD)]


def test_an_account_that_cannot_be_asked_is_named(store: MemoryStore, tuner: MemoryTuner) -> None:
    """A key that is missing for one provider keeps nothing at another from being taken down."""
    left_behind(store, tuner)

    def opened(provider: str, options: Provider) -> Tuner:
        if provider == "openai":
            raise EnvironmentLacks("OPENAI_API_KEY is not set")
        return tuner

    accounts = [("openai", OPTIONS), ("openai", Provider(hold_minutes=5))]
    found = sweep(store, opened, accounts, remove=True, now=datetime.now(UTC) + timedelta(minutes=11))
    assert found.not_asked == ("openai: OPENAI_API_KEY is not set",)
    assert [told.removed for told in found.deployments] == [True]


def test_a_damaged_lease_is_told(store: MemoryStore, tuner: MemoryTuner) -> None:
    """It may stand for a deployment that costs money, so it is not passed over."""
    store.objects[key_of(NAME, DEAD)] = b"{"
    with pytest.raises(IntegrityError, match=NAME):
        swept(store, tuner)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Azure's stand-in, where nothing answers without a deployment."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in("azure", tmp_path, monkeypatch) as found:
        yield found


SERVE = """
import sys, time
from pathlib import Path
from prooftune.providers.serving import served
from prooftune.providers.tuning import open_tuner
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore

options = Provider.model_validate_json(sys.argv[1])
with served(open_tuner("azure", options), LocalStore(Path(sys.argv[2])), sys.argv[3], sys.argv[4], options, 1.7):
    print("in use", flush=True)
    time.sleep(600)
"""


def test_a_killed_run_s_deployment_is_swept_at_azure(here: StandIn, tmp_path: Path) -> None:
    """SIGKILL while the deployment is used: it runs on, is shown as in use, and is taken down once its lease has run out."""
    store = LocalStore(tmp_path / "store")
    options = here.tuner.options  # type: ignore[attr-defined]  # of Azure's adapter
    command = [sys.executable, "-c", SERVE, options.model_dump_json(), str(store.root), here.model, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "in use\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert here.api.state()["deployments"] == 1

    now = datetime.now(UTC)
    (told,) = sweep(store, open_tuner, [], remove=True, now=now).deployments
    assert (told.in_use, told.removed, told.usd_per_hour) == (True, False, 1.7)
    (told,) = sweep(store, open_tuner, [], remove=True, now=now + timedelta(seconds=DEAD_AFTER_S + 60)).deployments
    assert (told.name, told.model, told.in_use, told.removed) == (NAME, split_name(here.model), False, True)
    assert here.api.state()["deployments"] == 0
    assert not list(read_leases(store))


def split_name(model: str) -> str:
    """Return a base model's name without its version, as a deployment shows it."""
    from prooftune.providers.azure import split_version

    return split_version(model)[0]
