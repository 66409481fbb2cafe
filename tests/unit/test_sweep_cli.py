"""`prooftune jobs sweep` against a stand-in for Azure, where a tuned model has to be deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_jobs import Desk
from fixtures_stand_ins import open_stand_in

from prooftune.providers.deployment_leases import Lease, read_leases
from prooftune.providers.deployment_leases import key_of as lease_key_of
from prooftune.storage.local import LocalStore


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """At Azure's stand-in, where a deployment was left by a run that died an hour ago."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in("azure", tmp_path, monkeypatch) as here:
        yield Desk(here, LocalStore(tmp_path / "store"))


def left(desk: Desk, name: str, minutes: float) -> None:
    """Leave a deployment whose lease was renewed so long ago."""
    from datetime import UTC, datetime, timedelta

    desk.here.tuner.deploy(desk.here.model, name)
    then = datetime.now(UTC) - timedelta(minutes=minutes)
    lease = Lease(
        name=name,
        holder="dead",
        provider="azure",
        address=desk.here.tuner.address,
        options=desk.options,
        model=desk.here.model,
        usd_per_hour=1.7,
        since=then,
        renewed=then,
    )
    desk.store.put(lease_key_of(name, lease.holder), lease.model_dump_json().encode())


def test_deployments_are_swept(azure: Desk) -> None:
    """Told first, with what they cost; removed with --remove, but for those in use and those of other stores."""
    left(azure, "prooftune-dead", 60)
    left(azure, "prooftune-used", 1)
    azure.here.tuner.deploy(azure.here.model, "prooftune-theirs")
    found = {one["name"]: one for one in azure.answer("sweep")["deployments"]}
    assert {name: (one["leased"], one["in_use"], one["removed"]) for name, one in found.items()} == {
        "prooftune-dead": (True, False, False),
        "prooftune-used": (True, True, False),
        "prooftune-theirs": (False, False, False),
    }
    assert found["prooftune-dead"]["usd_per_hour"] == 1.7
    screen = azure.screen("sweep")
    for words in ("left by a dead run", "in use", "no lease in this store", "1.70", "prooftune jobs sweep --remove --store"):
        assert words in screen
    assert azure.here.api.state()["deployments"] == 3
    screen = azure.screen("sweep", "--remove")
    assert "removed" in screen
    assert "sweep --remove" not in screen
    assert {one.name for one in azure.here.tuner.deployments()} == {"prooftune-used", "prooftune-theirs"}
    assert [lease.name for lease in read_leases(azure.store)] == ["prooftune-used"]


def test_a_sweep_says_what_it_could_not_do(azure: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be taken down stays, with the reason; an account that cannot be asked is named."""
    left(azure, "prooftune-dead", 60)
    azure.here.api.faults.order("refuse", "delete_deployment")
    (told,) = azure.answer("sweep", "--remove", code=3)["deployments"]
    assert (told["removed"], bool(told["failed"])) == (False, True)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    told = azure.answer("sweep", "--remove", code=3)
    assert told["deployments"] == []
    assert "AZURE_OPENAI_API_KEY" in told["not_asked"][0]
    assert "could not be asked" in azure.screen("sweep", code=3)
    assert azure.here.api.state()["deployments"] == 1
