"""What a managed run was billed: training as the provider says, the rest by what was measured and the price list.

Answers count by their tokens, a deployment by the hours that it ran, and the judge by its own bill. What nobody can say is left out of the
bill, and said so: an estimate's error is worth as much as the bill that it is compared with. The month counts it as it was estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from prooftune.data.lines import read_lines
from prooftune.economics.managed import Estimate, Line, needed, price_of, training_meter
from prooftune.economics.prices import BATCH_SHARE, Meter, PriceList
from prooftune.evaluation.answers.api_answerer import KeptAnswer
from prooftune.providers.hosting import ANSWERS, ENDING, Hosted
from prooftune.providers.tuning import Job
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen, StageOutput

Part = Literal["training", "base model", "tuned model", "larger model", "judge", "hosting"]
"""What money goes to: by it a bill is laid beside its estimate."""
METERS: Mapping[str, tuple[Part, Meter, Meter]] = {
    "base_model": ("base model", "input", "output"),
    "larger_model": ("larger model", "input", "output"),
    "candidate": ("tuned model", "tuned_input", "tuned_output"),
    "candidate_old": ("tuned model", "tuned_input", "tuned_output"),
    "champion_new": ("tuned model", "tuned_input", "tuned_output"),
    "champion_again": ("tuned model", "tuned_input", "tuned_output"),
}
"""Part and prices of a file of answers, by whose answers they are."""
ESTIMATED: Mapping[str, Part] = {
    "training": "training",
    "baselines": "base model",
    "general suite": "base model",
    "candidate": "tuned model",
    "larger model": "larger model",
    "judge": "judge",
    "hosting": "hosting",
}
"""Part of an estimate's line, by how the line begins."""
BY_ESTIMATE = "the estimate"
"""Who tells what nobody else does."""
STAGES = ("baselines", "evaluate", "champion", "forgetting")


class BillLine(Frozen):
    """One line of a bill."""

    part: Part
    stage: str = ""
    """Stage that spent it; empty in a bill of before this was written down."""
    what: str
    quantity: float
    unit: str
    """Of the quantity: ``tokens``, ``hour`` or ``month``."""
    usd: float
    told_by: str
    """``the provider``, ``the estimate``, or the price list's entry that it was computed by."""


class Bill(Frozen):
    """``bill.json``: what was billed, beside what was estimated."""

    lines: tuple[BillLine, ...]
    usd: float
    estimated_usd: float
    training_tokens_estimated: int
    training_tokens_billed: int | None
    """None = the provider does not say, or nothing was trained."""
    left_out: tuple[str, ...] = ()
    """What is not in the bill although it may have cost something, each with the reason."""
    untold: tuple[BillLine, ...] = ()
    """What the estimate says of what is left out: it counts in the project's month, and not in ``usd``."""

    @property
    def untold_usd(self) -> float:
        """What is counted by the estimate, since nobody tells, in USD."""
        return sum(line.usd for line in self.untold)

    @property
    def by_stage(self) -> dict[str, float]:
        """What each stage spent, as the month counts it, in USD."""
        found: dict[str, float] = {}
        for line in (*self.lines, *self.untold):
            found[line.stage] = found.get(line.stage, 0.0) + line.usd
        return found

    @property
    def error(self) -> float | None:
        """How far the estimate was above the bill, relative to the bill; None = nothing was billed."""
        return None if self.usd == 0 else self.estimated_usd / self.usd - 1

    def of(self, part: Part) -> float:
        """Return what a part was billed, in USD."""
        return sum(line.usd for line in self.lines if line.part == part)


def estimated_by_part(lines: Iterable[Line]) -> dict[Part, float]:
    """Return what an estimate's lines say of each part, in USD."""
    found: dict[Part, float] = dict.fromkeys(get_args(Part), 0.0)
    for line in lines:
        found[ESTIMATED[line.what.partition(",")[0]]] += line.usd
    return found


def bill_of(spec: RunSpec, prices: PriceList, outputs: Mapping[str, StageOutput], store: ObjectStore, failed: Job | None = None) -> Bill:
    """Return the bill of a run from what its stages handed on.

    Args:
        spec: Of the run.
        prices: Price list.
        outputs: Of the stages, by name; ``estimate`` is among them.
        store: Where the answers are.
        failed: The job, where it ended without a model: then no stage tells what it cost.

    Raises:
        SpecError: the price list lacks a price that is needed.
    """
    estimate = Estimate.model_validate(outputs["estimate"].figures)
    figures = outputs["train"].figures if "train" in outputs else None
    if failed is not None:
        figures = {"trained_tokens": failed.billed_tokens, "billed_usd": failed.billed_usd}
    training = None if figures is None else training_line(spec, figures, estimate.offer, prices)
    lines = [] if training is None else [training]
    for stage in STAGES:
        if stage in outputs:
            lines += _answers(spec, outputs[stage], estimate.offer, prices, store)
    if "judge" in outputs:
        lines += _judge(outputs["judge"].figures)
    lines += _hosting(estimate, outputs, store)
    billed = {line.part for line in lines}
    left_out = (*_left_out(spec, figures, estimate, outputs, billed), *_untimed(estimate, outputs, store))
    return Bill(
        lines=tuple(lines),
        usd=sum(line.usd for line in lines),
        estimated_usd=estimate.usd,
        training_tokens_estimated=estimate.training_tokens,
        training_tokens_billed=figures["trained_tokens"] if figures else None,
        left_out=tuple(f"{part}: {why}" for part, _, why in left_out),
        untold=tuple(line for part, stage, _ in left_out for line in _as_estimated(estimate, part, stage)),
    )


def training_line(spec: RunSpec, figures: Mapping[str, Any], offer: str, prices: PriceList) -> BillLine | None:
    """Return what a training was billed: as the provider tells it, else by its tokens, or its hours, and the price list.

    Hours are those from the job's making to its end, its wait in the queue included: no provider tells those that it bills.

    Args:
        spec: Of the run.
        figures: Of the stage that collected the job: ``trained_tokens``, ``billed_usd``, ``job_seconds``.
        offer: Entry of the price list.
        prices: Price list.

    Returns:
        The line. None = the provider tells nothing that it could be computed from.

    Raises:
        SpecError: the price list has no price for it.
    """
    common: dict[str, Any] = {"part": "training", "stage": "train"}
    tokens, usd, seconds = figures["trained_tokens"], figures["billed_usd"], figures.get("job_seconds")
    if usd is not None:
        return BillLine(**common, what="training", quantity=tokens or 0, unit="tokens", usd=usd, told_by="the provider")
    if tokens is None and seconds is None:
        return None
    price = needed(prices, offer, training_meter(spec))
    if price.unit == "hour":
        if seconds is None:
            return None
        hours = seconds / 3600
        return BillLine(**common, what="training, its queue included", quantity=hours, unit="hour", usd=hours * price.each, told_by=offer)
    if tokens is None:
        return None
    return BillLine(**common, what="training", quantity=tokens, unit="tokens", usd=tokens * price.each, told_by=offer)


def training_cost(spec: RunSpec, figures: Mapping[str, Any], offer: str, prices: PriceList, estimate: Estimate | None) -> BillLine | None:
    """Return what a training was billed, or was estimated at where nobody tells; None = there is no estimate of it either.

    Raises:
        SpecError: the price list has no price for it.
    """
    told = training_line(spec, figures, offer, prices)
    if told is not None or estimate is None:
        return told
    return next(_as_estimated(estimate, "training", "train"), None)


def _answers(spec: RunSpec, output: StageOutput, offer: str, prices: PriceList, store: ObjectStore) -> Iterator[BillLine]:
    """Yield a line for each file of answers that a stage kept: each answer was paid for once, by the price of who gave it."""
    for name, ref in sorted(output.artifacts.items()):
        who = name.rpartition("/")[2].removesuffix(ANSWERS).removeprefix("general.")
        if not name.endswith(ANSWERS) or who not in METERS:
            continue
        larger = spec.baseline.larger
        at = f"{larger.provider}/{larger.model}" if who == "larger_model" else offer
        yield answers_line(output.stage, who, read_lines(store.fetch(ref), KeptAnswer), at, prices)


def answers_line(stage: str, who: str, answers: Iterable[KeptAnswer], offer: str, prices: PriceList) -> BillLine:
    """Return what kept answers cost by their tokens, those of a batch its share.

    Raises:
        SpecError: the price list lacks a price of the offer, also where there is no answer.
    """
    part, *meters = METERS[who]
    read_usd, written_usd = (price_of(prices, offer, meter) / 1e6 for meter in meters)
    tokens, usd = 0, 0.0
    for answer in (kept.answer for kept in answers):
        share = BATCH_SHARE if answer.latency_s is None else 1.0
        tokens += answer.prompt_tokens + answer.answer_tokens
        usd += (answer.prompt_tokens * read_usd + answer.answer_tokens * written_usd) * share
    what = f"{stage}: answers of {who.replace('_', ' ')}"
    return BillLine(part=part, stage=stage, what=what, quantity=tokens, unit="tokens", usd=usd, told_by=offer)


def _judge(figures: Mapping[str, Any]) -> Iterator[BillLine]:
    if (usd := figures["cost_usd"]) is not None:
        tokens, told_by = figures["prompt_tokens"] + figures["answer_tokens"], str(figures["judge"])
        yield BillLine(part="judge", stage="judge", what="judge: verdicts", quantity=tokens, unit="tokens", usd=usd, told_by=told_by)


def _hosting(estimate: Estimate, outputs: Mapping[str, StageOutput], store: ObjectStore) -> Iterator[BillLine]:
    """Yield what the tuned model's place costs, by the estimate's own price of it: the hours that it ran, or the month that has begun."""
    price = hosting_price(estimate)
    if price is None or "train" not in outputs:
        return
    if price.unit == "month":
        usd = price.usd_per_unit
        yield BillLine(part="hosting", stage="train", what=price.what, quantity=1.0, unit="month", usd=usd, told_by=estimate.offer)
        return
    for stage in STAGES:
        if rows := _hosted(stage, outputs, store):
            yield hours_line(stage, rows, price, estimate.offer)


def _hosted(stage: str, outputs: Mapping[str, StageOutput], store: ObjectStore) -> list[Hosted]:
    """Return what a stage's deployments ran."""
    files = [ref for name, ref in sorted(outputs[stage].artifacts.items()) if name.endswith(ENDING)] if stage in outputs else []
    return [row for ref in files for row in read_lines(store.fetch(ref), Hosted)]


def _untimed(estimate: Estimate, outputs: Mapping[str, StageOutput], store: ObjectStore) -> Iterator[tuple[Part, str, str]]:
    """Yield part, stage and reason where a deployment ran for a try that died, nobody knows how long."""
    price = hosting_price(estimate)
    if price is None or price.unit == "month":
        return
    for stage in STAGES:
        if any(row.hours is None for row in _hosted(stage, outputs, store)):
            yield "hosting", stage, f"how long the deployment ran for an earlier try of {stage} is not known"


def hosting_price(estimate: Estimate) -> Line | None:
    """Return the estimate's line of the tuned model's place; None = it needs none that is paid for by time."""
    return next((line for line in estimate.lines if ESTIMATED[line.what.partition(",")[0]] == "hosting"), None)


def hours_line(stage: str, hosted: Iterable[Hosted], price: Line, offer: str) -> BillLine:
    """Return what the hours that a deployment ran, as far as they are known, cost by an estimate's price of an hour."""
    hours = sum(row.hours or 0.0 for row in hosted)
    usd = hours * price.usd_per_unit
    return BillLine(part="hosting", stage=stage, what=f"{stage}: deployment", quantity=hours, unit="hour", usd=usd, told_by=offer)


def _left_out(
    spec: RunSpec, figures: Mapping[str, Any] | None, estimate: Estimate, outputs: Mapping[str, StageOutput], billed: set[Part]
) -> Iterator[tuple[Part, str, str]]:
    """Yield part, stage and reason of what may have cost something that nobody can say."""
    if figures is not None and "training" not in billed:
        yield "training", "train", f"{spec.backend.provider} says nothing of what it trained"
    if "judge" in outputs and "judge" not in billed:
        yield "judge", "judge", f"the price list has no price for {outputs['judge'].figures['judge']}"
    if estimated_by_part(estimate.lines)["hosting"] and "evaluate" in outputs and "hosting" not in billed:
        yield "hosting", "evaluate", "how long the deployment ran was not written down"


def _as_estimated(estimate: Estimate, part: Part, stage: str) -> Iterator[BillLine]:
    """Yield the estimate's lines of a part, as a stage's."""
    for line in estimate.lines:
        if ESTIMATED[line.what.partition(",")[0]] == part:
            amount = {"quantity": line.quantity, "usd": line.usd}
            yield BillLine(part=part, stage=stage, what=line.what, unit=line.unit, told_by=BY_ESTIMATE, **amount)
