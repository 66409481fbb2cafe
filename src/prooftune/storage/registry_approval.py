"""A person's answer to a promotion that the gate has decided: who said what, when and why stands in the registry for good."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from prooftune.storage.objects import ObjectStore
from prooftune.storage.registry import PromotionRefused
from prooftune.storage.registry_document import (
    NOBODY,
    Approval,
    Change,
    Registration,
    Registry,
    change_registry,
    changed_meanwhile,
    opponent_of,
    read_document,
    rollback_of,
    with_champion,
)

log = logging.getLogger(__name__)


def waits_for_approval(store: ObjectStore, task: str, run_id: str) -> bool:
    """Return whether a run is held back until a person has answered; that nobody did in time is no answer of a person."""
    registry, _ = read_document(store, task)
    entry = registry.entry_of(run_id)
    return entry is not None and entry.approval is not None and not entry.approval.is_given and not _was_in_use(registry, run_id)


def settle_approval(store: ObjectStore, task: str, run_id: str, *, approved: bool, by: str, reason: str) -> dict[str, Any]:
    """Write a person's answer down, and put an approved run in use. The first person's answer counts; later ones change nothing.

    An approved run whose champion has changed since it met it stays out of use: the answer was to another question.

    Args:
        store: Where the registry is.
        task: Name of the task.
        run_id: A run that is held back for approval.
        approved: Yes or no.
        by: Who; ``NOBODY`` for the clock, whose no a person may still turn into a yes.
        reason: Why, for those who read the history.

    Returns:
        The registry as it is now, JSON-able.

    Raises:
        PromotionRefused: the run is not registered, or its promotion needs no approval.
        TransientError: other processes kept changing the registry, or the store's answer got lost. Trying again is safe.
    """
    said = Approval(approved=approved, by=by, reason=reason, at=datetime.now(UTC).isoformat(timespec="seconds"))

    def settled(registry: Registry) -> Registry:
        entry = registry.entry_of(run_id)
        if entry is None or entry.approval is None:
            found = "is not registered" if entry is None else f"ended in {entry.decision.verdict} and waits for no approval"
            raise PromotionRefused(f"{run_id} {found} for {task}; `prooftune promote {task} {run_id} --reason …` puts a run in use")
        if entry.approval.is_given or _was_in_use(registry, run_id):
            return registry
        return _approved(registry, entry, said) if approved else _rejected(registry, entry, said)

    registry = change_registry(store, task, settled)
    log.info("the promotion of %s for %s was %s by %s", run_id, task, "approved" if approved else "rejected", by)
    return registry.model_dump(mode="json")


def _approved(registry: Registry, entry: Registration, said: Approval) -> Registry:
    outdated = entry.met != opponent_of(registry, entry.weights)
    if outdated or rollback_of(registry, entry.run_id, entry.weights) is not None:
        return _with(registry, entry, said, changed_meanwhile(entry, registry) if outdated else entry.held_back)
    reason = f"the gate's verdict is promote; approved: {said.reason}" if said.reason else "the gate's verdict is promote; approved"
    change = Change(action="approve", champion_before=registry.champion, champion=entry.run_id, at=said.at, by=said.by, reason=reason)
    return with_champion(_with(registry, entry, said, ""), change)


def _rejected(registry: Registry, entry: Registration, said: Approval) -> Registry:
    why = f": {said.reason}" if said.reason else ""
    late = f"; `prooftune approve {entry.run_id}` still puts it in use" if said.by == NOBODY else ""
    held = _with(registry, entry, said, f"rejected by {said.by} on {said.at[:10]}{why}{late}")
    return held.model_copy(update={"challenger": None}) if held.challenger == entry.run_id else held


def _was_in_use(registry: Registry, run_id: str) -> bool:
    """Return whether somebody promoted the run without waiting for the answer."""
    return any(change.champion == run_id for change in registry.changes)


def _with(registry: Registry, entry: Registration, said: Approval, held_back: str) -> Registry:
    changed = entry.model_copy(update={"approval": said, "held_back": held_back})
    return registry.model_copy(update={"history": tuple(changed if one == entry else one for one in registry.history)})
