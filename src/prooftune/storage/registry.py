"""Which run is the champion of a task: one small document a task, changed by compare-and-swap."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prooftune.errors import IntegrityError, TransientError
from prooftune.spec import Name
from prooftune.storage.objects import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore, VersionChanged
from prooftune.types import ArtifactRef, Decision, Frozen

_ATTEMPTS = 100
"""Each lost race means that another process has won one, so this many processes may register at once."""
_LONGEST_PAUSE = 0.5
log = logging.getLogger(__name__)


class Registration(Frozen):
    """One run that reached a verdict."""

    run_id: str
    manifest: ArtifactRef
    decision: Decision
    registered_at: str
    """UTC, ISO 8601. For people: the order of the history is the order of registration, whatever clocks say."""
    champion_before: str | None
    """Run id of the champion when this run was registered."""


class Registry(Frozen):
    """The runs of one task and which of them is in use."""

    task: str
    champion: str | None = None
    """Run id of the last promoted run."""
    challenger: str | None = None
    """Run id of a promoted run that is still being compared with the champion in use."""
    history: tuple[Registration, ...] = ()
    """Every registered run, oldest first; nothing is ever removed."""


def register(store: ObjectStore, task: str, run_id: str, manifest: ArtifactRef, decision: Decision) -> dict[str, Any]:
    """Record a run's verdict; ``promote`` makes it the champion. A run that is registered already changes nothing.

    Returns:
        The registry as it is now, JSON-able.

    Raises:
        TransientError: other processes kept changing the registry, or the store's answer got lost. Trying again is safe.
        IntegrityError: the registry is damaged.
    """

    def with_run(registry: Registry) -> Registry:
        if any(entry.run_id == run_id for entry in registry.history):
            return registry
        entry = Registration(
            run_id=run_id,
            manifest=manifest,
            decision=decision,
            registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
            champion_before=registry.champion,
        )
        champion = run_id if decision.verdict == "promote" else registry.champion
        return registry.model_copy(update={"champion": champion, "history": (*registry.history, entry)})

    registry = _change(store, task, with_run)
    log.info("registered %s for %s: %s, champion %s", run_id, task, decision.verdict, registry.champion)
    return registry.model_dump(mode="json")


def read_registry(store: ObjectStore, task: str) -> dict[str, Any]:
    """The registry of a task, JSON-able; that of an unknown task is empty. Raises IntegrityError when it is damaged."""
    return _read(store, task)[0].model_dump(mode="json")


def _change(store: ObjectStore, task: str, change: Callable[[Registry], Registry]) -> Registry:
    for attempt in range(_ATTEMPTS):
        before, version = _read(store, task)
        after = change(before)
        if after == before:
            return before
        data = (after.model_dump_json(indent=2) + "\n").encode()
        try:
            store.put(_key(task), data, if_absent=version is None, if_match=version)
        except (AlreadyThere, VersionChanged):
            # Jitter parts the processes that collided.
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**attempt)))  # noqa: S311 - no secret depends on it
        else:
            return after
    raise TransientError(f"the registry of {task} in {store.uri} was changed by others {_ATTEMPTS} times in a row; try again")


def _read(store: ObjectStore, task: str) -> tuple[Registry, str | None]:
    # The version is taken before the content: should it change in between, the swap fails instead of losing the change.
    version = store.version(_key(task))
    if version is None:
        return Registry(task=task), None
    try:
        return Registry.model_validate_json(store.get(_key(task))), version
    except NoSuchObject:
        return Registry(task=task), None
    except ValidationError as error:
        raise IntegrityError(
            f"{store.uri}: {_key(task)} is not a registry ({error.error_count()} problems); restore it from a copy"
        ) from None


def _key(task: str) -> str:
    try:
        return f"registry/{TypeAdapter(Name).validate_python(task)}.json"
    except ValidationError:
        raise InvalidKey(f"{task[:80]!r} cannot be a task's name: lower case letters, digits and dashes, at most 63") from None
