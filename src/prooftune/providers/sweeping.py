"""What dead runs left running at managed providers: found by our names, and taken down.

A deployment whose leases are there and not renewed was left by a dead run. One without a lease in the store belongs to another store, of a
colleague with the same account say: it is shown and left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from prooftune.errors import ProoftuneError
from prooftune.providers.deployment_leases import Lease, bury, key_of, listed, paid_until, read_leases, take_down_unused
from prooftune.providers.tuning import Deployment, Tuner
from prooftune.spec import Provider
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen


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
    """What could not be asked, with the reason: an account, a part of one, what a damaged lease is for. Nobody knows what runs there."""


def sweep(
    store: ObjectStore,
    open_tuner: Callable[[str, Provider], Tuner],
    accounts: Iterable[tuple[str, Provider]],
    *,
    remove: bool,
    now: datetime,
) -> Sweep:
    """Find deployments of ours, and take down those that no run of this store uses any more.

    Neither an account that cannot be asked nor a lease that cannot be read keeps the others from being swept.

    Args:
        store: Where the leases are.
        open_tuner: Opens a provider's adapter.
        accounts: Where to look, besides the accounts that leases name.
        remove: Whether to take down; False = only tell.
        now: Current time, UTC.
    """
    damaged: dict[str, str] = {}
    began, leases = time.monotonic(), list(read_leases(store, unreadable=damaged))

    def moment() -> datetime:
        """The time as it passes: to take something down may last minutes."""
        return now + timedelta(seconds=time.monotonic() - began)

    found: list[Swept] = []
    not_asked: dict[str, None] = dict.fromkeys(damaged.values())
    seen: set[tuple[str, str]] = set()
    for provider, options in (*((lease.provider, lease.options) for lease in leases), *accounts):
        try:
            tuner = open_tuner(provider, options)
            if (account := (provider, tuner.address)) in seen:
                continue
            seen.add(account)
            running, missing = listed(tuner)
        except ProoftuneError as error:
            not_asked[f"{provider}: {error}"] = None
            continue
        if missing:
            not_asked[f"{provider}: {missing}"] = None
        here = [_swept(tuner, store, one, [lease for lease in leases if lease.name == one.name], remove, moment) for one in running]
        found += here
        if remove:
            up = {one.name for one in here if not one.removed}
            gone = [one for one in leases if (one.provider, one.address) == account and one.name not in up and one.is_dead(moment())]
            _bury(store, gone, {one.name: one for one in running}, bool(missing), moment())
    return Sweep(deployments=tuple(found), not_asked=tuple(not_asked))


def _bury(store: ObjectStore, gone: Iterable[Lease], running: dict[str, Deployment], partly: bool, now: datetime) -> None:
    """End the leases of what is gone. Of a list that is not whole nobody knows whether what it lacks is gone."""
    for lease in gone:
        taken_down = running.get(lease.name)
        if taken_down is not None or not partly:
            bury(store, lease, paid_until(lease, taken_down, now))


def _taken_down(tuner: Tuner, store: ObjectStore, dead: Lease, now: datetime) -> bool:
    """Take a deployment down as a run does that leaves it, unless another run has come since the leases were read."""
    own = dead.model_copy(update={"holder": f"sweep-{uuid4().hex[:12]}", "since": now, "stuck": False, "use": ""})
    try:
        return take_down_unused(tuner, store, own, now)
    finally:
        store.delete(key_of(own.name, own.holder))


def _swept(
    tuner: Tuner, store: ObjectStore, deployment: Deployment, leases: Sequence[Lease], remove: bool, moment: Callable[[], datetime]
) -> Swept:
    now = moment()
    in_use = any(not lease.is_dead(now) for lease in leases)
    newest = max(leases, key=lambda lease: lease.renewed, default=None)
    since = deployment.created_at or min((lease.since for lease in leases), default=None)
    failed, removed = "", False
    if remove and newest is not None and not in_use:
        try:
            removed = _taken_down(tuner, store, newest, now)
            in_use = not removed
        except ProoftuneError as error:
            failed = str(error)
    return Swept(
        name=deployment.name,
        provider=tuner.provider,
        model=deployment.model,
        hours=None if since is None else (now - since).total_seconds() / 3600,
        usd_per_hour=newest.usd_per_hour if newest else None,
        leased=newest is not None,
        in_use=in_use,
        removed=removed,
        failed=failed,
    )
