"""What asking a champion at its provider again costs: held in the project's month before, settled with what was used after.

Held is what asking cost when the champion was promoted, by its run's bill. What is used counts by measured tokens and today's price list, a
deployment's hours by the price of an hour that the run's estimate had, or as it estimated them where nobody knows them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from prooftune.data.kept import read_kept
from prooftune.economics.asked import DEPLOYED
from prooftune.economics.bill import Bill, answers_line, hosting_price, hours_line
from prooftune.economics.managed import Estimate, Line
from prooftune.economics.prices import BATCH_SHARE, PriceList, load_prices
from prooftune.economics.spending import evaluation_key, find, hold, settle
from prooftune.errors import DataError, ProoftuneError
from prooftune.evaluation.answers.api_answerer import KeptAnswer
from prooftune.evaluation.champion_files import ChampionFiles
from prooftune.providers.hosting import ANSWERS, Hosted, hosting_file
from prooftune.spec import Budget, RunSpec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import ObjectStore

log = logging.getLogger(__name__)

NAME = "champion_again"
"""Of the champion's answers, and of all that is measured on them."""
ASKING = "evaluate: "
"""How the lines of a run's bill begin that say what asking its candidate the holdout cost."""
EARLIER = "paid_earlier"
Published = TypeVar("Published", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class NightlyBill:
    """What asking a champion costs on a day, however many tries it takes."""

    store: ObjectStore
    budget: Budget
    """The task's present one."""
    key: str
    now: datetime
    likely_usd: float
    """What is held, by each try anew."""
    offer: str
    prices: PriceList
    hour: Line | None
    """The estimate of its deployment, with the price of an hour; None = none is paid for by the hour."""
    out: Path
    """Folder of the answers, and of what is known of deployments."""

    @property
    def usd(self) -> float:
        """What the tries of the day have used so far; hours that nobody knows count once as estimated, beside those that are known.

        Raises:
            SpecError: the price list lacks a price.
        """
        answers = self.out / f"{NAME}{ANSWERS}"
        lines = [answers_line("nightly", NAME, read_kept(answers, KeptAnswer), self.offer, self.prices)]
        untimed_usd = 0.0
        if self.hour is not None:
            hosted = read_kept(hosting_file(answers), Hosted)
            lines.append(hours_line("nightly", hosted, self.hour, self.offer))
            untimed_usd = self.hour.usd if any(row.hours is None for row in hosted) else 0.0
        return self._earlier_usd() + untimed_usd + sum(line.usd for line in lines)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold what asking may cost, let the block ask, and settle with what was used, however the block ends.

        Raises:
            BudgetExceeded: the month has no room for it.
            SpecError: the price list lacks a price, so that nobody could settle.
        """
        used = self.usd  # also where nothing is used yet: a price that is missing has to be told now
        known = find(self.store, self.budget.project, self.key)
        item = hold(self.store, self.budget.project, self.key, self.likely_usd, self.budget.monthly_usd, self.now)
        log.info("%s counts $%.4f in the project %s, $%.4f are used already", self.key, item.usd, self.budget.project, used)
        self._note_earlier(0.0 if known is None else known.usd)
        try:
            yield
        except BaseException:
            try:
                self._settle()
            except ProoftuneError as unsaid:  # what went wrong first is what has to be told; what is held counts until the next try
                log.warning("%s is not settled: %s", self.key, unsaid)
            raise
        self._settle()

    def _settle(self) -> None:
        usd = self.usd
        settle(self.store, self.budget.project, self.key, {self.key: usd})
        log.info("%s was billed $%.4f, $%.4f were held", self.key, usd, self.likely_usd)

    def _note_earlier(self, usd: float) -> None:
        """Note, at the first try here, what the day's tries counted until then: their answers are on another machine, or a disk is gone."""
        note = self.out / EARLIER
        if not note.exists():
            part = note.with_suffix(".part")
            part.write_text(repr(usd))
            part.replace(note)

    def _earlier_usd(self) -> float:
        note = self.out / EARLIER
        return float(note.read_text()) if note.exists() else 0.0


def nightly_bill(store: ObjectStore, spec: RunSpec, rival: ChampionFiles, now: datetime, out: Path) -> NightlyBill:
    """Return the bill of asking a champion at its provider; nothing is held yet.

    Args:
        store: Where the champion's run is published, and the month is kept.
        spec: The task's present spec: whose month it is, and which prices count.
        rival: The champion.
        now: Moment, UTC: its day is in the key.
        out: Folder for the champion's answers; it lasts until they are evaluated.

    Raises:
        DataError: the champion's run has not published what asking it cost.
        SpecError: the price list cannot be used.
    """
    bill = _published(store, rival.run_id, "bill.json", Bill)
    estimate = _published(store, rival.run_id, "estimate.json", Estimate)
    place = hosting_price(estimate)
    hour = place if place is not None and place.unit == "hour" else None
    return NightlyBill(
        store=store,
        budget=spec.budget,
        key=evaluation_key(rival.run_id, now),
        now=now,
        likely_usd=likely_usd(bill, hour, batched=rival.spec.provider.batch and rival.spec.backend.provider not in DEPLOYED),
        offer=estimate.offer,
        prices=load_prices(Path(spec.use.prices) if spec.use.prices else None, now.date()),
        hour=hour,
        out=out,
    )


def likely_usd(bill: Bill, hour: Line | None, *, batched: bool) -> float:
    """Return what asking cost the run, at the full price where a batch answered it; a deployment that nobody timed, as it was estimated."""
    asked = [line for line in bill.lines if line.what.startswith(ASKING)]
    answers = sum(line.usd for line in asked if line.part != "hosting") / (BATCH_SHARE if batched else 1.0)
    hosted = [line.usd for line in asked if line.part == "hosting"]
    return answers + (sum(hosted) if hosted or hour is None else hour.usd)


def _published(store: ObjectStore, run_id: str, name: str, kind: type[Published]) -> Published:
    ref = read_manifest(store, run_id).files.get(name)
    if ref is None:
        raise DataError(
            f"the champion {run_id} has published no {name}, so nobody can say what asking it again costs; run the task's spec once more "
            "with `prooftune run`, or put another run in use with `prooftune promote`"
        )
    try:
        return kind.model_validate_json(store.fetch(ref).read_bytes())
    except ValidationError as error:
        raise DataError(f"{name} of the champion {run_id} is none that this version knows ({error.error_count()} problems)") from None
