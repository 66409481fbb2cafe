"""Which run is the champion of a task, and how it came to be: one small document a task, changed by compare-and-swap.

The gate enters runs and makes those it promotes the champion. People promote and roll back. Each change says who made it, when and why;
nothing is ever removed, so that the line of champions can be followed back: a rollback undoes the newest change that is not undone yet.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prooftune.errors import ProoftuneError
from prooftune.storage.manifest import Manifest, find_run, read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry_document import (
    FOLDER,
    Change,
    Registration,
    Registry,
    champions_in_line,
    change_registry,
    key_of,
    promoted_by_gate,
    read_document,
)
from prooftune.types import ArtifactRef, Decision

WEIGHTS = ("adapter/", "model/")
"""Where a published run keeps what it trained."""
log = logging.getLogger(__name__)


class PromotionRefused(ProoftuneError, ValueError):
    """The champion cannot be changed as asked: wrong run or task, a verdict against it, or no earlier champion."""

    exit_code = 2


class Author(NamedTuple):
    """Who changes the champion, and why."""

    by: str
    reason: str


def register(store: ObjectStore, task: str, run_id: str, manifest: ArtifactRef, decision: Decision) -> dict[str, Any]:
    """Record a run's verdict; ``promote`` makes it the champion. A run that is registered already changes nothing.

    Returns:
        The registry as it is now, JSON-able.

    Raises:
        TransientError: other processes kept changing the registry, or the store's answer got lost. Trying again is safe.
        IntegrityError: the registry is damaged.
    """

    def with_run(registry: Registry) -> Registry:
        if _is_registered(registry, run_id):
            return registry
        entry = _registration(registry, run_id, manifest, decision)
        entered = registry.model_copy(update={"history": (*registry.history, entry)})
        if decision.verdict == "promote":
            return _with_champion(entered, promoted_by_gate(entry))
        if decision.verdict == "inconclusive" and registry.champion is not None:
            return entered.model_copy(update={"challenger": run_id})
        return entered

    registry = change_registry(store, task, with_run)
    log.info("registered %s for %s: %s, champion %s", run_id, task, decision.verdict, registry.champion)
    return registry.model_dump(mode="json")


def promote(store: ObjectStore, task: str, run_id: str, *, reason: str, by: str, force: bool = False) -> dict[str, Any]:
    """Make a published run of the task its champion; one that is the champion already changes nothing.

    A run whose verdict is not ``promote`` needs ``force``, and the change says so.

    Returns:
        The registry as it is now, JSON-able.

    Raises:
        NoSuchObject: no such run is published; the message names those with a similar id.
        PromotionRefused: the run belongs to another task, trained nothing, or its verdict speaks against it.
        TransientError: other processes kept changing the registry, or the store's answer got lost. Trying again is safe.
    """
    author = _author(by, reason)
    key_of(task)
    published = find_run(store, run_id)
    decision = Decision.model_validate(published.facts["decision"])
    _require_fit(published, task, decision, force)
    manifest = store.measure(f"runs/{run_id}/manifest.json")

    def with_champion(registry: Registry) -> Registry:
        if registry.champion == run_id:
            return registry
        if not _is_registered(registry, run_id):
            entry = _registration(registry, run_id, manifest, decision)
            registry = registry.model_copy(update={"history": (*registry.history, entry)})
        forced = decision.verdict != "promote"
        change = Change(action="promote", champion_before=registry.champion, champion=run_id, at=_now(), forced=forced, **author._asdict())
        return _with_champion(registry, change)

    registry = change_registry(store, task, with_champion)
    log.info("promoted %s for %s by %s", run_id, task, author.by)
    return registry.model_dump(mode="json")


def rollback(store: ObjectStore, task: str, *, reason: str, by: str, champion: str | None = None) -> dict[str, Any]:
    """Put the champion before the present one back in use; a second rollback goes one further back.

    Args:
        store: Where the registry is.
        task: Name of the task.
        reason: Why, for those who read the history.
        by: Who.
        champion: Roll back only if this run is still the champion: so two people who see the same fault roll back once.

    Returns:
        The registry as it is now, JSON-able.

    Raises:
        PromotionRefused: there is no champion, none before it, or it is not ``champion``.
        NoSuchObject: the champion before it is no longer published.
        TransientError: other processes kept changing the registry, or the store's answer got lost: look at the history, then try again.
    """
    author = _author(by, reason)

    def with_former(registry: Registry) -> Registry:
        if champion is not None and registry.champion != champion:
            raise PromotionRefused(f"the champion of {task} is {registry.champion}, no longer {champion}; nothing was changed")
        line = champions_in_line(registry.changes)
        if len(line) < 2:
            raise PromotionRefused(
                f"{task} has no champion to go back to: {f'{line[0]} is the first one' if line else 'it never had any'}; "
                "`prooftune promote` puts another run in use"
            )
        read_manifest(store, line[-2])
        change = Change(action="rollback", champion_before=registry.champion, champion=line[-2], at=_now(), **author._asdict())
        return registry.model_copy(update={"champion": line[-2], "changes": (*registry.changes, change)})

    registry = change_registry(store, task, with_former)
    log.info("rolled %s back to %s by %s", task, registry.champion, author.by)
    return registry.model_dump(mode="json")


def history(store: ObjectStore, task: str) -> dict[str, Any]:
    """The registry of a task for a person to read, JSON-able: champion, challenger, every registered run and every change.

    Raises:
        NoSuchObject: no run of the task is registered; the message names the tasks there are.
        IntegrityError: the registry is damaged.
    """
    registry, version = read_document(store, task)
    if version is None:
        tasks = [key.removeprefix(FOLDER).removesuffix(".json") for key in store.list(FOLDER)]
        raise NoSuchObject(f"{store.uri} has no registered run of {task!r}; it has runs of: {', '.join(tasks) or 'no task'}")
    return registry.model_dump(mode="json")


def read_registry(store: ObjectStore, task: str) -> dict[str, Any]:
    """The registry of a task, JSON-able; that of an unknown task is empty. Raises IntegrityError when it is damaged."""
    return read_document(store, task)[0].model_dump(mode="json")


def champion_before(store: ObjectStore, task: str, weights: set[str]) -> str | None:
    """Return the champion that a candidate has to meet: the one in use, or in use when the same weights were registered first.

    So a run that is repeated meets the champion that it met the first time. ``weights`` are SHA-256 digests of safetensors files.
    """
    registry, _ = read_document(store, task)
    for entry in registry.history:
        try:
            files = read_manifest(store, entry.run_id).files
        except NoSuchObject:
            continue
        if weights & {ref.sha256 for name, ref in files.items() if name.startswith(WEIGHTS)}:
            return entry.champion_before
    return registry.champion


def _require_fit(published: Manifest, task: str, decision: Decision, force: bool) -> None:
    run_id, name = published.run_id, published.facts.get("name")
    if name != task:
        raise PromotionRefused(f"{run_id} is a run of {name}, not of {task}; promote it there, or name a run of {task}")
    if not any(file.startswith(WEIGHTS) for file in published.files):
        raise PromotionRefused(f"{run_id} ended in {decision.verdict} and trained nothing, so there is nothing to put in use")
    if decision.verdict != "promote" and not force:
        raise PromotionRefused(
            f"{run_id} ended in {decision.verdict}: {' '.join(decision.reasons)} To put it in use all the same, say --force; "
            "the history will say so too"
        )


def _author(by: str, reason: str) -> Author:
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise PromotionRefused(f"a change of the champion needs who makes it and why; found by {by!r} and the reason {reason!r}")
    return Author(by, reason)


def _is_registered(registry: Registry, run_id: str) -> bool:
    return any(entry.run_id == run_id for entry in registry.history)


def _registration(registry: Registry, run_id: str, manifest: ArtifactRef, decision: Decision) -> Registration:
    return Registration(run_id=run_id, manifest=manifest, decision=decision, registered_at=_now(), champion_before=registry.champion)


def _with_champion(registry: Registry, change: Change) -> Registry:
    """A challenger was compared with the former champion, so it is one no longer."""
    return registry.model_copy(update={"champion": change.champion, "challenger": None, "changes": (*registry.changes, change)})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
