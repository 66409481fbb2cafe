"""What the tests of deployments share: an empty store, a provider whose models have to be deployed, and what dead runs leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fixtures_ledger import MemoryStore, MemoryTuner

from prooftune.providers.deployment_leases import Lease, write_lease
from prooftune.providers.sweeping import Sweep, sweep
from prooftune.providers.tuning import Tuner
from prooftune.spec import Provider
from prooftune.storage.leases import DEAD_AFTER_S, SKEW_S
from prooftune.storage.objects import ObjectStore

LAPSED = (DEAD_AFTER_S + SKEW_S) / 60 + 1
"""Minutes after which a lease that nobody renews has surely lapsed."""
NAME = "prooftune-0a1b2c"
OPTIONS = Provider()
DEAD = "dead"
"""Holder of a lease that a killed run left."""


@pytest.fixture
def leases_at() -> MemoryStore:
    """An empty store, for leases."""
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


def left_behind(store: ObjectStore, tuner: MemoryTuner, name: str = NAME, minutes: float = 0, **changes: object) -> None:
    """Leave a deployment and its lease as a run does that was killed so many minutes ago."""
    tuner.deploy("tuned-1", name)
    then = datetime.now(UTC) - timedelta(minutes=minutes)
    lease = Lease(
        name=name,
        holder=DEAD,
        provider=tuner.provider,
        address=tuner.address,
        options=Provider(base_url=tuner.address),
        model="tuned-1",
        usd_per_hour=1.7,
        since=then,
        renewed=then,
    )
    write_lease(store, lease.model_copy(update=changes))
