"""The first screen of a report: four figures that say whether to switch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prooftune.report.risks import Risk
from prooftune.report.view import RunView
from prooftune.report.wording import months, name_of, number, points, usd


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, what it is and what must be known to read it."""

    name: str
    value: str
    detail: str
    main: bool = False
    """Whether it stands in the verdict's colour."""


def tiles(view: RunView, risks: Sequence[Risk]) -> list[Tile]:
    """Return gain, cost, pay-back and risks, as far as the run knows them; without a candidate, how far prompting comes."""
    return [*_gain(view), *_money(view), *_risks(risks)]


def _gain(view: RunView) -> Iterator[Tile]:
    decision, metric = view.decision, name_of(view.metric)
    baseline = name_of(decision.baseline or "baseline")
    if decision.difference is not None and decision.baseline_value is not None and decision.candidate_value is not None:
        gain = "gain" if decision.difference >= 0 else "loss"
        interval = f"{view.confidence} % interval {points(decision.ci_low or 0)} to {points(decision.ci_high or 0)}"
        values = f"{metric} {decision.baseline_value:.3f} → {decision.candidate_value:.3f}"
        yield Tile(f"{gain}, points", points(decision.difference), f"{interval}; {values}", main=True)
    elif decision.baseline_value is not None:
        yield Tile(f"{baseline}, {metric}", f"{decision.baseline_value:.3f}", "the best prompt", main=True)
        reached = decision.baseline_value >= view.spec.task.target
        yield Tile("target", f"{view.spec.task.target:.3f}", "reached" if reached else "not reached")
        yield Tile("held-out examples", number(decision.n), f"{decision.unscored:,} unscored")


def _money(view: RunView) -> Iterator[Tile]:
    row = view.break_even
    if row is None or (tuned := view.option(row.option)) is None:
        return
    now, volume = view.option(row.against), view.costs.requests_per_month if view.costs else None
    instead = f"instead of {usd(now.usd_per_1000_requests)}: {now.name}" if now else tuned.name
    yield Tile("per 1,000 requests", usd(tuned.usd_per_1000_requests), instead)
    if tuned.tuning_usd is None:
        yield Tile("paid back after", "not known", "nobody tells what tuning cost")
    elif row.requests is None and row.months is not None:
        yield Tile("paid back after", months(row.months), f"at {number(volume)} requests a month")
    elif row.requests is None:
        yield Tile("paid back after", "never", f"tuning costs {usd(tuned.tuning_usd)}")
    elif row.months is None:
        yield Tile("paid back after", number(row.requests), "requests; the spec names no monthly volume")
    else:
        yield Tile("paid back after", months(row.months), f"{row.requests:,} requests at {number(volume)} a month")


def _risks(risks: Sequence[Risk]) -> Iterator[Tile]:
    if not risks:
        return
    beyond, weigh = ([risk.name for risk in risks if risk.passed is passed] for passed in (False, None))
    if beyond:
        yield Tile("risks beyond the spec", number(len(beyond)), " · ".join(beyond))
    elif weigh:
        yield Tile("risks to weigh", number(len(weigh)), " · ".join(weigh))
    else:
        yield Tile("risks", "none found", " · ".join(risk.name for risk in risks))
