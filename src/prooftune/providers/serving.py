"""A tuned model that answers only while it is needed: deployed, used, and taken down again, also after a crash.

Before anything is deployed a lease is written to the object store, and renewed while the model is in use; it is deleted when the deployment
is gone. Runs that use one tuned model share its deployment, each with a lease of its own: the last to leave takes it down.

A deployment whose lease is there and not renewed was left by a dead run: ``sweep`` takes it down. One without a lease in the store belongs
to another store, of a colleague with the same account say: it is shown and left alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from pydantic import ValidationError

from prooftune.errors import EnvironmentLacks, IntegrityError, ProoftuneError
from prooftune.providers.chat import ChatModel
from prooftune.providers.submission import PATIENCE, Patience
from prooftune.providers.tuning import Deployment, Tuner
from prooftune.spec import Provider
from prooftune.storage.leases import RENEW_S, alive, kept_renewed
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.types import Frozen

log = logging.getLogger(__name__)

FOLDER = "ledger/deployments/"
READY_WITHIN_S = 3600.0


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
    """The tuned model."""
    usd_per_hour: float | None
    """What the deployment costs while it runs; None = the price list does not say."""
    since: datetime
    renewed: datetime
    leaving: bool = False
    """The run has done with it, and looks whether it is the last. Two that leave at once both take the deployment down, never neither."""


class Swept(Frozen):
    """A deployment of ours that a sweep found."""

    name: str
    provider: str
    model: str
    hours: float | None
    """Since it was made; None = nobody knows."""
    usd_per_hour: float | None
    leased: bool
    """Whether a run of this store made it: others are left alone."""
    in_use: bool
    """Whether a run renews its lease: then it is left alone."""
    removed: bool
    failed: str = ""
    """Why it could not be removed."""


class Sweep(Frozen):
    """What a sweep found."""

    deployments: tuple[Swept, ...]
    not_asked: tuple[str, ...]
    """Accounts that could not be asked, with the reason: nobody knows what runs there."""


@contextmanager
def served(
    tuner: Tuner,
    store: ObjectStore,
    model: str,
    name: str,
    options: Provider,
    usd_per_hour: float | None,
    patience: Patience = PATIENCE,
    ran: Callable[[float], None] | None = None,
) -> Iterator[ChatModel]:
    """Give the client of a tuned model; what has to run for it is deployed before and taken down after, whatever happens between.

    ``ran`` hears how many hours a deployment ran, once it is gone; where nothing had to be deployed, it hears nothing.

    Raises:
        EnvironmentLacks: the deployment failed, or did not become ready within an hour.
    """
    now, began = datetime.now(UTC), time.monotonic()
    deployment: Deployment | None = None
    lease = Lease(
        name=name,
        holder=uuid4().hex[:12],
        provider=tuner.provider,
        address=tuner.address,
        options=options,
        model=model,
        usd_per_hour=usd_per_hour,
        since=now,
        renewed=now,
    )

    def tell() -> None:
        if ran is not None and deployment is not None:
            ran((time.monotonic() - began) / 3600)

    try:
        with _renewed(store, lease):
            deployment = tuner.deploy(model, name)
            yield tuner.chat(model if deployment is None else _ready(tuner, deployment, patience).chat)
    except BaseException:
        try:
            _leave(tuner, store, lease)
            tell()
        except ProoftuneError as error:  # what went wrong first is what has to be told
            log.error("the deployment %s may still run (%s); take it down: prooftune jobs sweep --remove", name, error)
        raise
    _leave(tuner, store, lease)
    tell()


def _leave(tuner: Tuner, store: ObjectStore, lease: Lease) -> None:
    """Take the deployment down, unless another run uses it. The lease goes last, so that a sweep finds what could not be taken down."""
    now = datetime.now(UTC)
    _write(store, lease.model_copy(update={"renewed": now, "leaving": True}))
    others = [one for one in read_leases(store, lease.name) if one.holder != lease.holder]
    if not any(alive(one.renewed, now) and not one.leaving for one in others):
        tuner.take_down(lease.name)
    store.delete(key_of(lease.name, lease.holder))


def _write(store: ObjectStore, lease: Lease) -> None:
    store.put(key_of(lease.name, lease.holder), lease.model_dump_json(indent=1).encode())


def sweep(
    store: ObjectStore,
    open_tuner: Callable[[str, Provider], Tuner],
    accounts: Iterable[tuple[str, Provider]],
    *,
    remove: bool,
    now: datetime,
) -> Sweep:
    """Find deployments of ours, and take down those that no run of this store uses any more.

    An account that cannot be asked keeps none of the others from being swept.

    Args:
        store: Where the leases are.
        open_tuner: Opens a provider's adapter.
        accounts: Where to look, besides the accounts that leases name.
        remove: Whether to take down; False = only tell.
        now: Current time, UTC.
    """
    leases = list(read_leases(store))
    newest = {lease.name: lease for lease in sorted(leases, key=lambda one: one.renewed)}
    found: list[Swept] = []
    not_asked: dict[str, None] = {}
    seen: set[tuple[str, str]] = set()
    for provider, options in (*((lease.provider, lease.options) for lease in leases), *accounts):
        try:
            tuner = open_tuner(provider, options)
            if (account := (provider, tuner.address)) in seen:
                continue
            seen.add(account)
            running = tuner.deployments()
        except ProoftuneError as error:
            not_asked[f"{provider}: {error}"] = None
            continue
        here = [_swept(tuner, one, newest.get(one.name), remove, now) for one in running]
        found += here
        if remove:
            up = {one.name for one in here if not one.removed}
            for lease in leases:
                if (lease.provider, lease.address) == account and lease.name not in up and not alive(lease.renewed, now):
                    store.delete(key_of(lease.name, lease.holder))
    return Sweep(deployments=tuple(found), not_asked=tuple(not_asked))


def read_leases(store: ObjectStore, name: str | None = None) -> Iterator[Lease]:
    """Yield every lease, or those of one deployment. Raises IntegrityError for a damaged one."""
    for key in store.list(FOLDER if name is None else f"{FOLDER}{name}/"):
        try:
            yield Lease.model_validate_json(store.get(key))
        except NoSuchObject:
            continue  # its run has just ended
        except ValidationError:
            raise IntegrityError(
                f"{store.uri}: {key} is no lease; restore it from a copy, or take down what runs under that name and delete it"
            ) from None


def key_of(name: str, holder: str) -> str:
    """Return where a run's lease of a deployment is."""
    return f"{FOLDER}{name}/{holder}.json"


def _swept(tuner: Tuner, deployment: Deployment, lease: Lease | None, remove: bool, now: datetime) -> Swept:
    in_use = lease is not None and alive(lease.renewed, now)
    since = deployment.created_at or (lease.since if lease else None)
    failed = ""
    removable = remove and lease is not None and not in_use
    if removable:
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
        leased=lease is not None,
        in_use=in_use,
        removed=removable and not failed,
        failed=failed,
    )


def _ready(tuner: Tuner, deployment: Deployment, patience: Patience) -> Deployment:
    started, number = time.monotonic(), 0
    while not deployment.ready:
        if deployment.failed:
            raise EnvironmentLacks(
                f"{tuner.provider}'s deployment {deployment.name} is {deployment.told}; it was taken down. "
                "Look at the provider's console for the reason, then run the same command again"
            )
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
    """Write the lease, and renew it until the block ends."""

    def renew() -> bool:
        _write(store, lease.model_copy(update={"renewed": datetime.now(UTC)}))
        return True

    renew()
    with kept_renewed(lease.name, renew, RENEW_S):
        yield
