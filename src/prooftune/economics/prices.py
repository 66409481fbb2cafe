"""The price list: what tokens, training, hosting and machines cost, each with its source and the day the source said so.

``prices.toml`` beside this file is the shipped list; a file of the user's is laid over it. A price that no source supports is missing, and
whoever needs it says so: nothing is guessed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from prooftune.errors import Problem, SpecError
from prooftune.evidence import JudgeReport
from prooftune.spec import Judge, digest
from prooftune.types import Frozen

SHIPPED = Path(__file__).with_name("prices.toml")
STALE_DAYS = 180
"""A price whose source is older than this is used with a warning."""

Meter = Literal["input", "output", "tuned_input", "tuned_output", "training", "training_preference", "hosting", "hour", "core_hour"]
Unit = Literal["1M tokens", "hour", "month", "core hour"]
UNITS: Mapping[Meter, tuple[Unit, ...]] = {
    "input": ("1M tokens",),
    "output": ("1M tokens",),
    "tuned_input": ("1M tokens",),
    "tuned_output": ("1M tokens",),
    "training": ("1M tokens",),
    "training_preference": ("1M tokens",),
    "hosting": ("hour", "month"),
    "hour": ("hour",),
    "core_hour": ("core hour",),
}
"""Units that a meter may have."""
Offer = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[^\s/].*$")]
"""``PROVIDER/MODEL``, or ``machine/KIND``."""


class Source(Frozen):
    """Where prices were read, and when."""

    name: str
    url: str = ""
    checked: date
    """Day on which the source said so."""


class Price(Frozen):
    """One price."""

    amount: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    currency: Literal["USD"] = "USD"
    unit: Unit
    source: str
    """Name of a source of the list."""


class Provider(Frozen):
    """What a managed provider allows, besides its prices."""

    regions: tuple[str, ...] = ()
    """Where training and serving can be confined to; empty = no source says so."""
    last_job: date | None = None
    """No new training is accepted after this day; None = no end is known."""
    kept_days: Annotated[int, Field(ge=0)] | None = None
    """Days that it may keep what it is sent, by your contract with it; None = as it does by default."""
    source: str


class PriceList(Frozen):
    """The shipped prices with the user's laid over them."""

    source: dict[str, Source]
    price: dict[Offer, dict[Meter, Price]]
    provider: dict[str, Provider] = {}
    today: date
    """Day that ages and last jobs are counted from."""

    @model_validator(mode="after")
    def _prices_are_sound(self) -> Self:
        for offer, meters in self.price.items():
            for meter, price in meters.items():
                where = f"price.{offer!r}.{meter}"
                if price.unit not in UNITS[meter]:
                    raise ValueError(f"{where} is per {price.unit}; it must be per {' or '.join(UNITS[meter])}")
                if price.source not in self.source:
                    raise ValueError(f"{where} names the source {price.source!r}; add [source.{price.source}] with name and checked")
        for name, provider in self.provider.items():
            if provider.source not in self.source:
                raise ValueError(f"provider.{name} names the source {provider.source!r}, which the list does not have")
        return self

    @property
    def sha256(self) -> str:
        """Digest of all prices and their sources; the day of use does not count."""
        return digest(self.model_dump(mode="json", exclude={"today"}))

    def find(self, offer: str, meter: Meter) -> Price | None:
        """Return a price, or None where the list has none."""
        return self.price.get(offer, {}).get(meter)

    def request_usd(self, offer: str, prompt_tokens: float, answer_tokens: float) -> float | None:
        """Return what prompting the base model costs for so many tokens; None = the list has no price for it."""
        read, written = self.find(offer, "input"), self.find(offer, "output")
        if read is None or written is None:
            return None
        return (prompt_tokens * read.amount + answer_tokens * written.amount) / 1e6

    def tunable(self, residency: str | None = None) -> list[str]:
        """Return the offers that can be tuned today, in alphabetical order, where ``residency`` is set: in that region.

        Of a provider's size classes only the smallest counts, and none where models of the provider are listed by name.
        """
        return [offer for offer in sorted(self.price) if self._trains(offer) and self._open(offer.split("/")[0], residency)]

    def confined_to(self, region: str) -> list[str]:
        """Return the providers whose training and serving a source says can be confined to a region."""
        return sorted(name for name, provider in self.provider.items() if region.lower() in provider.regions)

    def _trains(self, offer: str) -> bool:
        if "training" not in self.price[offer]:
            return False
        if offer not in (classes := _classes(offer.split("/")[0], self.price)):
            return True
        provider = offer.split("/")[0]
        named = (one for one in self.price if one.startswith(f"{provider}/") and one not in classes and "training" in self.price[one])
        return offer == classes[0] and not any(named)

    def _open(self, name: str, residency: str | None) -> bool:
        provider = self.provider.get(name)
        if provider is None:
            return residency is None
        closed = provider.last_job is not None and provider.last_job < self.today
        return not closed and (residency is None or residency.lower() in provider.regions)

    def checked(self, used: Iterable[Price]) -> date:
        """Return the day of the oldest of these prices; today where there are none."""
        return min((self.source[price.source].checked for price in used), default=self.today)

    def stale(self, used: Iterable[Price]) -> str:
        """Return a sentence that names the sources of these prices that are older than ``STALE_DAYS``; empty where none is."""
        ages = {name: (self.today - self.source[name].checked).days for name in sorted({price.source for price in used})}
        stale = [f"{self.source[name].name} ({age} days)" for name, age in ages.items() if age > STALE_DAYS]
        return f"Prices older than {STALE_DAYS} days; check them, and put newer ones in use.prices: {'; '.join(stale)}." if stale else ""


def class_of(provider: str, model: str, offers: Iterable[str]) -> str | None:
    """Return the provider's smallest size class that holds the model; None = its name says no size, or no class is large enough."""
    sizes = [int(found[1] or 1) * float(found[2].replace("p", ".")) for found in _SIZE.finditer(model.lower())]
    fitting = [offer for offer in _classes(provider, offers) if sizes and max(sizes) <= _most(offer)]
    return fitting[0] if fitting else None


_CLASS = re.compile(r"model-up-to-(\d+)b")
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:[.p]\d+)?)b(?![a-z0-9])")
"""``8b``, ``0.5b``, ``3p3b``, ``8x7b`` as a word of a model's name: parameters in billions."""


def _classes(provider: str, offers: Iterable[str]) -> list[str]:
    """Return a provider's size classes, smallest first."""
    found = (offer for offer in offers if offer.startswith(f"{provider}/") and _CLASS.fullmatch(offer.partition("/")[2]))
    return sorted(found, key=_most)


def _most(offer: str) -> int:
    return int(offer.rpartition("-")[2].removesuffix("b"))


def _with_classes(prices: PriceList) -> PriceList:
    """Give each entry of a model whose name says its size the prices that only its size class has."""
    whole = dict(prices.price)
    for offer, meters in prices.price.items():
        provider, _, model = offer.partition("/")
        group = None if offer in _classes(provider, whole) else class_of(provider, model, whole)
        if group is not None:
            whole[offer] = {**prices.price[group], **meters}
    return prices.model_copy(update={"price": whole})


BATCH_SHARE = 0.5
"""Of the usual price, through a provider's batch API."""


def load_prices(path: Path | None, today: date) -> PriceList:
    """Return the shipped price list with the prices in ``path`` laid over it; what an entry lacks its size class has.

    Raises:
        SpecError: the file cannot be read, or holds an unknown field, unit or currency; with the line or the field.
    """
    raw = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    if path is not None:
        raw = _overlay(raw, _read(path))
    try:
        return _with_classes(PriceList.model_validate(raw | {"today": today}))
    except ValidationError as error:
        raise SpecError(f"{path or SHIPPED} is not a usable price list:", tuple(_problems(error))) from None


def price_judge(judge: Judge, prices: str, path: Path) -> dict[str, Any]:
    """Put the judge's bill into its report, by tokens and the price list ``prices`` (a file, or empty); return the report.

    It is halved where the batch API was used.
    Source of the half: the providers' pages on their batch APIs. The bill stays None where the list has no price for the judge.
    """
    report = JudgeReport.model_validate_json(path.read_bytes())
    listed = load_prices(Path(prices) if prices else None, date.today())
    usd = listed.request_usd(f"{judge.provider}/{judge.model}", report.prompt_tokens, report.answer_tokens)
    if usd is not None:
        report = report.model_copy(update={"cost_usd": usd * (BATCH_SHARE if report.batched else 1.0)})
    path.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return report.model_dump(mode="json")


def price_digest(path: Path | None) -> str:
    """Return the digest of the shipped price list with the prices in ``path`` laid over it.

    Raises:
        SpecError: the file is not a usable price list.
    """
    return load_prices(path, date.today()).sha256


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"use.prices: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"use.prices: {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"use.prices: {path} is not valid TOML: {error}") from None
    problems = [Problem(name, f"a price list has {', '.join(_TABLES)} only", "unknown-field") for name in raw if name not in _TABLES]
    problems += [Problem(name, "must be a table", "type") for name in raw if name in _TABLES and not isinstance(raw[name], dict)]
    if problems:
        raise SpecError(f"{path} is not a usable price list:", tuple(problems))
    return raw


_TABLES = ("source", "provider", "price")


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one list over another: a source or provider is replaced as a whole, a price by its meter."""
    merged = {table: base.get(table, {}) | over.get(table, {}) for table in _TABLES}
    for offer, meters in over.get("price", {}).items():
        known = base["price"].get(offer)
        if known is not None and isinstance(meters, dict):
            merged["price"][offer] = known | meters
    return merged


def _problems(error: ValidationError) -> Iterable[Problem]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if part != "[key]") or "price list"
        yield Problem(where, item["msg"].removeprefix("Value error, "), item["type"])
