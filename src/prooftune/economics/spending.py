"""What a project may still spend this month: held before anything is paid for, settled with what was billed.

One small document per project and calendar month (UTC) in the object store, changed by compare-and-swap: runs on several hosts together
never hold more than the limit. A run key is held once, however often it is asked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import ValidationError

from prooftune.errors import IntegrityError, ProoftuneError, TransientError
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore, VersionChanged
from prooftune.types import Frozen

FOLDER = "ledger/spending/"
_ATTEMPTS = 100
_LONGEST_PAUSE_S = 0.2


class BudgetExceeded(ProoftuneError, ValueError):
    """The run would cost more than the spec allows; nothing was uploaded."""

    exit_code = 2


class Item(Frozen):
    """What one run holds, or was billed."""

    key: str
    """Run: the task's name and the digest of its inputs."""
    held_usd: float
    billed_usd: float | None = None
    """None = not settled yet: what is held counts."""
    at: str
    """UTC, ISO 8601."""

    @property
    def usd(self) -> float:
        """What counts against the limit."""
        return self.held_usd if self.billed_usd is None else self.billed_usd


class Month(Frozen):
    """A project's calendar month."""

    project: str
    month: str
    """``2026-11``."""
    items: tuple[Item, ...] = ()

    @property
    def usd(self) -> float:
        """What is held and billed together."""
        return sum(item.usd for item in self.items)

    def find(self, key: str) -> Item | None:
        """Return a run's item, or None."""
        return next((item for item in self.items if item.key == key), None)


def hold(store: ObjectStore, project: str, key: str, usd: float, monthly_usd: float | None, now: datetime | None = None) -> Item:
    """Hold what a run may cost; a run that holds already, in whichever month, holds no second time.

    Raises:
        BudgetExceeded: the month has no room for it.
        TransientError: others kept changing the month, or the store's answer got lost. Holding again is safe.
    """
    at = now or datetime.now(UTC)
    for month in _months(store, project):
        known = read_month(store, project, month).find(key)
        if known is not None:
            return known

    def with_item(month: Month) -> Month:
        if month.find(key) is not None:
            return month
        if monthly_usd is not None and month.usd + usd > monthly_usd:
            billed = sum(item.billed_usd or 0.0 for item in month.items)
            raise BudgetExceeded(
                f"{key} may cost ${usd:,.2f}, and budget.monthly_usd of the project {project} is ${monthly_usd:,.2f}: in {month.month} "
                f"${billed:,.2f} are billed and ${month.usd - billed:,.2f} are held by runs that are not settled. Raise the limit, or wait "
                "for next month"
            )
        return month.model_copy(update={"items": (*month.items, Item(key=key, held_usd=usd, at=at.isoformat(timespec="seconds")))})

    found = _change(store, project, f"{at:%Y-%m}", with_item).find(key)
    if found is None:
        raise ValueError(f"{key} is not in the month that it was just put into")
    return found


def settle(store: ObjectStore, project: str, key: str, billed_usd: float) -> Item | None:
    """Replace what a run holds by what it was billed; None = it holds nothing."""
    for name in _months(store, project):
        if read_month(store, project, name).find(key) is None:
            continue

        def settled(month: Month) -> Month:
            items = (item.model_copy(update={"billed_usd": billed_usd}) if item.key == key else item for item in month.items)
            return month.model_copy(update={"items": tuple(items)})

        return _change(store, project, name, settled).find(key)
    return None


def read_month(store: ObjectStore, project: str, month: str) -> Month:
    """Return a project's month; one in which nothing was held is empty. Raises IntegrityError where the document is damaged."""
    return _read(store, project, month)[0]


def _months(store: ObjectStore, project: str) -> list[str]:
    prefix = f"{FOLDER}{project}/"
    return sorted((key.removeprefix(prefix).removesuffix(".json") for key in store.list(prefix)), reverse=True)


def _change(store: ObjectStore, project: str, month: str, step: Callable[[Month], Month]) -> Month:
    for attempt in range(_ATTEMPTS):
        before, version = _read(store, project, month)
        after = step(before)
        if after == before:
            return before
        try:
            data = (after.model_dump_json(indent=1) + "\n").encode()
            store.put(_key(project, month), data, if_absent=version is None, if_match=version)
        except (AlreadyThere, VersionChanged):
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.005 * 2**attempt)))  # noqa: S311 - jitter is no secret
        else:
            return after
    raise TransientError(f"the spending of {project} in {store.uri} was changed by others {_ATTEMPTS} times in a row; try again")


def _read(store: ObjectStore, project: str, month: str) -> tuple[Month, str | None]:
    key = _key(project, month)
    # The version is taken before the content: should it change in between, the swap fails instead of losing the change.
    version = store.version(key)
    if version is None:
        return Month(project=project, month=month), None
    try:
        return Month.model_validate_json(store.get(key)), version
    except NoSuchObject:
        return Month(project=project, month=month), None
    except ValidationError as error:
        raise IntegrityError(
            f"{store.uri}: {key} is no month of spending ({error.error_count()} problems); restore it from a copy"
        ) from None


def _key(project: str, month: str) -> str:
    return f"{FOLDER}{project}/{month}.json"
