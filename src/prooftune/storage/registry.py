"""Which run is the champion of a task, and how it came to be: one small document a task, changed by compare-and-swap.

The gate enters runs and makes those it promotes the champion. People promote and roll back. Each change says who made it, when and why;
nothing is ever removed, so that the line of champions can be followed back: a rollback undoes the newest change that is not undone yet.

The gate replaces the champion that the candidate met and no other, and puts nothing back in use that a person has rolled back.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prooftune.errors import ProoftuneError
from prooftune.storage.manifest import Manifest, find_run, read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry_contest import WEIGHTS, Contest, contest_of
from prooftune.storage.registry_document import (
    FOLDER,
    Approval,
    Change,
    Registration,
    Registry,
    champions_in_line,
    change_registry,
    changed_meanwhile,
    key_of,
    opponent_of,
    promoted_by_gate,
    read_document,
    rollback_of,
    with_champion,
)
from prooftune.types import ArtifactRef, Decision

log = logging.getLogger(__name__)


class PromotionRefused(ProoftuneError, ValueError):
    """The champion cannot be changed as asked: wrong run or task, a verdict against it, or no earlier champion."""

    exit_code = 2


class Author(NamedTuple):
    """Who changes the champion, and why."""

    by: str
    reason: str


def register(store: ObjectStore, task: str, run_id: str, manifest: ArtifactRef, decision: Decision, *, ask: bool = False) -> dict[str, Any]:
    """Record a published run's verdict; ``promote`` makes it the champion. A run that is registered already changes nothing.

    Where a person is to be asked (``ask``), ``promote`` makes it the challenger until ``settle_approval`` says what was answered.

    The gate's decision is about the champion that the candidate met, by the run's ``champion.json``. Where another one is in use by now,
    the run becomes the challenger instead; where a person has rolled the run or its weights back, it is only entered.

    Returns:
        The registry as it is now, JSON-able, with a ``note``: why a run with the verdict ``promote`` is not in use, else "".

    Raises:
        TransientError: other processes kept changing the registry, or the store's answer got lost. Trying again is safe.
        IntegrityError: the registry is damaged, or ``champion.json`` is not the published one.
    """
    contest = contest_of(store, run_id)

    def with_run(registry: Registry) -> Registry:
        if registry.entry_of(run_id) is not None:
            return registry
        return _entered(registry, _registration(registry, run_id, manifest, decision, contest), ask)

    registry = change_registry(store, task, with_run)
    log.info("registered %s for %s: %s, champion %s", run_id, task, decision.verdict, registry.champion)
    return registry.model_dump(mode="json") | {"note": _note_on(registry, run_id)}


def _entered(registry: Registry, entry: Registration, ask: bool) -> Registry:
    """Return the registry with one more run, as champion or challenger where it is one."""
    undone = rollback_of(registry, entry.run_id, entry.weights)
    outdated = entry.met != opponent_of(registry, entry.weights)
    verdict = entry.decision.verdict
    if verdict == "promote" and undone is not None:
        entry = entry.model_copy(update={"held_back": _rolled_back(registry.task, entry.run_id, undone)})
    elif verdict == "promote" and outdated:
        entry = entry.model_copy(update={"held_back": changed_meanwhile(entry, registry)})
    elif verdict == "promote" and ask:
        entry = entry.model_copy(update={"approval": Approval(), "held_back": f"waits for approval: `prooftune approve {entry.run_id}`"})
    entered = registry.model_copy(update={"history": (*registry.history, entry)})
    if verdict == "promote" and not entry.held_back:
        return with_champion(entered, promoted_by_gate(entry))
    challenges = verdict == "inconclusive" or (verdict == "promote" and undone is None)
    if challenges and (registry.champion is not None or entry.approval is not None):
        return entered.model_copy(update={"challenger": entry.run_id})
    return entered


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
    manifest, contest = store.measure(f"runs/{run_id}/manifest.json"), contest_of(store, run_id)

    def promoted(registry: Registry) -> Registry:
        if registry.champion == run_id:
            return registry
        if registry.entry_of(run_id) is None:
            entry = _registration(registry, run_id, manifest, decision, contest)
            registry = registry.model_copy(update={"history": (*registry.history, entry)})
        forced = decision.verdict != "promote"
        change = Change(action="promote", champion_before=registry.champion, champion=run_id, at=_now(), forced=forced, **author._asdict())
        return with_champion(registry, change)

    registry = change_registry(store, task, promoted)
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


def champion_met(store: ObjectStore, task: str, run_id: str) -> tuple[str | None] | None:
    """Return the champion that a registered run met (None = there was none), as a tuple of one; None where the run is not registered."""
    entry = read_document(store, task)[0].entry_of(run_id)
    return None if entry is None else (entry.met,)


def why_not_in_use(store: ObjectStore, task: str, run_id: str) -> str:
    """Return why a run with the verdict ``promote`` is not in use, as things are now; "" where it is, or another run replaced it."""
    return _note_on(read_document(store, task)[0], run_id)


def standing(store: ObjectStore, task: str, run_id: str) -> str:
    """Return in a sentence whether a run is in use: since when, by whom and why, or why not; "" where that was no question."""
    registry = read_document(store, task)[0]
    if note := _note_on(registry, run_id):
        return f"Not in use: {note.rstrip('.')}."
    made = next((change for change in reversed(registry.changes) if change.champion == run_id), None)
    if made is None:
        return ""
    if registry.champion != run_id:
        return f"No longer in use: the champion of {task} is {registry.champion or 'none'}."
    entry = registry.entry_of(run_id)
    asked = entry.approval if entry is not None and made.action == "approve" else None
    why = made.reason if asked is None else asked.reason
    who = {"register": "promoted by the gate", "approve": f"approved by {made.by}", "promote": f"promoted by {made.by}"}
    by = who.get(made.action, f"put back by {made.by}")
    said = f": {why.rstrip('.')}" if why and made.action != "register" else ""
    return f"In use: it is the champion of {task}, {by} on {made.at[:10]}{said}."


def _note_on(registry: Registry, run_id: str) -> str:
    entry = registry.entry_of(run_id)
    if entry is None or entry.decision.verdict != "promote" or registry.champion == run_id:
        return ""
    if (undone := rollback_of(registry, run_id, entry.weights)) is not None:
        return _rolled_back(registry.task, run_id, undone)
    return "" if any(change.champion == run_id for change in registry.changes) else entry.held_back


def _rolled_back(task: str, run_id: str, undone: Change) -> str:
    which = "" if undone.champion_before == run_id else f"its weights, as {undone.champion_before}, were "
    return f"{which}rolled back by {undone.by}: {undone.reason}; `prooftune promote {task} {run_id} --reason …` puts it back"


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


def _registration(registry: Registry, run_id: str, manifest: ArtifactRef, decision: Decision, contest: Contest) -> Registration:
    """A run that does not say which champion it met trained nothing, or is from before that was published: it met whom it had to."""
    return Registration(
        run_id=run_id,
        manifest=manifest,
        decision=decision,
        registered_at=_now(),
        champion_before=registry.champion,
        met=contest.met if contest.told else opponent_of(registry, contest.weights),
        weights=contest.weights,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
