"""Who uses a deployment: a lease in the object store for each run that does, and what a dead run's deployment has cost.

A lease is written before anything is deployed, renewed while the model is in use, and deleted when the deployment is gone or another run
uses it. Where a run died, whoever ends its lease writes down how long its deployment ran, for the next try of the same use to count.

That a run died its own machine knows at once, also where its lease was renewed a moment ago (``storage/living.py``). Any other one knows it
from a lease that nobody renews.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import uuid4

from pydantic import Field, ValidationError

from prooftune.errors import IntegrityError, ProoftuneError
from prooftune.providers.tuning import Deployment, PartlyListed, Tuner
from prooftune.spec import Provider
from prooftune.storage import living
from prooftune.storage.leases import alive
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore
from prooftune.types import Frozen

log = logging.getLogger(__name__)

FOLDER = "ledger/deployments/"
PAST = "ledger/hosted/"
STORE_ID = "ledger/store-id"


class Lease(Frozen):
    """That a run uses a deployment."""

    name: str
    holder: str
    """Tells apart the runs that use the deployment at the same time."""
    provider: str
    address: str
    """Of the account, as ``Tuner.address`` says."""
    options: Provider
    model: str
    """The tuned model, or a base model that has to be deployed."""
    usd_per_hour: float | None
    """What the deployment costs while it runs; None = the price list does not say."""
    since: datetime
    renewed: datetime
    leaving: bool = False
    """The run has done with it, and looks whether it is the last. Two that leave at once both take the deployment down, never neither."""
    stuck: bool = False
    """The run has left, and the deployment could not be taken down."""
    use: str = ""
    """What it is used for, the same in each try: whose bill its hours are in. Empty = nobody counts them."""
    killed: bool = Field(default=False, exclude=True)
    """Whether its process has ended without deleting it, as this machine knows; False = it lives, or nobody here can tell. Not stored."""

    def uses(self, now: datetime) -> bool:
        """Return whether the run still needs the deployment, as far as anybody can tell."""
        return not self.leaving and not self.killed and alive(self.renewed, now)

    def leaves(self, now: datetime) -> bool:
        """Return whether the run may be taking the deployment down at this moment."""
        return self.leaving and not self.stuck and not self.killed and alive(self.renewed, now)

    def is_dead(self, now: datetime) -> bool:
        """Return whether nobody stands behind it any more."""
        return not self.uses(now) and not self.leaves(now)


class Past(Frozen):
    """That a deployment ran for a run which died before it could count the hours."""

    name: str
    use: str
    hours: float | None
    """None = nobody knows when it ended."""


def key_of(name: str, holder: str) -> str:
    """Return where a run's lease of a deployment is."""
    return f"{FOLDER}{name}/{holder}.json"


def id_of(store: ObjectStore) -> str:
    """Return what tells a store from all others, whatever its address is elsewhere: made up at the first call, and kept in it."""
    with suppress(AlreadyThere):
        store.put(STORE_ID, uuid4().hex.encode(), if_absent=True)
    return store.get(STORE_ID).decode()


def write_lease(store: ObjectStore, lease: Lease) -> None:
    """Write a lease, or renew it."""
    store.put(key_of(lease.name, lease.holder), lease.model_dump_json(indent=1).encode())


def read_leases(store: ObjectStore, name: str | None = None, unreadable: dict[str, str] | None = None) -> Iterator[Lease]:
    """Yield every lease, or those of one deployment.

    One that cannot be read is put into ``unreadable``, its key with the reason, and is an IntegrityError where nobody asks for it there.
    """
    for key in store.list(FOLDER if name is None else f"{FOLDER}{name}/"):
        try:
            lease = Lease.model_validate_json(store.get(key))
            yield lease.model_copy(update={"killed": True}) if living.known_dead(store, key) else lease
        except NoSuchObject:
            continue  # its run has just ended
        except ValidationError:
            reason = f"{store.uri}: {key} is no lease; restore it from a copy, or take down what runs under that name and delete it"
            if unreadable is None:
                raise IntegrityError(reason) from None
            unreadable[key] = reason


def take_down_unused(tuner: Tuner, store: ObjectStore, lease: Lease, now: datetime) -> bool:
    """Take a deployment down unless another run uses it, and return whether it was taken down.

    That ``lease`` leaves is written down before the other leases are looked at: who comes after that look waits until it is gone, and who
    came before it is seen. The lease itself is left in the store. A store that does not take the write, as on a full disk, keeps nothing
    running: it only leaves the moment between look and request uncovered.
    """
    try:
        write_lease(store, lease.model_copy(update={"leaving": True, "renewed": now}))
    except ProoftuneError as error:
        log.warning("the store did not take that the deployment %s is being left: %s", lease.name, error)
    if any(one.uses(now) for one in read_leases(store, lease.name) if one.holder != lease.holder):
        return False
    tuner.take_down(lease.name)
    return True


def bury(store: ObjectStore, lease: Lease, until: datetime | None) -> None:
    """Delete a dead run's lease; how long its deployment ran until then is kept for the next try. None = nobody knows until when.

    One that is gone was ended by somebody else since it was read, and its hours may have been counted already.
    """
    if lease.use and store.exists(key_of(lease.name, lease.holder)):
        hours = None if until is None else max((until - lease.since).total_seconds(), 0.0) / 3600
        past = Past(name=lease.name, use=lease.use, hours=hours)
        store.put(f"{PAST}{lease.name}/{lease.holder}.json", past.model_dump_json(indent=1).encode())
    store.delete(key_of(lease.name, lease.holder))
    living.forget(store, key_of(lease.name, lease.holder))


def paid_until(lease: Lease, deployment: Deployment | None, now: datetime) -> datetime | None:
    """Return until when a dead run's deployment, as it is listed now, was paid for; None = it is gone, and nobody knows since when."""
    if deployment is None:
        return None
    return now if deployment.idle_s is None else min(now, lease.renewed + timedelta(seconds=deployment.idle_s))


def collect_past(store: ObjectStore, name: str, use: str) -> Iterator[float | None]:
    """Yield the hours that dead tries of a use left to be counted, each once: it is forgotten when the next one is asked for.

    Raises:
        IntegrityError: a record is damaged.
    """
    for key in store.list(f"{PAST}{name}/"):
        try:
            past = Past.model_validate_json(store.get(key))
        except NoSuchObject:
            continue
        except ValidationError:
            raise IntegrityError(
                f"{store.uri}: {key} does not say how long a deployment ran; restore it from a copy, or delete it"
            ) from None
        if past.use == use:
            yield past.hours
            store.delete(key)


def listed(tuner: Tuner) -> tuple[list[Deployment], str]:
    """Return the account's deployments under names of ours, and why some may be missing; empty = none is."""
    try:
        return tuner.deployments(), ""
    except PartlyListed as partly:
        return list(partly.found), str(partly)
