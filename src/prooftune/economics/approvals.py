"""A person's yes or no to what a run wants to do: spend its estimate, or put in use what it trained. Asked once, answered once, kept.

An answer to an estimate is to an amount, in whole cents. A yes covers every lower estimate of the same run as well; a higher one is asked
for anew. A no covers its own amount alone: who refuses $30 may agree to $10. An answer to a promotion is to a published run, which never
changes. What is asked has ``usd`` where it is about money, and None where it is about a promotion.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from prooftune.errors import IntegrityError, SpecError
from prooftune.storage.objects import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/approvals/"
PROMOTION: Final = "promote"
"""What stands in the place of an amount where a promotion is asked for."""
What = Literal["spend", "promote"]
_Kind = TypeVar("_Kind", bound=Frozen)


class Question(Frozen):
    """What a person is asked."""

    key: str
    """Run: the task's name and the digest of its inputs; of a promotion, the published run's id."""
    usd: float | None
    """Estimate that was shown; None = the promotion of the run is asked for."""
    task: str = ""
    """Of a promotion: whose champion it is to be."""

    @property
    def what(self) -> What:
        """What the answer allows."""
        return PROMOTION if self.usd is None else "spend"

    @property
    def text(self) -> str:
        """It in words, to stand behind the run: ``asks for $31.20``."""
        return f"is to be the champion of {self.task}" if self.usd is None else f"asks for ${self.usd:,.2f}"


class Asked(Question):
    """That a run waits for a person."""

    at: str
    """UTC, ISO 8601."""
    flow_run: str | None = None
    """Id of the Prefect flow run that waits."""


class Answer(Frozen):
    """What a person said; the first answer to an amount, or to a promotion, counts."""

    key: str
    usd: float | None
    """Amount; None = it is about a promotion."""
    approved: bool
    by: str
    reason: str
    at: str

    @property
    def text(self) -> str:
        """It in words: ``approved by ada on 2026-11-27: worth it``."""
        why = f": {self.reason}" if self.reason else ""
        return f"{'approved' if self.approved else 'rejected'} by {self.by} on {self.at[:10]}{why}".rstrip(".")


def ask(store: ObjectStore, key: str, usd: float | None, flow_run: str | None, task: str = "") -> Asked:
    """Write down that a run waits; asked again, by a later flow run, the newest one is the one to be woken."""
    asked = Asked(key=key, usd=usd, task=task, at=_now(), flow_run=flow_run)
    store.put(_asked_key(key, usd), asked.model_dump_json(indent=1).encode())
    return asked


def answer(store: ObjectStore, key: str, usd: float | None, *, approved: bool, by: str, reason: str) -> Answer:
    """Write down what a person said, unless somebody was quicker; return the answer that counts."""
    said = Answer(key=key, usd=usd, approved=approved, by=by, reason=reason, at=_now())
    try:
        store.put(_answer_key(key, usd), said.model_dump_json(indent=1).encode(), if_absent=True)
    except AlreadyThere:
        return _load(store, _answer_key(key, usd), Answer)
    return said


def read(store: ObjectStore, key: str, usd: float | None) -> Answer | None:
    """Return the answer that counts for an estimate, or for a promotion, or None.

    Raises:
        IntegrityError: what the store holds is no answer.
    """
    names = {name.rpartition("/")[2].removesuffix(".json"): name for name in store.list(_answers(key))}
    if (own := names.get(_named(usd))) is not None:
        return _load(store, own, Answer)
    if usd is None:
        return None
    amounts = sorted(int(named) for named in names if named != PROMOTION)
    higher = (_load(store, names[str(amount)], Answer) for amount in amounts if amount > _cents(usd))
    return next((given for given in higher if given.approved), None)


def waiting(store: ObjectStore, key: str) -> Asked:
    """Return what a run asked: of a run that asked for money and for its promotion, what is not answered yet, or the later one.

    Raises:
        SpecError: it asked nothing; the message names those that did.
        IntegrityError: what the store holds is no question.
    """
    found = []
    for name in (_asked_key(key, None), _asked_key(key, 0)):
        try:
            found.append(_load(store, name, Asked))
        except (NoSuchObject, InvalidKey):
            continue
    if not found:
        known = ", ".join(asked.key for asked in open_questions(store)) or "none"
        raise SpecError(f"no run {key!r} waits for an approval; waiting: {known}")
    return next((asked for asked in found if read(store, asked.key, asked.usd) is None), found[0])


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


def _asked_key(key: str, usd: float | None) -> str:
    return f"{FOLDER}asked/{PROMOTION}/{key}.json" if usd is None else f"{FOLDER}asked/{key}.json"


def _answers(key: str) -> str:
    return f"{FOLDER}answers/{key}/"


def _answer_key(key: str, usd: float | None) -> str:
    return f"{_answers(key)}{_named(usd)}.json"


def _named(usd: float | None) -> str:
    return PROMOTION if usd is None else str(_cents(usd))


def _cents(usd: float) -> int:
    return round(usd * 100)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
