"""Whether data stay where they must."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from prooftune.economics.prices import PriceList, load_prices
from prooftune.errors import SpecError
from prooftune.spec import RunSpec


def leaving(spec: RunSpec, prices: PriceList) -> list[str]:
    """Return the providers that the spec sends data to and that no source of the price list confines to ``data.residency``.

    A server that the spec names by ``base_url`` is the user's to vouch for.
    """
    if spec.data.residency is None:
        return []
    judge, larger = spec.judge, spec.baseline.larger
    asked = {judge.provider} if judge.model is not None and judge.base_url is None else set()
    if "larger_model" in spec.baseline.ladder and larger.provider != "local" and larger.base_url is None:
        asked.add(larger.provider)
    return sorted(asked - set(prices.confined_to(spec.data.residency)))


def check_residency(spec: RunSpec) -> None:
    """Refuse a spec that would send data to where they must not go, before any are sent.

    Raises:
        SpecError: with the providers.
    """
    if names := leaving(spec, load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())):
        raise SpecError(
            f"data.residency is {spec.data.residency}, but the spec sends data to {' and '.join(names)}, which no source of the price list "
            "confines to that region. Use a model on this machine, a server of yours (base_url), or a price list of yours (use.prices) "
            "whose [provider] entry names the region and its source"
        )
