"""The registry's document: what it holds, and how it is read and changed by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError, model_validator

from prooftune.spec import Name
from prooftune.storage import documents
from prooftune.storage.objects import InvalidKey, ObjectStore
from prooftune.types import ArtifactRef, Decision, Frozen

FOLDER = "registry/"
GATE = "gate"
"""Who changes the champion where no person does."""
NOBODY = "nobody"
"""Who rejects where no person has answered in time."""


class Approval(Frozen):
    """A person's word on a promotion that the gate has decided."""

    approved: bool | None = None
    """None = it is waited for."""
    by: str = ""
    reason: str = ""
    at: str = ""
    """UTC, ISO 8601."""

    @property
    def is_given(self) -> bool:
        """Whether a person has answered; that nobody did in time may still be put right."""
        return self.approved is not None and self.by != NOBODY


class Registration(Frozen):
    """One run that reached a verdict."""

    run_id: str
    manifest: ArtifactRef
    decision: Decision
    registered_at: str
    """UTC, ISO 8601. For people: the order of the history is the order of registration, whatever clocks say."""
    champion_before: str | None
    """Run id of the champion when this run was registered."""
    met: str | None
    """Run id of the champion that the gate compared this run with; None = there was none to meet."""
    weights: tuple[str, ...] = ()
    """SHA-256 of its safetensors files, sorted; empty where it trained nothing, or was registered before they were kept."""
    held_back: str = ""
    """Why the verdict ``promote`` did not make it the champion."""
    approval: Approval | None = None
    """What a person said of its promotion; None = nobody has to be asked."""

    @model_validator(mode="before")
    @classmethod
    def _older_entries_met_the_champion_in_use(cls, entry: Any) -> Any:
        """Read an entry written before ``met`` was kept."""
        return entry if not isinstance(entry, dict) or "met" in entry else entry | {"met": entry.get("champion_before")}


class Change(Frozen):
    """One change of the champion."""

    action: Literal["register", "approve", "promote", "rollback"]
    """``register``: by the gate; ``approve``: by the gate and a person who was asked; ``promote``, ``rollback``: by a person."""
    champion_before: str | None
    champion: str
    at: str
    """UTC, ISO 8601. For people: the order of the changes is the order in which they were made, whatever clocks say."""
    by: str
    """Who; ``gate`` for a run that the gate promoted."""
    reason: str
    forced: bool = False
    """Whether the run was promoted against its verdict."""


class Registry(Frozen):
    """The runs of one task and which of them is in use."""

    task: str
    champion: str | None = None
    """Run id of the run in use."""
    challenger: str | None = None
    """Run id of the newest run that may beat the champion in use: it was inconclusive, or it met another champion than this one."""
    history: tuple[Registration, ...] = ()
    """Every registered run, oldest first; nothing is ever removed."""
    changes: tuple[Change, ...] = ()
    """Every change of the champion, oldest first; nothing is ever removed."""

    def entry_of(self, run_id: str | None) -> Registration | None:
        """Return what is registered of a run; None = nothing."""
        return next((entry for entry in self.history if entry.run_id == run_id), None)

    @model_validator(mode="before")
    @classmethod
    def _older_documents_imply_their_changes(cls, document: Any) -> Any:
        """Read a document written before changes were kept: each promotion in its history was one."""
        if not isinstance(document, dict) or "changes" in document:
            return document
        entries = TypeAdapter(tuple[Registration, ...]).validate_python(document.get("history", ()))
        return document | {"changes": [promoted_by_gate(entry).model_dump() for entry in entries if entry.decision.verdict == "promote"]}

    @model_validator(mode="after")
    def _champion_follows_from_the_changes(self) -> Self:
        line = champions_in_line(self.changes)
        if self.champion != (line[-1] if line else None):
            raise ValueError(f"the champion is {self.champion}, the changes end with {line[-1:]}")
        return self


def champions_in_line(changes: Sequence[Change]) -> list[str]:
    """Return the champions whose promotion is not undone, oldest first; the last one is in use."""
    line: list[str] = []
    for change in changes:
        if change.action == "rollback":
            del line[-1:]
        else:
            line.append(change.champion)
    return line


def opponent_of(registry: Registry, weights: Sequence[str]) -> str | None:
    """Return the champion that a candidate with these weights has to meet; None = there is none.

    That is the one in use, unless it has these very weights: then it is the one that they met before.
    """
    in_use = registry.entry_of(registry.champion)
    if in_use is not None and weights and in_use.weights == tuple(weights):
        return in_use.met
    return registry.champion


def rollback_of(registry: Registry, run_id: str, weights: Sequence[str]) -> Change | None:
    """Return the rollback that took this run, or another one with its weights, out of use, unless it was put back in use since."""
    with_weights = {entry.run_id for entry in registry.history if weights and entry.weights == tuple(weights)}
    same, found = {run_id} | with_weights, None
    for change in registry.changes:
        if change.champion in same:
            found = None
        elif change.action == "rollback" and change.champion_before in same:
            found = change
    return found


def promoted_by_gate(entry: Registration) -> Change:
    """Return the change that registering a promoted run is."""
    return Change(
        action="register",
        champion_before=entry.champion_before,
        champion=entry.run_id,
        at=entry.registered_at,
        by=GATE,
        reason="the gate's verdict is promote",
    )


def changed_meanwhile(entry: Registration, registry: Registry) -> str:
    """Return why a run is held back that met another champion than the one in use."""
    return f"the champion changed meanwhile ({entry.met or 'none'} → {registry.champion or 'none'}): run again to meet it"


def with_champion(registry: Registry, change: Change) -> Registry:
    """Return the registry with another champion. A challenger was compared with the former one, so it is one no longer."""
    return registry.model_copy(update={"champion": change.champion, "challenger": None, "changes": (*registry.changes, change)})


def change_registry(store: ObjectStore, task: str, change: Callable[[Registry], Registry]) -> Registry:
    """Change a task's registry. Returns and raises as ``change_document``."""
    return documents.change_document(store, key_of(task), Registry(task=task), change)


def read_document(store: ObjectStore, task: str) -> tuple[Registry, str | None]:
    """Return the registry of a task and its version; that of an unknown task is empty and has none. Raises IntegrityError."""
    return documents.read_document(store, key_of(task), Registry(task=task))


def key_of(task: str) -> str:
    """Return the key of a task's registry. Raises InvalidKey for what the spec would not allow as a name."""
    try:
        return f"{FOLDER}{TypeAdapter(Name).validate_python(task)}.json"
    except ValidationError:
        raise InvalidKey(f"{task[:80]!r} cannot be a task's name: lower case letters, digits and dashes, at most 63") from None
