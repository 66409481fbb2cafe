"""Policy as code: whether all that a spec sends data to may get them, before any are sent. One rule for backend, judge and larger model.

``data.residency`` is kept where two things are shown: a source of the price list says that the provider can be confined to the region, and
the spec's address lies in it by ``retention.toml``. ``data.max_retention_days`` is kept where a source, or the user's contract, says that
the provider keeps nothing for longer. Personal data go to no provider. A fact that no source supports is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from prooftune.economics.handling import UNTIL_DELETED, Period, Place, What, load_handlings, whose
from prooftune.economics.prices import PriceList, Source, load_prices
from prooftune.errors import Problem, SpecError
from prooftune.spec import Data, RunSpec

NAMES: Mapping[What, str] = {"files": "uploaded files", "prompts": "prompts with their answers"}


@dataclass(frozen=True)
class Recipient:
    """A server that a spec sends data to."""

    role: str
    """``backend``, ``judge`` or ``baseline.larger``."""
    block: str
    """The spec's block with its address."""
    provider: str
    """Whose server it is."""
    gets: tuple[What, ...]
    base_url: str | None
    region: str | None = None
    tier: str | None = None
    stands_in: bool = False
    """Whether it is a server of the user's in the place of a managed provider. What it does with data is the user's to know."""

    def __str__(self) -> str:
        return f"{self.provider} ({self.role})"


def recipients(spec: RunSpec) -> list[Recipient]:
    """Return all that a spec sends data to and that is not the user's own, and the backend wherever it is."""
    found = []
    backend, options = spec.backend.provider, spec.provider
    if spec.backend.managed:
        owner = whose(backend, options.base_url)
        where = options.base_url, options.region, options.tier
        found.append(Recipient("backend", "provider", owner or backend, ("files", "prompts"), *where, stands_in=owner is None))
    judge, larger = spec.judge, spec.baseline.larger
    asked = {}
    if "larger_model" in spec.baseline.ladder and larger.provider != "local":
        asked["baseline.larger"] = (larger.provider, larger.base_url)
    if judge.model is not None:
        asked["judge"] = (judge.provider, judge.base_url)
    for role, (protocol, base_url) in asked.items():
        if (owner := whose(protocol, base_url)) is not None:
            found.append(Recipient(role, role, owner, ("prompts",), base_url))
    return found


def check_policy(spec: RunSpec, prices: PriceList, findings: Mapping[str, int]) -> None:
    """Check where a run would send its data, before it does.

    Raises:
        SpecError: with every violation.
    """
    if problems := violations(spec, prices, findings):
        names = " and ".join(dict.fromkeys(one.provider for one in recipients(spec)))
        raise SpecError(f"the run's data may not go to {names}, where the spec sends them:", tuple(problems))


def violations(spec: RunSpec, prices: PriceList, findings: Mapping[str, int]) -> list[Problem]:
    """Return why somebody may not get a run's data; empty = all may that would.

    ``findings`` counts what validation found, by code. Personal data that it found and ``data.pii: allow`` left in place go to no provider,
    and to none that is rehearsed: nothing in the spec can allow that.
    """
    found = [problem for one in recipients(spec) if not one.stands_in for problem in _violations(one, spec.data, prices)]
    kept = {code: count for code, count in findings.items() if code.startswith("pii-") and count}
    if kept and spec.data.pii == "allow" and (getting := recipients(spec)):
        told = ", ".join(f"{count} {code}" for code, count in sorted(kept.items()))
        to = " and ".join(map(str, getting))
        instead = "set data.pii to redact or drop, or use models on this machine or servers of yours"
        found.append(Problem("data.pii", f"{told} would be sent to {to}; {instead}", "pii"))
    return found


def by_code(findings: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return what validation found, by code, from its figure ``findings``: counts by code and by what was done about it."""
    return {code: sum(actions.values()) for code, actions in findings.items()}


def _violations(one: Recipient, data: Data, prices: PriceList) -> Iterator[Problem]:
    """Yield what speaks against sending anything to a provider."""
    handling = load_handlings().provider[one.provider]
    if data.residency is not None:
        yield from _residency(one, data.residency, prices)
    if handling.trains:
        yield Problem(one.role, f"{one.provider} trains models of its own on what it is sent; use another one", "trains")
    if data.max_retention_days is not None:
        yield from _retention(one, data.max_retention_days, prices)


def _residency(one: Recipient, region: str, prices: PriceList) -> Iterator[Problem]:
    """Yield how a provider fails to keep data where they must stay."""
    if one.provider not in prices.confined_to(region):
        yield Problem(
            "data.residency",
            f"data must stay in {region}, and no source of the price list says that {one} keeps them there. Use a model on this machine, "
            f"a server of yours or another provider, or put [provider.{one.provider}] with the region and its source into a file, and name "
            "it in use.prices",
            "residency",
        )
        return
    handling = load_handlings().provider[one.provider]
    if (place := handling.place.get(region.lower())) is None:
        return  # the user's own price list vouches for a region that the shipped table does not know
    for field, found, allowed in _said(one, place):
        if allowed and found not in allowed:
            yield Problem(
                f"{one.block}.{field}",
                f"is {found or 'not set'}, which is not known to be in {region}; {one.provider} keeps data there with "
                f"{' or '.join(allowed)} ({load_handlings().source[place.source].name})",
                "residency",
            )
    if handling.trains is None:
        yield Problem(one.role, f"no source says whether {one.provider} trains models of its own on what it is sent", "residency")


def _said(one: Recipient, place: Place) -> tuple[tuple[str, str | None, tuple[str, ...]], ...]:
    """Return each field that says where a server is, with what the spec has there, and what it must have."""
    host = urlsplit(one.base_url or "").hostname
    return ("region", one.region, place.region), ("base_url", host, place.base_url), ("tier", one.tier, place.tier)


def _retention(one: Recipient, limit: int, prices: PriceList) -> Iterator[Problem]:
    """Yield what a provider keeps for longer than it may, or for nobody knows how long."""
    for what in one.gets:
        kept, source = _kept(one, what, prices)
        if isinstance(kept, int) and kept <= limit:
            continue
        unasked = ", and Prooftune deletes none" if kept == UNTIL_DELETED else ""
        told = f"{one} keeps {NAMES[what]} {_words(kept)}{unasked} ({source})" if kept is not None else _unknown(one, NAMES[what])
        yield Problem(
            "data.max_retention_days",
            f"data may be kept for {limit} days, and {told}. Use a model on this machine or another provider, or put [provider."
            f"{one.provider}] with kept_days by your contract and its source into a file, and name it in use.prices",
            "retention",
        )


def _kept(one: Recipient, what: What, prices: PriceList) -> tuple[Period | None, str]:
    """Return for how long a provider keeps something, by the user's contract, else by default, and who says so; None = no source does."""
    listed = prices.provider.get(one.provider)
    if listed is not None and listed.kept_days is not None:
        return listed.kept_days, _told(prices.source[listed.source])
    handlings = load_handlings()
    kept = handlings.provider[one.provider].kept.get(what)
    return (kept.period, _told(handlings.source[kept.source])) if kept else (None, "")


def _told(source: Source) -> str:
    return f"{source.name}, {source.checked}"


def _words(period: Period) -> str:
    if period == UNTIL_DELETED:
        return "until they are deleted"
    return f"for at most {period} days" if period else "no longer than it works with them"


def _unknown(one: Recipient, what: str) -> str:
    return f"no source says for how long {one} keeps {what}"


def told_kept(spec: RunSpec) -> list[str]:
    """Return what becomes of a run's data elsewhere: who keeps what for how long, a sentence for each; empty = nothing leaves.

    Raises:
        SpecError: the price list that the spec names cannot be used.
    """
    prices = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    told = [_sentence(one, prices) for one in recipients(spec)]
    if spec.backend.managed and spec.provider.bucket:
        told.append(f"What is put into {spec.provider.bucket} stays there until you delete it.")
    return told


def _sentence(one: Recipient, prices: PriceList) -> str:
    """Return for how long one recipient keeps what it gets."""
    if one.stands_in:
        return f"What {one.base_url} keeps, which stands for {one}, is for you to know."
    found = {NAMES[what]: _kept(one, what, prices) for what in one.gets}
    known = " and ".join(f"{name} {_words(period)}" for name, (period, _) in found.items() if period is not None)
    sources = "; ".join(dict.fromkeys(source for _, source in found.values() if source))
    unknown = _unknown(one, " and ".join(name for name, (period, _) in found.items() if period is None))
    if not known:
        return f"{unknown[0].upper()}{unknown[1:]}."
    return f"{one} keeps {known} ({sources})" + ("." if all(source for _, source in found.values()) else f"; {unknown}.")


def check_bucket_place(spec: RunSpec, location: str) -> None:
    """Check that the bucket of a managed run lies where its data must stay; ``location`` is as the storage service says it.

    A region that the shipped table does not know is the user's to vouch for, with ``provider.region``: there the bucket must lie.

    Raises:
        SpecError: it does not, with both places.
    """
    region, bucket = spec.data.residency, str(spec.provider.bucket)
    if region is None:
        return
    known = load_handlings().bucket[bucket.partition(":")[0]].get(region.lower())
    allowed = known.locations if known else (str(spec.provider.region).lower(),)
    if location.lower() not in allowed:
        source = f" ({load_handlings().source[known.source].name})" if known else ", provider.region"
        raise SpecError(
            f"provider.bucket {bucket} lies in {location}, and data.residency is {region}; a bucket there lies in {' or '.join(allowed)}"
            f"{source}. Name one that does; nothing was uploaded"
        )
