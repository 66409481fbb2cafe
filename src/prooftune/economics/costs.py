"""The costs stage: what each way to serve the task costs, and when tuning is paid back.

Every tuned option is compared with the option in use now, which is the best baseline where it was measured; a provider's tuned model also
with the best baseline's prompts at the same provider. A wrong answer costs ``use.minutes_per_wrong_answer`` of work, whoever gave it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from prooftune.economics import break_even
from prooftune.economics.machine import Machine, MachineHour, machine_hour, this_machine
from prooftune.economics.offers import offer_of
from prooftune.economics.options import (
    HERE,
    NOT_MEASURED,
    Served,
    seconds_per_request,
    served_by_api,
    served_here,
    tuned_by,
    tuned_there,
)
from prooftune.economics.prices import PriceList, load_prices
from prooftune.errors import DataError
from prooftune.evaluation.metrics import definition_of
from prooftune.evidence import BreakEven, Costs
from prooftune.spec import RunSpec
from prooftune.types import Evaluation

CURVE = ("option", "against", "requests", "option_usd", "against_usd")


def write_costs(
    spec: RunSpec,
    baselines: Sequence[Evaluation],
    best: str,
    candidate: Evaluation,
    train_figures: Mapping[str, Any],
    train_seconds: float,
    out: Path,
) -> dict[str, Any]:
    """Write ``costs.json`` and ``break_even.csv`` (``curve``), and return figures.

    ``best`` is the name of the best baseline, ``train_seconds`` the wall time of the training stage.

    Raises:
        SpecError: ``use.prices`` is not a usable price list.
        DataError: no baseline is called ``best``.
    """
    prices = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    costs = cost_options(spec, baselines, best, candidate, train_figures, train_seconds, prices, this_machine())
    (out / "costs.json").write_text(costs.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
    with (out / "break_even.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, CURVE, lineterminator="\n")
        table.writeheader()
        table.writerows(curve(costs))
    return {**costs.model_dump(mode="json"), "prices_sha256": prices.sha256}


def cost_options(
    spec: RunSpec,
    baselines: Sequence[Evaluation],
    best: str,
    candidate: Evaluation,
    train_figures: Mapping[str, Any],
    train_seconds: float,
    prices: PriceList,
    machine: Machine,
) -> Costs:
    """Return the cost of every way to serve the task that has a price.

    Raises:
        DataError: no baseline is called ``best``.
    """
    in_use = next((baseline for baseline in baselines if baseline.name == best), None)
    if in_use is None:
        raise DataError(f"no baseline is called {best!r}; there are {', '.join(baseline.name for baseline in baselines) or 'none'}")
    hour = machine_hour(spec.use, machine, prices)
    own = offer_of(spec.backend.provider, spec.backend.model, prices) if spec.backend.managed else None
    prompted = {one.name: served for one in baselines if (served := _as_measured(one, spec, own, prices, hour)) is not None}
    if own is None:
        tuned = served_here(candidate, _requests(candidate, spec), _wrong(candidate, spec), spec.use, hour, train_seconds)
    else:
        tuned = tuned_there(own, candidate, train_figures, _wrong(candidate, spec), spec.use, prices, spec.provider)
    trained_tokens = train_figures["trained_tokens"]
    managed = [] if trained_tokens is None else list(_managed(spec, in_use, candidate, float(trained_tokens), prices, own))
    pairs = _pairs([tuned, *managed], prompted.get(best))
    every = [*prompted.values(), tuned, *managed]
    used = [price for one in every for price in one.prices]
    warnings = [
        hour.warning,
        *_warnings(spec, [*baselines, candidate], prompted, every, prices),
        *_hosting_warnings(spec, pairs),
        prices.stale(used),
    ]
    return Costs(
        options=tuple(one.option for one in every),
        break_even=tuple(_compare(option, against, spec) for option, against in pairs),
        requests_per_month=spec.use.requests_per_month,
        training_usd=tuned.option.tuning_usd,
        training_hours=train_seconds / 3600,
        priced_at=prices.checked(used).isoformat(),
        warnings=tuple(dict.fromkeys(filter(None, warnings))),
    )


def curve(costs: Costs) -> list[dict[str, object]]:
    """Return the points of the break-even plot: USD spent by a tuned option and by what it replaces, over requests.

    One row a point and comparison, with the columns ``CURVE``. What the tuned option saves in corrections stands on the side of what it
    replaces, so that the lines cross where tuning is paid back. A comparison whose hosting needs a volume that is not known has no points.
    """
    options = {option.name: option for option in costs.options}
    rows: list[dict[str, object]] = []
    for pair in costs.break_even:
        option, against = options[pair.option], options[pair.against]
        volume = costs.requests_per_month
        if not volume and option.hosting_usd_per_month != against.hosting_usd_per_month:
            continue
        per_request = option.usd_per_1000_requests / 1000
        last = break_even.reach(pair.requests, volume)
        for point in range(break_even.POINTS):
            requests = last * point / (break_even.POINTS - 1)
            here = break_even.cumulative_usd(requests, per_request, option.tuning_usd, option.hosting_usd_per_month, volume)
            there = break_even.cumulative_usd(
                requests, per_request + pair.saving_usd_per_request, against.tuning_usd, against.hosting_usd_per_month, volume
            )
            values = (option.name, against.name, requests, round(here, 6), round(there, 6))
            rows.append(dict(zip(CURVE, values, strict=True)))
    return rows


def _requests(evaluation: Evaluation, spec: RunSpec) -> int:
    metric = evaluation.metrics[spec.task.metric]
    return metric.n + metric.unscored


def _wrong(evaluation: Evaluation, spec: RunSpec) -> float | None:
    """Share of wrong answers, where the metric calls each answer right or wrong."""
    if not definition_of(spec.task.metric).right_or_wrong:
        return None
    return 1.0 - evaluation.metrics[spec.task.metric].value


def _as_measured(baseline: Evaluation, spec: RunSpec, own: str | None, prices: PriceList, hour: MachineHour) -> Served | None:
    """The baseline where it answered: on this machine, or behind an API whose price is known; ``own`` is a managed backend's offer."""
    larger = spec.baseline.larger
    wrong = _wrong(baseline, spec)
    if baseline.name == "larger_model" and larger.provider != "local":
        return served_by_api(baseline, f"{larger.provider}/{larger.model}", wrong, prices)
    if own is not None and spec.baseline.model is None:
        return served_by_api(baseline, own, wrong, prices)
    return served_here(baseline, _requests(baseline, spec), wrong, spec.use, hour)


def _managed(
    spec: RunSpec, in_use: Evaluation, candidate: Evaluation, trained_tokens: float, prices: PriceList, own: str | None
) -> Iterator[Served]:
    """What every other provider that may be used would cost, prompted like the best baseline and tuned like the candidate."""
    for offer in prices.tunable(spec.data.residency):
        if offer == own:
            continue
        prompted = served_by_api(in_use, offer, _wrong(in_use, spec), prices, NOT_MEASURED)
        if prompted is not None:
            yield prompted
        yield tuned_by(offer, candidate, trained_tokens, _wrong(candidate, spec), spec.use, prices, spec.provider)


def _pairs(served: Sequence[Served], now: Served | None) -> list[tuple[Served, Served]]:
    """Each tuned option with the one in use now, and each provider's with the same provider's base model; the candidate's comes first."""
    tuned = [one for one in served if one.option.tuned]
    prompted = {one.where: one for one in served if not one.option.tuned}
    at_home = [(one, prompted[one.where]) for one in tuned if one.where in prompted]
    return [(one, now) for one in tuned if now is not None] + at_home


def _compare(tuned: Served, against: Served, spec: RunSpec) -> BreakEven:
    option, replaced, volume = tuned.option, against.option, spec.use.requests_per_month
    saving = (replaced.usd_per_1000_requests - option.usd_per_1000_requests) / 1000
    if tuned.wrong is not None and against.wrong is not None:
        saving += (against.wrong - tuned.wrong) * usd_per_wrong_answer(spec)
    hosting = option.hosting_usd_per_month - replaced.hosting_usd_per_month
    return BreakEven(
        option=option.name,
        against=replaced.name,
        saving_usd_per_request=saving,
        saving_usd_per_month=break_even.saving_per_month(saving, hosting, volume),
        requests=break_even.requests_until_paid(option.tuning_usd, saving, hosting, volume),
        months=break_even.months_until_paid(option.tuning_usd, saving, hosting, volume),
    )


def usd_per_wrong_answer(spec: RunSpec) -> float:
    """Return what the work on one wrong answer costs."""
    return spec.use.minutes_per_wrong_answer / 60 * spec.use.usd_per_hour_of_work


def _warnings(
    spec: RunSpec, evaluations: Sequence[Evaluation], prompted: Mapping[str, Served], served: Sequence[Served], prices: PriceList
) -> Iterator[str]:
    """What the costs leave out, and why."""
    for one in evaluations[:-1]:
        if one.name not in prompted:
            offer = f"{spec.baseline.larger.provider}/{spec.baseline.larger.model}"
            yield f"The price list has no price for {offer}, so {one.name} has no costs; add one in use.prices."
    if usd_per_wrong_answer(spec) and not definition_of(spec.task.metric).right_or_wrong:
        yield f"{spec.task.metric} does not say which answers are wrong, so corrections are not counted."
    if (hours := spec.use.hosting_hours_per_month) and (volume := spec.use.requests_per_month):
        for one in evaluations:
            if prompted.get(one.name, served[len(prompted)]).where != HERE:
                continue
            busy = volume * seconds_per_request(one, _requests(one, spec)) / 3600
            if busy > hours:
                yield f"{one.name} would take {busy:,.0f} hours for {volume:,} requests a month; use.hosting_hours_per_month is {hours:g}."
    if left_out := sorted(set(prices.tunable()) - set(prices.tunable(spec.data.residency))):
        yield f"Left out, since no source says that they keep data in {spec.data.residency}: {', '.join(left_out)}."
    for name, provider in sorted(prices.provider.items()):
        if provider.last_job is not None and any(one.where.startswith(f"{name}/") and one.option.tuned for one in served):
            yield f"{name} accepts no new training after {provider.last_job}."


def _hosting_warnings(spec: RunSpec, pairs: Sequence[tuple[Served, Served]]) -> Iterator[str]:
    """From which volume on hosting is covered, where it is not at the volume that is known."""
    for tuned, against in pairs:
        found = _compare(tuned, against, spec)
        hosting = tuned.option.hosting_usd_per_month - against.option.hosting_usd_per_month
        needed = break_even.volume_for_hosting(found.saving_usd_per_request, hosting)
        if hosting > 0 and found.months is None:
            covered = "is covered by no volume" if needed is None else f"is covered from {needed:,} requests a month on"
            yield f"The hosting of {tuned.option.name} {covered}, against {against.option.name}."
