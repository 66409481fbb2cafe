"""What providers do with data that is sent to them, and whose server an address is: ``retention.toml``, each fact with its source.

A server that is no known provider's is the user's to vouch for: a stand-in, a gateway, a machine of one's own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from prooftune.economics.prices import Source
from prooftune.types import Frozen

SHIPPED = Path(__file__).with_name("retention.toml")

What = Literal["files", "prompts"]
"""Uploaded files; prompts with their answers, batches of them too."""
Period = Annotated[int, Field(ge=0)] | Literal["until deleted"]
"""At most so many days; 0 = no longer than it is worked with."""
UNTIL_DELETED = "until deleted"


class Place(Frozen):
    """What a spec must say for data to stay in a region; empty = nothing."""

    region: tuple[str, ...] = ()
    base_url: tuple[str, ...] = ()
    """Hosts."""
    tier: tuple[Literal["standard", "global_standard", "developer"], ...] = ()
    source: str


class Kept(Frozen):
    """For how long something is kept."""

    period: Period
    source: str


class Handling(Frozen):
    """What a provider does with data."""

    hosts: tuple[str, ...]
    trains: bool | None = None
    """Whether it trains models of its own on them; None = no source says."""
    source: str
    kept: dict[What, Kept] = {}
    """What is not in it no source speaks of."""
    place: dict[str, Place] = {}


class Locations(Frozen):
    """Where buckets lie that are in a region."""

    locations: tuple[str, ...]
    source: str


class Handlings(Frozen):
    """``retention.toml``."""

    source: dict[str, Source]
    provider: dict[str, Handling]
    bucket: dict[str, dict[str, Locations]] = {}
    """By the scheme of its address, and by region."""

    @property
    def used(self) -> Iterator[str]:
        """The source of each fact."""
        for handling in self.provider.values():
            yield from (handling.source, *(kept.source for kept in handling.kept.values()))
            yield from (place.source for place in handling.place.values())
        yield from (found.source for regions in self.bucket.values() for found in regions.values())

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        if lacking := sorted(set(self.used) - set(self.source)):
            raise ValueError(f"facts name the sources {', '.join(map(repr, lacking))}, which the file does not have")
        return self


@cache
def load_handlings() -> Handlings:
    """Return the shipped table of what providers do with data."""
    return Handlings.model_validate(tomllib.loads(SHIPPED.read_text(encoding="utf-8")))


def whose(provider: str, base_url: str | None) -> str | None:
    """Return whose server is asked: the provider whose protocol it speaks (null = its own address) or another; None = the user's own."""
    if base_url is None:
        return provider
    host = (urlsplit(base_url).hostname or "").lower()
    for name, handling in load_handlings().provider.items():
        if any(host == domain or host.endswith(f".{domain}") for domain in handling.hosts):
            return name
    return None
