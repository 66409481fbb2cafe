"""A person's yes or no to a run's estimate: asked for once, answered once, kept in the object store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import ValidationError

from prooftune.errors import IntegrityError, SpecError
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/approvals/"


class Asked(Frozen):
    """That a run waits for a person."""

    key: str
    """Run: the task's name and the digest of its inputs."""
    usd: float
    """Estimate that was shown."""
    at: str
    """UTC, ISO 8601."""
    flow_run: str | None = None
    """Id of the Prefect flow run that waits."""


class Answer(Frozen):
    """What a person said; the first answer to an amount counts."""

    key: str
    usd: float
    approved: bool
    by: str
    reason: str
    at: str


def ask(store: ObjectStore, key: str, usd: float, flow_run: str | None) -> Asked:
    """Write down that a run waits; asked again, by a later flow run, the newest one is the one to be woken."""
    asked = Asked(key=key, usd=usd, at=_now(), flow_run=flow_run)
    store.put(_asked_key(key), asked.model_dump_json(indent=1).encode())
    return asked


def answer(store: ObjectStore, key: str, usd: float, *, approved: bool, by: str, reason: str) -> Answer:
    """Write down what a person said, unless somebody was quicker; return the answer that counts."""
    said = Answer(key=key, usd=usd, approved=approved, by=by, reason=reason, at=_now())
    try:
        store.put(_answer_key(key, usd), said.model_dump_json(indent=1).encode(), if_absent=True)
    except AlreadyThere:
        found = read(store, key, usd)
        return said if found is None else found
    return said


def read(store: ObjectStore, key: str, usd: float) -> Answer | None:
    """Return the answer to an estimate, or None. An answer is to an amount: a higher estimate is asked for anew."""
    try:
        return Answer.model_validate_json(store.get(_answer_key(key, usd)))
    except NoSuchObject:
        return None
    except ValidationError:
        raise IntegrityError(
            f"{store.uri}: {_answer_key(key, usd)} is no answer; restore it from a copy, or delete it to ask again"
        ) from None


def waiting(store: ObjectStore, key: str) -> Asked:
    """Return what a run asked.

    Raises:
        SpecError: it asked nothing; the message names those that did.
    """
    try:
        return Asked.model_validate_json(store.get(_asked_key(key)))
    except NoSuchObject:
        known = ", ".join(asked.key for asked in open_questions(store)) or "none"
        raise SpecError(f"no run {key!r} waits for an approval; waiting: {known}") from None


def open_questions(store: ObjectStore) -> Iterator[Asked]:
    """Yield what nobody has answered yet."""
    for key in store.list(f"{FOLDER}asked/"):
        asked = Asked.model_validate_json(store.get(key))
        if read(store, asked.key, asked.usd) is None:
            yield asked


def _asked_key(key: str) -> str:
    return f"{FOLDER}asked/{key}.json"


def _answer_key(key: str, usd: float) -> str:
    return f"{FOLDER}answers/{key}/{round(usd * 100)}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
