"""A tuned model that answers only while it is needed: deployed, used, and taken down again, also after a crash.

Before anything is deployed a lease is written to the object store, and renewed while the model is in use. A deployment of ours whose lease
is not renewed was left by a dead run: ``sweep`` takes it down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prooftune.errors import EnvironmentLacks, ProoftuneError, TransientError
from prooftune.providers.chat import ChatModel
from prooftune.providers.submission import PATIENCE, Patience
from prooftune.providers.tuning import Deployment, Tuner
from prooftune.spec import Provider
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.types import Frozen

log = logging.getLogger(__name__)

FOLDER = "ledger/deployments/"
RENEW_S = 60.0
DEAD_AFTER_S = 600.0
"""A lease that was not renewed for so long belongs to a dead run: ten renewals were missed."""
READY_WITHIN_S = 3600.0


class Lease(Frozen):
    """That a run uses a deployment."""

    name: str
    provider: str
    options: Provider
    model: str
    """The tuned model."""
    usd_per_hour: float | None
    """What the deployment costs while it runs; None = the price list does not say."""
    since: datetime
    renewed: datetime


class Swept(Frozen):
    """A deployment of ours that a sweep found."""

    name: str
    provider: str
    model: str
    hours: float | None
    """Since it was made; None = nobody knows."""
    usd_per_hour: float | None
    in_use: bool
    """Whether a run renews its lease: then it is left alone."""
    removed: bool
    failed: str = ""
    """Why it could not be removed."""


@contextmanager
def served(
    tuner: Tuner, store: ObjectStore, model: str, name: str, options: Provider, usd_per_hour: float | None, patience: Patience = PATIENCE
) -> Iterator[ChatModel]:
    """Give the client of a tuned model; what has to run for it is deployed before and taken down after, whatever happens between.

    Raises:
        EnvironmentLacks: the deployment did not become ready within an hour.
    """
    now = datetime.now(UTC)
    lease = Lease(name=name, provider=tuner.provider, options=options, model=model, usd_per_hour=usd_per_hour, since=now, renewed=now)
    with _renewed(store, lease):
        try:
            deployment = tuner.deploy(model, name)
            if deployment is None:
                yield tuner.chat(model)
            else:
                yield tuner.chat(_ready(tuner, deployment, patience).chat)
        finally:
            tuner.take_down(name)
    store.delete(key_of(name))


def sweep(
    store: ObjectStore, open_tuner: Callable[[str, Provider], Tuner], accounts: list[tuple[str, Provider]], *, remove: bool, now: datetime
) -> list[Swept]:
    """Find deployments of ours, and take down those that no run uses any more.

    Args:
        store: Where the leases are.
        open_tuner: Opens a provider's adapter.
        accounts: Where to look, besides the accounts that leases name.
        remove: Whether to take down; False = only tell.
        now: Current time, UTC.
    """
    leases = {lease.name: lease for lease in read_leases(store)}
    places = {(provider, options.model_dump_json()): (provider, options) for provider, options in accounts}
    places |= {(lease.provider, lease.options.model_dump_json()): (lease.provider, lease.options) for lease in leases.values()}
    found: list[Swept] = []
    for provider, options in places.values():
        tuner = open_tuner(provider, options)
        running = {deployment.name: deployment for deployment in tuner.deployments()}
        known = {one.name for one in found if one.provider == provider}
        found += [_swept(tuner, one, leases.get(name), remove, now) for name, one in running.items() if name not in known]
        gone = [name for name, lease in leases.items() if lease.provider == provider and name not in running and not _alive(lease, now)]
        if remove:
            for name in gone:
                store.delete(key_of(name))
    if remove:
        for one in found:
            if one.removed:
                store.delete(key_of(one.name))
    return found


def read_leases(store: ObjectStore) -> Iterator[Lease]:
    """Yield every lease."""
    for key in store.list(FOLDER):
        try:
            yield Lease.model_validate_json(store.get(key))
        except NoSuchObject:
            continue  # its run has just ended


def key_of(name: str) -> str:
    """Return where a deployment's lease is."""
    return f"{FOLDER}{name}.json"


def _swept(tuner: Tuner, deployment: Deployment, lease: Lease | None, remove: bool, now: datetime) -> Swept:
    in_use = lease is not None and _alive(lease, now)
    since = deployment.created_at or (lease.since if lease else None)
    failed = ""
    if remove and not in_use:
        try:
            tuner.take_down(deployment.name)
        except ProoftuneError as error:
            failed = str(error)
    return Swept(
        name=deployment.name,
        provider=tuner.provider,
        model=deployment.model,
        hours=None if since is None else (now - since).total_seconds() / 3600,
        usd_per_hour=lease.usd_per_hour if lease else None,
        in_use=in_use,
        removed=remove and not in_use and not failed,
        failed=failed,
    )


def _alive(lease: Lease, now: datetime) -> bool:
    return now - lease.renewed < timedelta(seconds=DEAD_AFTER_S)


def _ready(tuner: Tuner, deployment: Deployment, patience: Patience) -> Deployment:
    started, number = time.monotonic(), 0
    while not deployment.ready:
        if time.monotonic() - started > READY_WITHIN_S:
            raise EnvironmentLacks(
                f"{tuner.provider}'s deployment {deployment.name} is {deployment.told} after {READY_WITHIN_S / 60:.0f} minutes; it was "
                "taken down. Look at the provider's console for a quota or an outage, then run the same command again"
            )
        time.sleep(patience.pause(number))
        number += 1
        deployment = next((one for one in tuner.deployments() if one.name == deployment.name), deployment)
    return deployment


@contextmanager
def _renewed(store: ObjectStore, lease: Lease) -> Iterator[None]:
    """Write the lease, and renew it from a thread until the block ends."""
    store.put(key_of(lease.name), lease.model_dump_json(indent=1).encode())
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_S):
            try:
                store.put(key_of(lease.name), lease.model_copy(update={"renewed": datetime.now(UTC)}).model_dump_json(indent=1).encode())
            except TransientError as error:
                log.warning("the lease of %s was not renewed: %s", lease.name, error)

    thread = threading.Thread(target=renew, name=f"lease-{lease.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
