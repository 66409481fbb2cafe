"""A model that answers only while it is needed: deployed, used, and taken down again, also after a crash.

Runs that use one model share its deployment, each with a lease of its own: the last to leave takes it down. Who arrives while
another one leaves waits until that is done, since the deployment may be gone then. What a dead run left is taken down by the next run
that uses the same model and knows it to be dead (``deployment_leases.py`` says when), or by a sweep (``sweeping.py``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from prooftune.errors import EnvironmentLacks, ProoftuneError, TransientError
from prooftune.providers.batches import batches_base
from prooftune.providers.chat import ChatModel
from prooftune.providers.deployment_leases import (
    Lease,
    bury,
    collect_past,
    id_of,
    key_of,
    listed,
    paid_until,
    read_leases,
    take_down_unused,
    write_lease,
)
from prooftune.providers.submission import PATIENCE, Patience
from prooftune.providers.tuning import MARK, Deployment, Tuner
from prooftune.spec import Provider, digest
from prooftune.storage.leases import RENEW_S, kept_renewed
from prooftune.storage.living import shown_alive
from prooftune.storage.objects import ObjectStore

log = logging.getLogger(__name__)

READY_WITHIN_S = 3600.0
SWEEP = "prooftune jobs sweep --remove"
LEFT_UP = (
    "the deployment %s is left up, and goes on costing money, for an earlier try that may be alive on another machine; "
    "if that try is dead, take the deployment down once its lease has lapsed, 15 minutes after its end: %s"
)


@contextmanager
def served(
    tuner: Tuner,
    store: ObjectStore,
    model: str,
    name: str,
    options: Provider,
    usd_per_hour: float | None,
    patience: Patience = PATIENCE,
    ran: Callable[[float | None], None] | None = None,
    use: str = "",
) -> Iterator[ChatModel]:
    """Give the client of a model; what has to run for it is deployed before and taken down after, whatever happens between.

    Args:
        tuner: Of the model's provider.
        store: Where the leases are.
        model: The tuned model, or a base model that has to be deployed.
        name: Of its deployment.
        options: How a sweep reaches the account.
        usd_per_hour: What the deployment costs, for its lease.
        patience: How long to wait between looks.
        ran: Hears how many hours a deployment ran, once it is gone, and those of earlier tries of the same use that died; None = one ran,
            and nobody knows how long. Where nothing had to be deployed, and no dead try left a lease, it hears nothing.
        use: What the model is asked for, the same in each try.

    Raises:
        EnvironmentLacks: the deployment failed, did not become ready within an hour, or could not be taken down.
        TransientError: it could not be taken down.
    """
    lease = _lease_of(tuner, model, name, options, usd_per_hour, use)
    stay = _Stay(tuner, store, lease, patience, ran)
    with shown_alive(store, key_of(name, lease.holder)):
        try:
            with _renewed(store, lease):
                stay.arrive()
                yield tuner.chat(stay.deployed())
        except BaseException:
            try:
                stay.leave()
            except ProoftuneError as error:  # what went wrong first is what has to be told
                log.error("%s", error)
            raise
        stay.leave()


@contextmanager
def served_base(tuner: Tuner, store: ObjectStore, model: str, options: Provider, patience: Patience = PATIENCE) -> Iterator[ChatModel]:
    """Give the client of a base model: most answer as they are, and Azure's from deployments that cost nothing by the hour.

    Batches take a deployment of their own there, beside the one that answers directly. Runs of one store share both; another store has
    others, since its leases are not known here.

    Raises:
        EnvironmentLacks, TransientError: as ``served``.
    """
    if tuner.provider != "azure":
        yield tuner.chat(model)
        return
    own = digest([id_of(store), tuner.address, options.resource, options.tier, model])[:24]
    with served(tuner, store, model, f"{MARK}-base-{own}", options, 0.0, patience) as chat:
        if not batches_base(tuner.provider, options):
            yield chat
            return
        from prooftune.providers.azure import AzureBatchTuner

        batches = AzureBatchTuner(options, direct=chat.name)
        with served(batches, store, model, f"{MARK}-batch-{own}", options, 0.0, patience) as batched:
            yield batched


@dataclass
class _Stay:
    """A run's use of a deployment, from its arrival until it has left."""

    tuner: Tuner
    store: ObjectStore
    lease: Lease
    patience: Patience
    ran: Callable[[float | None], None] | None
    began: float | None = None
    """When the deployment became this run's to take down, by the monotonic clock; None = it is not yet."""
    took_over: bool = False
    """Whether it ended a dead run's lease: what that left is this run's to take down, whatever the provider says of the model."""
    answers_as_it_is: bool = False

    def arrive(self) -> None:
        """Wait until nobody leaves any more, and end the leases of dead runs: what they left is this run's to take down from then on."""
        number = 0
        while any(one.leaves(datetime.now(UTC)) for one in self._others()):
            time.sleep(self.patience.pause(number))
            number += 1
        self.began, now = time.monotonic(), datetime.now(UTC)
        if dead := [one for one in self._others() if one.is_dead(now)]:
            found = next((one for one in listed(self.tuner)[0] if one.name == self.lease.name), None)
            for one in dead:
                bury(self.store, one, paid_until(one, found, now))
                self.took_over = True
        self._count_past()

    def deployed(self) -> str:
        """Deploy the model where it has to be, wait until it answers, and return by which name."""
        deployment = self.tuner.deploy(self.lease.model, self.lease.name)
        self.answers_as_it_is = deployment is None and not self.took_over
        return self.lease.model if deployment is None else _ready(self.tuner, deployment, self.lease.model, self.patience).chat

    def leave(self) -> None:
        """Take the deployment down, unless another run uses it, and say how long it ran.

        The lease goes last, so that a sweep finds what could not be taken down.

        Raises:
            TransientError, EnvironmentLacks: the deployment may still run; the message says how to take it down.
        """
        if self.began is not None and not self.answers_as_it_is:
            now, name = datetime.now(UTC), self.lease.name
            try:
                down = take_down_unused(self.tuner, self.store, self.lease, now)
            except ProoftuneError as error:
                self._attempt(
                    lambda: write_lease(self.store, self.lease.model_copy(update={"renewed": now, "leaving": True, "stuck": True}))
                )
                kind = TransientError if isinstance(error, TransientError) else EnvironmentLacks
                raise kind(f"the deployment {name} may still run and cost money ({error}); take it down: {SWEEP}") from error
            self._hear((time.monotonic() - self.began) / 3600)
            if not self._attempt(lambda: self._settle(down)):
                self._hear(None)
        self._attempt(lambda: self.store.delete(key_of(self.lease.name, self.lease.holder)))

    def _settle(self, down: bool) -> None:
        """Count what tries of the same use left that died since; of one that may be alive nobody knows."""
        now = datetime.now(UTC)
        for one in self._others():
            if down and one.is_dead(now):
                bury(self.store, one, self.lease.since)  # the hours since then are this run's own
            elif one.use == self.lease.use != "" and one.uses(now):
                log.warning(LEFT_UP, one.name, SWEEP)
                self._hear(None)
        self._count_past()

    def _count_past(self) -> None:
        if self.lease.use:
            for hours in collect_past(self.store, self.lease.name, self.lease.use):
                self._hear(hours)

    def _hear(self, hours: float | None) -> None:
        if self.ran is not None:
            self.ran(hours)

    def _others(self) -> list[Lease]:
        return [one for one in read_leases(self.store, self.lease.name) if one.holder != self.lease.holder]

    def _attempt(self, step: Callable[[], object]) -> bool:
        """Do what a sweep will do if it fails here, and return whether it was done."""
        try:
            step()
        except ProoftuneError as error:
            log.warning("a sweep has to look after the lease of the deployment %s: %s", self.lease.name, error)
            return False
        return True


def _ready(tuner: Tuner, deployment: Deployment, model: str, patience: Patience) -> Deployment:
    """Wait until a deployment answers; one that is gone meanwhile is made anew."""
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
        found = next((one for one in listed(tuner)[0] if one.name == deployment.name), None)
        deployment = found or tuner.deploy(model, deployment.name) or deployment
    return deployment


def _lease_of(tuner: Tuner, model: str, name: str, options: Provider, usd_per_hour: float | None, use: str) -> Lease:
    now = datetime.now(UTC)
    return Lease(
        name=name,
        holder=uuid4().hex[:12],
        provider=tuner.provider,
        address=tuner.address,
        options=options,
        model=model,
        usd_per_hour=usd_per_hour,
        since=now,
        renewed=now,
        use=use,
    )


@contextmanager
def _renewed(store: ObjectStore, lease: Lease) -> Iterator[None]:
    """Write the lease, and renew it until the block ends."""

    def renew() -> bool:
        write_lease(store, lease.model_copy(update={"renewed": datetime.now(UTC)}))
        return True

    renew()
    with kept_renewed(lease.name, renew, RENEW_S):
        yield
