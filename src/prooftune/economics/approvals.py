"""A person's yes or no to a run's estimate: asked for once, answered once, kept in the object store.

An answer is to an amount, in whole cents. A yes covers every lower estimate of the same run as well; a higher one is asked for anew. A no
covers its own amount alone: who refuses $30 may agree to $10.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError

from prooftune.errors import IntegrityError, SpecError
from prooftune.storage.objects import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/approvals/"
_Kind = TypeVar("_Kind", bound=Frozen)


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
        return _load(store, _answer_key(key, usd), Answer)
    return said


def read(store: ObjectStore, key: str, usd: float) -> Answer | None:
    """Return the answer that counts for an estimate, or None.

    Raises:
        IntegrityError: what the store holds is no answer.
    """
    cents = _cents(usd)
    answers = {int(name.rpartition("/")[2].removesuffix(".json")): name for name in store.list(_answers(key))}
    if cents in answers:
        return _load(store, answers[cents], Answer)
    higher = (_load(store, answers[amount], Answer) for amount in sorted(answers) if amount > cents)
    return next((given for given in higher if given.approved), None)


def waiting(store: ObjectStore, key: str) -> Asked:
    """Return what a run asked.

    Raises:
        SpecError: it asked nothing; the message names those that did.
        IntegrityError: what the store holds is no question.
    """
    try:
        return _load(store, _asked_key(key), Asked)
    except (NoSuchObject, InvalidKey):
        known = ", ".join(asked.key for asked in open_questions(store)) or "none"
        raise SpecError(f"no run {key!r} waits for an approval; waiting: {known}") from None


def open_questions(store: ObjectStore) -> Iterator[Asked]:
    """Yield what nobody has answered yet."""
    for name in store.list(f"{FOLDER}asked/"):
        asked = _load(store, name, Asked)
        if read(store, asked.key, asked.usd) is None:
            yield asked


def _load(store: ObjectStore, name: str, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate_json(store.get(name))
    except ValidationError:
        raise IntegrityError(f"{store.uri}: {name} is damaged; restore it from a copy, or delete it to ask again") from None


def _asked_key(key: str) -> str:
    return f"{FOLDER}asked/{key}.json"


def _answers(key: str) -> str:
    return f"{FOLDER}answers/{key}/"


def _answer_key(key: str, usd: float) -> str:
    return f"{_answers(key)}{_cents(usd)}.json"


def _cents(usd: float) -> int:
    return round(usd * 100)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
