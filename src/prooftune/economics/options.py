"""Ways to serve the task, each with its money: on this machine, behind an API as now, or tuned by a managed provider.

What is measured is this run: tokens of the prompts and answers, and seconds. What is not (another provider's tokenizer, the quality of
another base model tuned on the same data) stands in ``Option.assumption``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prooftune.economics.machine import MachineHour
from prooftune.economics.offers import hosted_free
from prooftune.economics.prices import Meter, Price, PriceList
from prooftune.evidence import Option
from prooftune.spec import Provider, Use
from prooftune.types import Evaluation

HERE = "this machine"
HOURS_PER_MONTH = 365 * 24 / 12


@dataclass(frozen=True, slots=True)
class Served:
    """One way to serve the task."""

    option: Option
    where: str
    """``this machine``, or the offer's name in the price list."""
    wrong: float | None
    """Share of wrong answers; None = the metric does not say which answers are wrong."""
    prices: tuple[Price, ...]
    """Of the price list, as far as it was used."""


def name_of(evaluation: Evaluation, where: str) -> str:
    """Return an option's name, ``few-shot, this machine``."""
    rung = evaluation.name.replace("_shot", "-shot").replace("_", " ")
    return f"{rung}, {where.replace('/', ' ', 1)}"


def served_here(
    evaluation: Evaluation, requests: int, wrong: float | None, use: Use, hour: MachineHour, train_seconds: float | None = None
) -> Served:
    """Serve with a model on this machine, at the measured speed; ``train_seconds`` where it was tuned."""
    hours = use.hosting_hours_per_month
    paid = (
        "It is paid for only while it answers or trains."
        if hours is None
        else f"It is paid for {hours:g} hours a month, whoever is prompted on it, and answers cost nothing more."
    )
    option = Option(
        name=name_of(evaluation, HERE),
        tuned=train_seconds is not None,
        tuning_usd=(train_seconds or 0.0) / 3600 * hour.usd,
        hosting_usd_per_month=(hours or 0.0) * hour.usd,
        usd_per_1000_requests=0.0 if hours is not None else 1000 * seconds_per_request(evaluation, requests) / 3600 * hour.usd,
        prompt_tokens=evaluation.prompt_tokens_mean,
        answer_tokens=evaluation.answer_tokens_mean,
        assumption=f"{hour.source} {paid}",
    )
    return Served(option, HERE, wrong, (hour.price,) if hour.price else ())


def seconds_per_request(evaluation: Evaluation, requests: int) -> float:
    """Return the wall seconds of one answer, in batches as measured.

    Raises:
        ValueError: they were not measured: the answers came from an API, which is priced by tokens.
    """
    if evaluation.seconds is None:
        raise ValueError(f"the seconds of {evaluation.name} were not measured: only what answered on this machine is priced by them")
    return evaluation.seconds / max(requests, 1)


def served_by_api(evaluation: Evaluation, offer: str, wrong: float | None, prices: PriceList, assumption: str = "") -> Served | None:
    """Prompt the base model behind an API; None = the list has no price for it."""
    usd = prices.request_usd(offer, evaluation.prompt_tokens_mean, evaluation.answer_tokens_mean)
    if usd is None:
        return None
    option = Option(
        name=name_of(evaluation, offer),
        tuned=False,
        tuning_usd=0.0,
        hosting_usd_per_month=0.0,
        usd_per_1000_requests=1000 * usd,
        prompt_tokens=evaluation.prompt_tokens_mean,
        answer_tokens=evaluation.answer_tokens_mean,
        assumption=assumption,
        measured=assumption != NOT_MEASURED,
    )
    return Served(option, offer, wrong, tuple(prices.price[offer][meter] for meter in _PROMPTED))


_PROMPTED: tuple[Meter, ...] = ("input", "output")
_TUNED: tuple[Meter, ...] = ("tuned_input", "tuned_output", "training", "hosting")


def tuned_by(
    offer: str, candidate: Evaluation, trained_tokens: float, wrong: float | None, use: Use, prices: PriceList, options: Provider
) -> Served:
    """Tune and serve with a managed provider, with the tokens that were trained and generated here."""
    meters = prices.price[offer]
    tokens: dict[Meter, float] = {"tuned_input": candidate.prompt_tokens_mean, "tuned_output": candidate.answer_tokens_mean}
    per_request = sum(count * meters[meter].amount for meter, count in tokens.items() if meter in meters) / 1e6
    free = hosted_free(offer.partition("/")[0], options)
    hosting, place = (0.0, FREE) if free else _hosting(meters.get("hosting"), use)
    option = Option(
        name=name_of(candidate, offer),
        tuned=True,
        tuning_usd=trained_tokens * meters["training"].amount / 1e6,
        hosting_usd_per_month=hosting,
        usd_per_1000_requests=1000 * per_request,
        prompt_tokens=candidate.prompt_tokens_mean,
        answer_tokens=candidate.answer_tokens_mean,
        assumption=f"{NOT_MEASURED} Training counts the {trained_tokens:,.0f} tokens trained here.{place}",
        measured=False,
    )
    return Served(option, offer, wrong, tuple(meters[meter] for meter in _TUNED if meter in meters))


def tuned_there(
    offer: str,
    candidate: Evaluation,
    train_figures: Mapping[str, Any],
    wrong: float | None,
    use: Use,
    prices: PriceList,
    options: Provider,
) -> Served:
    """The candidate at the provider that tuned it: its own bill, its own answers."""
    tokens, billed = train_figures["trained_tokens"], train_figures["billed_usd"]
    served = tuned_by(offer, candidate, float(tokens or 0), wrong, use, prices, options)
    unknown = "" if tokens is not None or billed is not None else "The provider does not say what it trained, so tuning is not in it."
    place = FREE if hosted_free(offer.partition("/")[0], options) else ""
    update: dict[str, Any] = {"measured": True, "assumption": f"{unknown}{place}".strip()} | (
        {} if billed is None else {"tuning_usd": billed}
    )
    return replace(served, option=served.option.model_copy(update=update))


NOT_MEASURED = "Not measured: its tokenizer is taken to give as many tokens, and its answers to be as good, as the model's here."

FREE = " Its deployment costs nothing by the hour, and lives for a day."


def _hosting(price: Price | None, use: Use) -> tuple[float, str]:
    """Return USD a month for the tuned model's place, and what is assumed of it."""
    if price is None:
        return 0.0, ""
    if price.unit == "month":
        return price.amount, ""
    hours = use.hosting_hours_per_month
    if hours is None:
        return HOURS_PER_MONTH * price.amount, f" Its deployment is paid for around the clock, {HOURS_PER_MONTH:g} hours a month."
    return hours * price.amount, f" Its deployment is paid for {hours:g} hours a month."
