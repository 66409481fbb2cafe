"""What a managed run was billed: training as the provider says, answers by their measured tokens and the price list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prooftune.data.lines import read_lines
from prooftune.economics.managed import billed_usd, price_of, training_meter
from prooftune.economics.prices import BATCH_SHARE, Meter, PriceList
from prooftune.evaluation.answers.api_answerer import KeptAnswer
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen, StageOutput

ENDING = ".answers.jsonl"
METERS: Mapping[str, tuple[Meter, Meter]] = {
    "base_model": ("input", "output"),
    "larger_model": ("input", "output"),
    "candidate": ("tuned_input", "tuned_output"),
    "candidate_old": ("tuned_input", "tuned_output"),
    "champion_new": ("tuned_input", "tuned_output"),
}
"""Prices of what a file of answers cost, by whose answers they are."""


class BillLine(Frozen):
    """One line of a bill."""

    what: str
    tokens: int
    usd: float
    told_by: str
    """``the provider``, or the price list's entry that it was computed by."""


class Bill(Frozen):
    """What was billed, beside what was estimated."""

    lines: tuple[BillLine, ...]
    usd: float
    estimated_usd: float
    training_tokens_estimated: int
    training_tokens_billed: int | None
    """None = the provider does not say, or nothing was trained."""

    @property
    def error(self) -> float | None:
        """How far the estimate was above the bill, relative to the bill."""
        return None if self.usd == 0 else self.estimated_usd / self.usd - 1


def bill_of(spec: RunSpec, prices: PriceList, outputs: Mapping[str, StageOutput], store: ObjectStore) -> Bill:
    """Return the bill of a run from what its stages handed on.

    Raises:
        SpecError: the price list lacks a price that is needed.
    """
    estimate = outputs["estimate"].figures
    offer = str(estimate["offer"])
    lines = list(_training(spec, outputs.get("train"), offer, prices))
    for stage in ("baselines", "evaluate", "champion", "forgetting"):
        if stage in outputs:
            lines += _answers(spec, outputs[stage], offer, prices, store)
    trained = outputs["train"].figures["trained_tokens"] if "train" in outputs else None
    return Bill(
        lines=tuple(lines),
        usd=sum(line.usd for line in lines),
        estimated_usd=float(estimate["usd"]),
        training_tokens_estimated=int(estimate["training_tokens"]),
        training_tokens_billed=trained,
    )


def _training(spec: RunSpec, trained: StageOutput | None, offer: str, prices: PriceList) -> Iterator[BillLine]:
    if trained is None:
        return
    tokens, usd = trained.figures["trained_tokens"], trained.figures["billed_usd"]
    if usd is not None:
        yield BillLine(what="training", tokens=tokens or 0, usd=usd, told_by="the provider")
    elif tokens is not None:
        yield BillLine(what="training", tokens=tokens, usd=billed_usd(offer, tokens, prices, training_meter(spec)), told_by=offer)


def _answers(spec: RunSpec, output: StageOutput, offer: str, prices: PriceList, store: ObjectStore) -> Iterator[BillLine]:
    """Yield a line for each file of answers that a stage kept: each answer was paid for once, by the price of who gave it."""
    for name, ref in sorted(output.artifacts.items()):
        who = name.rpartition("/")[2].removesuffix(ENDING).removeprefix("general.")
        if not name.endswith(ENDING) or who not in METERS:
            continue
        larger = spec.baseline.larger
        at = f"{larger.provider}/{larger.model}" if who == "larger_model" else offer
        read_usd, written_usd = (price_of(prices, at, meter) / 1e6 for meter in METERS[who])
        tokens, usd = 0, 0.0
        for kept in read_lines(store.fetch(ref), KeptAnswer):
            answer = kept.answer
            share = BATCH_SHARE if answer.latency_s is None else 1.0
            tokens += answer.prompt_tokens + answer.answer_tokens
            usd += (answer.prompt_tokens * read_usd + answer.answer_tokens * written_usd) * share
        yield BillLine(what=f"{output.stage}: answers of {who.replace('_', ' ')}", tokens=tokens, usd=usd, told_by=at)
