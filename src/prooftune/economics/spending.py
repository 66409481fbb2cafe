"""What a project may still spend this month: held before anything is paid for, settled with what was billed.

One small document per project and calendar month (UTC) in the object store, ``ledger/spending/PROJECT/YYYY-MM.json``, changed by
compare-and-swap: runs on several hosts together never hold more than the limit. A run holds once, however often it asks, and its bill
counts in the month in which it was held. So does the evaluation of a champion at its provider on a day.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import Field

from prooftune.errors import ProoftuneError
from prooftune.storage.documents import change_document, read_document
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/spending/"
_ASKING = "asking "
_DIGITS = 6
"""Decimal places of USD that amounts are compared in: sums of binary fractions miss a limit by less."""

USD = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BudgetExceeded(ProoftuneError, ValueError):
    """The run would cost more than the spec allows; nothing was uploaded."""

    exit_code = 2


class Item(Frozen):
    """What one run, or one evaluation of a champion, holds or was billed."""

    key: str
    """Run: the task's name and the digest of its inputs; evaluation: ``evaluation_key``."""
    held_usd: USD
    billed_usd: USD | None = None
    """None = not settled yet: what is held counts."""
    at: str
    """UTC, ISO 8601."""

    @property
    def usd(self) -> float:
        """What counts against the limit."""
        return self.held_usd if self.billed_usd is None else self.billed_usd

    @property
    def of_evaluation(self) -> bool:
        """Whether a champion was asked its holdout again; else it is of a run or its job."""
        return self.key.startswith(_ASKING)

    @property
    def error(self) -> float | None:
        """How far the bill was above what was held, relative to it; None = not settled, or nothing was held."""
        return None if self.billed_usd is None or self.held_usd == 0 else self.billed_usd / self.held_usd - 1


class Month(Frozen):
    """A project's calendar month."""

    project: str
    month: str
    """``2026-11``."""
    items: tuple[Item, ...] = ()

    @property
    def held_usd(self) -> float:
        """Held by runs that are not settled."""
        return math.fsum(item.held_usd for item in self.items if item.billed_usd is None)

    @property
    def billed_usd(self) -> float:
        """Billed for runs that are settled."""
        return math.fsum(item.billed_usd for item in self.items if item.billed_usd is not None)

    @property
    def usd(self) -> float:
        """What is held and billed together."""
        return self.held_usd + self.billed_usd

    def find(self, key: str) -> Item | None:
        """Return a run's item, or None."""
        return next((item for item in self.items if item.key == key), None)

    def without(self, key: str) -> Month:
        """Return the month without a run's item."""
        return self.model_copy(update={"items": tuple(item for item in self.items if item.key != key)})


def evaluation_key(run_id: str, day: date) -> str:
    """Return the key of the evaluation of a champion on a day, for people to read: no run's key has a space."""
    return f"{_ASKING}{run_id} again on {day:%Y-%m-%d}"


def hold(store: ObjectStore, project: str, key: str, usd: float, monthly_usd: float | None, now: datetime | None = None) -> Item:
    """Hold what a run may cost; a run that holds already, in whichever month, holds no second time, and what it holds stays as it is.

    Raises:
        BudgetExceeded: the month has no room for it.
        TransientError: others kept changing the month, or the store's answer got lost. Holding again is safe.
    """
    at = now or datetime.now(UTC)
    item = Item(key=key, held_usd=usd, at=at.isoformat(timespec="seconds"))
    if (known := find(store, project, key)) is not None:
        return known

    def with_item(month: Month) -> Month:
        if month.find(key) is not None:
            return month
        if monthly_usd is not None and round(month.usd + usd - monthly_usd, _DIGITS) > 0:
            raise BudgetExceeded(
                f"{key} may cost ${usd:,.2f}, and budget.monthly_usd of the project {project} is ${monthly_usd:,.2f}: in {month.month} "
                f"${month.billed_usd:,.2f} are billed and ${month.held_usd:,.2f} are held for what is not settled. Raise the limit, or "
                "wait for next month"
            )
        return month.model_copy(update={"items": (*month.items, item)})

    return _change(store, project, f"{at:%Y-%m}", with_item).find(key) or item


def settle(store: ObjectStore, project: str, key: str, billed_usd: float) -> Item | None:
    """Replace what a run holds by what it was billed; None = it holds nothing. Settling again replaces the bill.

    Two processes that held the same run at the turn of a month hold it in both: the bill counts in the earlier one.
    """
    months = [name for name in reversed(_months(store, project)) if read_month(store, project, name).find(key) is not None]

    def settled(month: Month) -> Month:
        items = (item.model_copy(update={"billed_usd": billed_usd}) if item.key == key else item for item in month.items)
        return Month.model_validate(month.model_dump() | {"items": [item.model_dump() for item in items]})

    for name in months[1:]:
        _change(store, project, name, lambda month: month.without(key))
    return _change(store, project, months[0], settled).find(key) if months else None


def release(store: ObjectStore, project: str, key: str) -> None:
    """Hold nothing for a run any longer: it was given up before anything was paid for. One that is settled stays as it is."""

    def released(month: Month) -> Month:
        item = month.find(key)
        return month if item is None or item.billed_usd is not None else month.without(key)

    for name in _months(store, project):
        _change(store, project, name, released)


def find(store: ObjectStore, project: str, key: str) -> Item | None:
    """Return what a run holds or was billed, in whichever month; None = it never held anything."""
    items = (read_month(store, project, name).find(key) for name in _months(store, project))
    return next((item for item in items if item is not None), None)


def estimate_error(store: ObjectStore, project: str, key: str) -> float | None:
    """Return billed / held - 1 of a run; None = it is not settled."""
    item = find(store, project, key)
    return None if item is None else item.error


def spent(store: ObjectStore, project: str, month: str | None = None) -> Month:
    """Return what a project has held and billed in a month, ``2026-11``; null = the current one (UTC)."""
    return read_month(store, project, month or f"{datetime.now(UTC):%Y-%m}")


def read_month(store: ObjectStore, project: str, month: str) -> Month:
    """Return a project's month; one in which nothing was held is empty. Raises IntegrityError where the document is damaged."""
    return read_document(store, _key(project, month), Month(project=project, month=month))[0]


def _months(store: ObjectStore, project: str) -> list[str]:
    """Return the months in which a project held something, newest first."""
    prefix = f"{FOLDER}{project}/"
    return sorted((key.removeprefix(prefix).removesuffix(".json") for key in store.list(prefix)), reverse=True)


def _change(store: ObjectStore, project: str, month: str, step: Callable[[Month], Month]) -> Month:
    return change_document(store, _key(project, month), Month(project=project, month=month), step)


def _key(project: str, month: str) -> str:
    return f"{FOLDER}{project}/{month}.json"
