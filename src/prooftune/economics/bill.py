"""What a managed run was billed: training as the provider says, answers by their measured tokens and the price list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prooftune.data.lines import read_lines
from prooftune.economics.managed import billed_usd, price_of
from prooftune.economics.prices import BATCH_SHARE, Meter, PriceList
from prooftune.evaluation.answers.api_answerer import KeptAnswer
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen, StageOutput


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
    lines = list(_training(outputs.get("train"), offer, prices))
    for stage, read, written in (("baselines", "input", "output"), ("evaluate", "tuned_input", "tuned_output")):
        if stage in outputs:
            lines.append(
                _answers(stage, outputs[stage], (read, written), offer, prices, store, BATCH_SHARE if spec.provider.batch else 1.0)
            )
    trained = outputs["train"].figures["trained_tokens"] if "train" in outputs else None
    return Bill(
        lines=tuple(lines),
        usd=sum(line.usd for line in lines),
        estimated_usd=float(estimate["usd"]),
        training_tokens_estimated=int(estimate["training_tokens"]),
        training_tokens_billed=trained,
    )


def _training(trained: StageOutput | None, offer: str, prices: PriceList) -> Iterator[BillLine]:
    if trained is None:
        return
    tokens, usd = trained.figures["trained_tokens"], trained.figures["billed_usd"]
    if usd is not None:
        yield BillLine(what="training", tokens=tokens or 0, usd=usd, told_by="the provider")
    elif tokens is not None:
        yield BillLine(what="training", tokens=tokens, usd=billed_usd(offer, tokens, prices), told_by=offer)


def _answers(
    stage: str, output: StageOutput, meters: tuple[Meter, Meter], offer: str, prices: PriceList, store: ObjectStore, share: float
) -> BillLine:
    """Add up the answers that the stage kept: each was paid for once."""
    read = written = 0
    for name, ref in output.artifacts.items():
        if name.endswith("answers.jsonl"):
            for kept in read_lines(store.fetch(ref), KeptAnswer):
                read += kept.answer.prompt_tokens
                written += kept.answer.answer_tokens
    usd = (read * price_of(prices, offer, meters[0]) + written * price_of(prices, offer, meters[1])) / 1e6 * share
    return BillLine(what=f"answers of {stage}", tokens=read + written, usd=usd, told_by=offer)
