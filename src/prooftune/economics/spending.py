"""What a project may still spend this month: held before anything is paid for, settled with what was billed.

One small document per project and calendar month (UTC) in the object store, ``ledger/spending/PROJECT/YYYY-MM.json``, changed by
compare-and-swap: runs on several hosts together never hold more than the limit. A run holds once, however often it asks, until it is
settled; what it wants to buy after that it holds anew. So does the evaluation of a champion at its provider on a day.

A bill counts in the month in which it was held, and names what was bought: the job of an order, a stage's answers. Runs that share one
count it once, and what was paid for twice counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import Field, model_validator

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


class Bought(Frozen):
    """Something that was paid for."""

    what: str
    """Names it in the whole project: what has another name was paid for besides."""
    usd: USD


class Item(Frozen):
    """What one run, or one evaluation of a champion, holds and was billed in a month."""

    key: str
    """Run: the task's name and the digest of its inputs; evaluation: ``evaluation_key``."""
    held_usd: USD
    """What it holds, or held last."""
    holds: bool = True
    """Whether it is not settled: what is held counts, beside what was billed before."""
    bought: tuple[Bought, ...] = ()
    """What it was billed for."""
    at: str
    """UTC, ISO 8601, when it held first."""

    @model_validator(mode="before")
    @classmethod
    def _in_one_sum(cls, fields: Any) -> Any:
        """Read what was written when an item had one sum, ``billed_usd``, and null until it was settled."""
        if not isinstance(fields, Mapping) or "billed_usd" not in fields:
            return fields
        others = {name: value for name, value in fields.items() if name != "billed_usd"}
        if (usd := fields["billed_usd"]) is None:
            return others
        return others | {"holds": False, "bought": [{"what": others.get("key"), "usd": usd}]}

    @property
    def billed_usd(self) -> float | None:
        """What it was billed in all; None = it holds, and nothing was billed yet."""
        return None if self.holds and not self.bought else math.fsum(one.usd for one in self.bought)

    @property
    def usd(self) -> float:
        """What counts against the limit."""
        return (self.billed_usd or 0.0) + (self.held_usd if self.holds else 0.0)

    @property
    def of_evaluation(self) -> bool:
        """Whether a champion was asked its holdout again; else it is of a run or its job."""
        return self.key.startswith(_ASKING)


class Month(Frozen):
    """A project's calendar month."""

    project: str
    month: str
    """``2026-11``."""
    items: tuple[Item, ...] = ()

    @property
    def held_usd(self) -> float:
        """Held by runs that are not settled."""
        return math.fsum(item.held_usd for item in self.items if item.holds)

    @property
    def billed_usd(self) -> float:
        """Billed in all."""
        return math.fsum(item.billed_usd or 0.0 for item in self.items)

    @property
    def usd(self) -> float:
        """What is held and billed together."""
        return self.held_usd + self.billed_usd

    def find(self, key: str) -> Item | None:
        """Return a run's item, or None."""
        return next((item for item in self.items if item.key == key), None)

    @property
    def bought(self) -> set[str]:
        """Names of all that was paid for."""
        return {one.what for item in self.items for one in item.bought}

    def with_item(self, new: Item) -> Month:
        """Return the month with a run's item, in the place of the one it has."""
        if self.find(new.key) is None:
            return self.model_copy(update={"items": (*self.items, new)})
        return self.model_copy(update={"items": tuple(new if item.key == new.key else item for item in self.items)})

    def without_hold(self, key: str) -> Month:
        """Return the month in which a run holds nothing; what it was billed stays."""
        kept = (item.model_copy(update={"holds": False}) if item.key == key else item for item in self.items)
        return self.model_copy(update={"items": tuple(item for item in kept if item.key != key or item.bought)})

    def told(self, amounts: Mapping[str, float]) -> Month:
        """Return the month with the amounts that are told last of what was paid for in it."""
        items = []
        for item in self.items:
            bought = tuple(Bought(what=one.what, usd=amounts.get(one.what, one.usd)) for one in item.bought)
            items.append(item.model_copy(update={"bought": bought}))
        return self.model_copy(update={"items": tuple(items)})


def evaluation_key(run_id: str, day: date) -> str:
    """Return the key of the evaluation of a champion on a day, for people to read: no run's key has a space."""
    return f"{_ASKING}{run_id} again on {day:%Y-%m-%d}"


def hold(store: ObjectStore, project: str, key: str, usd: float, monthly_usd: float | None, now: datetime | None = None) -> Item:
    """Hold what a run may cost. One that holds already, in whichever month, holds no second time, and what it holds stays as it is.

    A run that is settled holds anew, in the present month; one that is settled and wants to buy nothing stays so.

    Raises:
        BudgetExceeded: the month has no room for it.
        TransientError: others kept changing the month, or the store's answer got lost. Holding again is safe.
    """
    at = now or datetime.now(UTC)
    new = Item(key=key, held_usd=usd, at=at.isoformat(timespec="seconds"))
    if (known := find(store, project, key)) is not None and (known.holds or usd == 0):
        return known

    def with_hold(month: Month) -> Month:
        item = month.find(key)
        if item is not None and item.holds:
            return month
        if monthly_usd is not None and round(month.usd + usd - monthly_usd, _DIGITS) > 0:
            raise BudgetExceeded(
                f"{key} may cost ${usd:,.2f}, and budget.monthly_usd of the project {project} is ${monthly_usd:,.2f}: in {month.month} "
                f"${month.billed_usd:,.2f} are billed and ${month.held_usd:,.2f} are held for what is not settled. Raise the limit, or "
                "wait for next month"
            )
        return month.with_item(new if item is None else item.model_copy(update={"held_usd": usd, "holds": True}))

    return _change(store, project, f"{at:%Y-%m}", with_hold).find(key) or new


def settle(store: ObjectStore, project: str, key: str, bought: Mapping[str, float]) -> Item | None:
    """Say what a run has bought, by name and in USD, in place of what it holds; None = it never held anything.

    What is known already, of this run or another one, counts where it is, with the amount that is told last. Two processes that held the
    same run at the turn of a month hold it in both: the bill counts in the earlier one.
    """
    told = tuple(Bought(what=what, usd=usd) for what, usd in bought.items())
    months = [read_month(store, project, name) for name in reversed(_months(store, project))]
    own = [(month.month, item) for month in months if (item := month.find(key)) is not None]
    if not own:
        return None
    into = next((name for name, item in own if item.holds), own[-1][0])
    elsewhere = {what for month in months if month.month != into for what in month.bought}

    def settled(month: Month) -> Month:
        item = month.find(key)
        if item is None:  # it was released in between
            return month.told(bought)
        new = tuple(one for one in told if one.what not in elsewhere | month.bought)
        return month.with_item(item.model_copy(update={"holds": False, "bought": (*item.bought, *new)})).told(bought)

    for month in months:
        if month.month != into and (month.find(key) is not None or month.bought & bought.keys()):
            _change(store, project, month.month, lambda other: other.without_hold(key).told(bought))
    return _change(store, project, into, settled).find(key)


def release(store: ObjectStore, project: str, key: str) -> None:
    """Hold nothing for a run any longer: it was given up before anything was paid for. What it was billed before stays."""
    for name in _months(store, project):
        _change(store, project, name, lambda month: month.without_hold(key))


def find(store: ObjectStore, project: str, key: str) -> Item | None:
    """Return what a run holds, in whichever month, or else what it was billed last; None = it never held anything."""
    found = [item for name in _months(store, project) if (item := read_month(store, project, name).find(key)) is not None]
    return next((item for item in found if item.holds), found[0] if found else None)


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
