"""Policy as code: whether the models that a spec asks may get its data, before any of it is sent.

``data.residency`` is kept where two things are shown: a source of the price list says that the provider can be confined to the region, and
the spec's address lies in it by ``retention.toml``. A fact that no source supports is not shown. A server that the spec names by
``base_url`` and that is not the provider's is the user's to vouch for: a stand-in, a gateway, a machine of one's own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import model_validator

from prooftune.economics.prices import PriceList, Source, load_prices
from prooftune.errors import Problem, SpecError
from prooftune.spec import RunSpec
from prooftune.types import Frozen

SHIPPED = Path(__file__).with_name("retention.toml")


class Place(Frozen):
    """What a spec must say for data to stay in a region; empty = nothing."""

    region: tuple[str, ...] = ()
    base_url: tuple[str, ...] = ()
    """Hosts."""
    tier: tuple[Literal["standard", "global_standard", "developer"], ...] = ()
    source: str


class Handling(Frozen):
    """What a provider does with data."""

    hosts: tuple[str, ...]
    trains: bool | None = None
    """Whether it trains models of its own on them; None = no source says."""
    kept: str = ""
    """How long it keeps them; empty = no source says."""
    subprocessors: str = ""
    """Address of its list; empty = not known."""
    source: str
    place: dict[str, Place] = {}


class Handlings(Frozen):
    """``retention.toml``."""

    source: dict[str, Source]
    provider: dict[str, Handling]

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        for name, handling in self.provider.items():
            for source in (handling.source, *(place.source for place in handling.place.values())):
                if source not in self.source:
                    raise ValueError(f"provider.{name} names the source {source!r}, which the file does not have")
        return self


@cache
def load_handlings() -> Handlings:
    """Return the shipped table of what providers do with data."""
    return Handlings.model_validate(tomllib.loads(SHIPPED.read_text(encoding="utf-8")))


def check_policy(spec: RunSpec, prices: PriceList, findings: Mapping[str, int]) -> None:
    """Check a managed run before its upload.

    Raises:
        SpecError: with every violation.
    """
    if problems := violations(spec, prices, findings):
        raise SpecError(f"the run's data may not go to {spec.backend.provider}:", tuple(problems))


def violations(spec: RunSpec, prices: PriceList, findings: Mapping[str, int]) -> list[Problem]:
    """Return why the backend's provider may not get a run's data; empty = it may.

    ``findings`` counts what validation found, by code. Personal data that it found and ``data.pii: allow`` left in place go to no provider:
    nothing in the spec can allow that.
    """
    provider = spec.backend.provider
    found = list(_residency(spec, prices)) if not of_users_own(provider, spec.provider.base_url) else []
    handling = load_handlings().provider.get(provider)
    if handling is not None and handling.trains:
        found.append(Problem("backend.provider", f"{provider} trains models of its own on what it is sent; use another one", "trains"))
    kept = {code: count for code, count in findings.items() if code.startswith("pii-") and count}
    if kept and spec.data.pii == "allow":
        told = ", ".join(f"{count} {code}" for code, count in sorted(kept.items()))
        found.append(
            Problem("data.pii", f"{told} would be sent to {provider}; set data.pii to redact or drop, or train on this machine", "pii")
        )
    return found


def leaving(spec: RunSpec, prices: PriceList) -> list[str]:
    """Return the providers that judge and larger model send data to and that no source confines to ``data.residency``."""
    if spec.data.residency is None:
        return []
    judge, larger = spec.judge, spec.baseline.larger
    asked = {judge.provider} if judge.model is not None and not of_users_own(judge.provider, judge.base_url) else set()
    if "larger_model" in spec.baseline.ladder and larger.provider != "local" and not of_users_own(larger.provider, larger.base_url):
        asked.add(larger.provider)
    return sorted(asked - set(prices.confined_to(spec.data.residency)))


def check_residency(spec: RunSpec) -> None:
    """Refuse a spec whose judge or larger model would send data to where they must not go.

    Raises:
        SpecError: with the providers.
    """
    if names := leaving(spec, load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())):
        raise SpecError(
            f"data.residency is {spec.data.residency}, but the spec sends data to {' and '.join(names)}, which no source of the price list "
            "confines to that region. Use a model on this machine, a server of yours (base_url), or a price list of yours (use.prices) "
            "whose [provider] entry names the region and its source"
        )


def of_users_own(provider: str, base_url: str | None) -> bool:
    """Whether an address is a server that is not the provider's; null = the provider's own."""
    if base_url is None:
        return False
    host = (urlsplit(base_url).hostname or "").lower()
    handling = load_handlings().provider.get(provider)
    domains = handling.hosts if handling else (f"{provider}.com",)
    return not any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _residency(spec: RunSpec, prices: PriceList) -> Iterator[Problem]:
    """Yield how the backend's provider fails to keep data where they must stay."""
    region, provider = spec.data.residency, spec.backend.provider
    if region is None:
        return
    if provider not in prices.confined_to(region):
        yield Problem(
            "data.residency",
            f"data must stay in {region}, and no source of the price list says that {provider} keeps it there. Use another backend, or put "
            f"[provider.{provider}] with the region and its source into a file, and name it in use.prices",
            "residency",
        )
        return
    handling = load_handlings().provider.get(provider)
    place = handling.place.get(region.lower()) if handling else None
    if handling is None or place is None:
        return  # the user's own price list vouches for a region that the shipped table does not know
    options = spec.provider
    said = {"region": options.region, "base_url": urlsplit(options.base_url or "").hostname, "tier": options.tier}
    for field, allowed in (("region", place.region), ("base_url", place.base_url), ("tier", place.tier)):
        if allowed and said[field] not in allowed:
            yield Problem(
                f"provider.{field}",
                f"is {said[field] or 'not set'}, which is not known to be in {region}; {provider} keeps data there with "
                f"{' or '.join(allowed)} ({load_handlings().source[place.source].name})",
                "residency",
            )
    if handling.trains is None:
        yield Problem("backend.provider", f"no source says whether {provider} trains models of its own on what it is sent", "residency")
