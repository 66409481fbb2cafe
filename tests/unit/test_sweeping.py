"""What dead runs left at providers is found and taken down, and nothing that a living run, or another store, uses."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner
from fixtures_serving import DEAD, LAPSED, NAME, OPTIONS, left_behind, swept
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import EnvironmentLacks, TransientError
from prooftune.providers.deployment_leases import key_of, read_leases
from prooftune.providers.serving import served
from prooftune.providers.sweeping import Sweep, sweep
from prooftune.providers.tuning import Deployment, PartlyListed, Tuner, open_tuner
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore

pytest_plugins = ["fixtures_serving"]


@pytest.mark.parametrize(("minutes", "dead"), [(0, False), (LAPSED - 1.5, False), (LAPSED - 0.5, True)])
def test_only_a_dead_run_s_deployment_is_swept(leases_at: MemoryStore, tuner: MemoryTuner, minutes: float, dead: bool) -> None:
    """A lease in use protects; one that was not renewed for a quarter of an hour does not. Hours and their price are told."""
    left_behind(leases_at, tuner)
    (told,) = swept(leases_at, tuner, remove=False, minutes=minutes).deployments
    assert (told.in_use, told.removed, told.leased, told.usd_per_hour) == (not dead, False, True, 1.7)
    assert told.hours == pytest.approx(minutes / 60, abs=0.001)
    assert set(tuner.running) == {NAME}
    (told,) = swept(leases_at, tuner, minutes=minutes).deployments
    assert (told.in_use, told.removed) == (not dead, dead)
    assert (NAME in tuner.running, key_of(NAME, DEAD) in leases_at.objects) == (not dead, not dead)


def test_a_deployment_of_another_store_is_told_and_left(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Somebody with the same account uses it, for all that is known here."""
    made = datetime.now(UTC) - timedelta(hours=3)
    tuner.running["prooftune-ff"] = Deployment(name="prooftune-ff", model="theirs", ready=True, told="ready", chat="x", created_at=made)
    (told,) = swept(leases_at, tuner).deployments
    assert (told.leased, told.in_use, told.removed, told.usd_per_hour) == (False, False, False, None)
    assert told.hours == pytest.approx(3, abs=0.01)
    assert set(tuner.running) == {"prooftune-ff"}


@pytest.mark.parametrize(("minutes", "in_use"), [(4, True), (6, False), (30 * 24 * 60, False)])
def test_a_lease_of_the_future_is_believed_as_far_as_clocks_differ(
    leases_at: MemoryStore, tuner: MemoryTuner, minutes: float, in_use: bool
) -> None:
    """One that a host with a wrong clock wrote would keep its dead run's deployment up until that day."""
    left_behind(leases_at, tuner, minutes=-minutes)
    (told,) = swept(leases_at, tuner).deployments
    assert (told.in_use, told.removed) == (in_use, not in_use)


def test_what_can_be_listed_is_swept(leases_at: MemoryStore, tuner: MemoryTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a provider shows a part only, that part is taken down, the rest is named, and its leases stay."""
    left_behind(leases_at, tuner, "prooftune-01")
    left_behind(leases_at, tuner, "prooftune-02")

    def deployments() -> list[Deployment]:
        raise PartlyListed("the account may not list the others", (tuner.running["prooftune-01"],))

    monkeypatch.setattr(tuner, "deployments", deployments)
    found = swept(leases_at, tuner, minutes=LAPSED)
    assert [(told.name, told.removed) for told in found.deployments] == [("prooftune-01", True)]
    assert found.not_asked == ("azure: the account may not list the others",)
    assert [lease.name for lease in read_leases(leases_at)] == ["prooftune-02"]


def test_leases_of_what_is_gone_are_forgotten(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """Somebody took it down at the provider's console. Without --remove nothing changes, and a lease in use is left."""
    left_behind(leases_at, tuner)
    tuner.running.clear()
    swept(leases_at, tuner, minutes=5)
    swept(leases_at, tuner, remove=False, minutes=LAPSED)
    assert list(leases_at.objects) == [key_of(NAME, DEAD)]
    assert swept(leases_at, tuner, minutes=LAPSED) == Sweep(deployments=(), not_asked=())
    assert not leases_at.objects


def test_each_account_is_asked_once_and_for_its_own(leases_at: MemoryStore) -> None:
    """Two accounts of one provider: what cannot be taken down in one keeps its lease while the other is swept."""
    one, other = (MemoryTuner(provider="azure", address=f"https://{name}.example") for name in ("one", "other"))
    left_behind(leases_at, one, "prooftune-01")
    left_behind(leases_at, other, "prooftune-02")
    other.take_downs = [TransientError("the portal is down")]
    found = {told.name: told for told in swept(leases_at, one, other, one, minutes=LAPSED).deployments}
    assert set(found) == {"prooftune-01", "prooftune-02"}
    assert (found["prooftune-01"].removed, found["prooftune-02"].removed) == (True, False)
    assert found["prooftune-02"].failed == "the portal is down"
    assert list(leases_at.objects) == [key_of("prooftune-02", DEAD)]


def test_an_account_that_cannot_be_asked_is_named(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """A key that is missing for one provider keeps nothing at another from being taken down."""
    left_behind(leases_at, tuner)

    def opened(provider: str, options: Provider) -> Tuner:
        if provider == "openai":
            raise EnvironmentLacks("OPENAI_API_KEY is not set")
        return tuner

    accounts = [("openai", OPTIONS), ("openai", Provider(hold_minutes=5))]
    found = sweep(leases_at, opened, accounts, remove=True, now=datetime.now(UTC) + timedelta(minutes=LAPSED))
    assert found.not_asked == ("openai: OPENAI_API_KEY is not set",)
    assert [told.removed for told in found.deployments] == [True]


def test_a_damaged_lease_is_told(leases_at: MemoryStore, tuner: MemoryTuner) -> None:
    """It may stand for a deployment that costs money, or that is in use: that one is named and left, and the others are swept."""
    left_behind(leases_at, tuner)
    left_behind(leases_at, tuner, "prooftune-02")
    leases_at.objects[key_of(NAME, "other")] = b"{"
    found = swept(leases_at, tuner, minutes=LAPSED)
    assert {told.name: told.removed for told in found.deployments} == {NAME: False, "prooftune-02": True}
    assert all(key_of(NAME, "other") in told for told in (*found.not_asked, *(one.failed for one in found.deployments if not one.removed)))
    assert len(found.not_asked) == 1
    assert set(tuner.running) == {NAME}


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
with served(open_tuner("azure", options), LocalStore(Path(sys.argv[2])), sys.argv[3], sys.argv[4], options, 1.7, use="evaluate"):
    print("in use", flush=True)
    time.sleep(600)
"""


@contextmanager
def in_use(here: StandIn, leases_at: LocalStore) -> Iterator[Provider]:
    """Use the model in a process of its own that is killed when the block ends; the account's options are given."""
    options: Provider = here.tuner.options  # type: ignore[attr-defined]  # of Azure's adapter
    command = [sys.executable, "-c", SERVE, options.model_dump_json(), str(leases_at.root), here.model, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "in use\n", process.stderr.read()
        try:
            yield options
        finally:
            process.send_signal(signal.SIGKILL)
    assert here.api.state()["deployments"] == 1, "a kill takes nothing down"


@pytest.mark.parametrize("use", ["evaluate", "forgetting"])
def test_a_killed_run_that_runs_again_at_once_leaves_nothing(here: StandIn, tmp_path: Path, use: str) -> None:
    """Its lease was renewed a moment ago, but its process is known to be gone, whatever it used the model for. Hours are known."""
    leases_at = LocalStore(tmp_path / "store")
    with in_use(here, leases_at) as options:
        pass
    hours: list[float | None] = []
    with served(open_tuner("azure", options), leases_at, here.model, NAME, options, 1.7, QUICK, hours.append, use):
        assert len(list(read_leases(leases_at))) == 1
    assert here.api.state()["deployments"] == 0
    assert len(hours) == (2 if use == "evaluate" else 1)
    assert None not in hours
    assert not list(read_leases(leases_at))
    assert [path for path in leases_at.work_dir().rglob("*") if path.is_file()] == []


def test_a_sweep_on_the_same_machine_knows_at_once(here: StandIn, tmp_path: Path) -> None:
    """What a living process uses is left to it; killed, it need not be waited for, and told is not taken down."""
    leases_at = LocalStore(tmp_path / "store")
    with in_use(here, leases_at) as options:
        (told,) = sweep(leases_at, open_tuner, [], remove=True, now=datetime.now(UTC)).deployments
        assert (told.in_use, told.removed) == (True, False)
        hours: list[float | None] = []
        with served(open_tuner("azure", options), leases_at, here.model, NAME, options, 1.7, QUICK, hours.append, "forgetting"):
            assert len(list(read_leases(leases_at))) == 2
        assert here.api.state()["deployments"] == 1, "it is another's as well"
    for remove in (False, True):
        (told,) = sweep(leases_at, open_tuner, [], remove=remove, now=datetime.now(UTC)).deployments
        assert (told.in_use, told.removed) == (False, remove)
    assert here.api.state()["deployments"] == 0
    assert not list(read_leases(leases_at))


def test_a_killed_run_s_deployment_is_swept_at_azure(here: StandIn, tmp_path: Path) -> None:
    """By another machine, where nobody knows of its process, once its lease has run out. The next try counts its hours."""
    leases_at = LocalStore(tmp_path / "store")
    with in_use(here, leases_at) as options:
        pass
    shutil.rmtree(leases_at.work_dir())  # as another machine has it

    now = datetime.now(UTC)
    (told,) = sweep(leases_at, open_tuner, [], remove=True, now=now).deployments
    assert (told.in_use, told.removed, told.usd_per_hour) == (True, False, 1.7)
    (told,) = sweep(leases_at, open_tuner, [], remove=True, now=now + timedelta(minutes=LAPSED)).deployments
    assert (told.name, told.model, told.in_use, told.removed) == (NAME, split_name(here.model), False, True)
    assert here.api.state()["deployments"] == 0
    assert not list(read_leases(leases_at))
    hours: list[float | None] = []
    with served(open_tuner("azure", options), leases_at, here.model, NAME, options, 1.7, QUICK, hours.append, "evaluate"):
        assert hours == [pytest.approx(LAPSED / 60, abs=0.01)]
    assert len(hours) == 2
    assert list(leases_at.list("ledger/")) == []


def split_name(model: str) -> str:
    """Return a base model's name without its version, as a deployment shows it."""
    from prooftune.providers.azure import split_version

    return split_version(model)[0]
