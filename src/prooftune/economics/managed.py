"""What a managed run may cost, before anything is paid for: training, evaluation and hosting, line by line.

Training counts every token that the provider bills, by ``billable``. Of the evaluation each prompt is taken to show the longest
demonstrations, and each answer to be half as long again as the longest training target: no bound, since a request allows more. What it
would come to with every answer as long as that is told beside it (decision 0018). What a run may ask besides is in neither: a champion's
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

from prooftune.data.counting import Counter
from prooftune.data.lines import read_lines
from prooftune.economics.asked import DEPLOYED, Asked, asked_by
from prooftune.economics.billable import UpperCounter, billable_counter, conversations, how_of, is_open
from prooftune.economics.offers import hosted_free, offer_of
from prooftune.economics.prices import BATCH_SHARE, Meter, Price, PriceList, load_prices
from prooftune.economics.spending import BudgetExceeded
from prooftune.errors import SpecError
from prooftune.providers.batches import batches_base
from prooftune.spec import RunSpec
from prooftune.types import Example, Frozen, SplitName

HOSTING_HOURS = 2.0
"""That a deployment is taken to run for the evaluation, its start included."""
BILLS_VALIDATION = ("together",)
"""Providers that bill the tokens of the validation file at each evaluation; the others bill the training file alone.
Source: https://docs.together.ai/docs/fine-tuning/pricing."""
BY_METHOD = ("together", "fireworks")
"""Providers whose price of a training token depends on the method. Sources: the page above, and https://fireworks.ai/pricing."""


class Line(Frozen):
    """One line of an estimate."""

    what: str
    quantity: float
    unit: str
    """Of the quantity: ``tokens``, ``hour`` or ``month``."""
    usd_per_unit: float
    usd: float
    source: str
    """Where the price comes from."""
    checked: str
    """Day on which the source said so, ISO 8601."""


class Estimate(Frozen):
    """``estimate.json``: what a managed run may cost."""

    offer: str
    """Entry of the price list."""
    training_tokens: int
    """Of all epochs."""
    exact: bool
    """Whether training tokens are counted with the provider's tokenizer."""
    how: str = ""
    """How they were counted."""
    lines: tuple[Line, ...]
    usd: float
    """What the budget's limits are compared with."""
    longest_usd: float | None = None
    """The same with each answer as long as its request allows; None = an estimate of before this was told."""
    warnings: tuple[str, ...] = ()


def estimate_managed(spec: RunSpec, splits: Mapping[SplitName, Path], prices: PriceList) -> Estimate:
    """Return what a managed run may cost.

    Raises:
        SpecError: the price list lacks a price that is needed; the message says which.
        ModelUnavailable: ``provider.tokenizer`` names one that cannot be had.
    """
    provider, model = spec.backend.provider, spec.backend.model
    counter = billable_counter(provider, model, _tokenizer(spec))
    offer = offer_of(provider, model, prices)
    examples = {name: tuple(read_lines(path, Example)) for name, path in splits.items()}
    tokens = training_tokens(spec, examples, counter)
    bill = _Lines(prices)
    bill.add("training", tokens, offer, training_meter(spec))
    for asked in asked_by(spec, examples, offer, counter):
        if asked.offer != _unpriced_judge(spec, prices):
            _add_asked(bill, asked)
    _add_hosting(bill, spec, offer)
    return Estimate(
        offer=offer,
        training_tokens=tokens,
        exact=counter.exact,
        how=how_of(counter),
        lines=tuple(bill.lines),
        usd=round(sum(line.usd for line in bill.lines), 6),
        longest_usd=round(sum(line.usd for line in bill.lines) + bill.longer_usd, 6),
        warnings=tuple(_warnings(spec, bill, counter)),
    )


def check_limit(spec: RunSpec, estimate: Estimate) -> None:
    """Refuse a run whose estimate is above ``budget.max_usd``.

    Raises:
        BudgetExceeded: with both amounts.
    """
    if estimate.usd > spec.budget.max_usd:
        raise BudgetExceeded(
            f"the run may cost ${estimate.usd:,.2f}, and budget.max_usd is ${spec.budget.max_usd:,.2f}; nothing was uploaded. Raise the "
            f"limit, or train on less: {estimate.training_tokens:,} tokens are trained in {spec.provider.hyperparameters.epochs} epochs"
        )


def beyond_limit(spec: RunSpec, estimate: Estimate) -> str:
    """Return how far a run may go beyond ``budget.max_usd`` if it is answered at length; empty = it may not, or is refused anyhow."""
    limit, longest = spec.budget.max_usd, estimate.longest_usd or 0.0
    if not estimate.usd <= limit < longest:
        return ""
    return (
        f"with every answer as long as its request allows the run would cost ${longest:,.2f}, above budget.max_usd, ${limit:,.2f}: a model "
        "that talks or thinks at length may exceed it"
    )


def training_tokens(spec: RunSpec, examples: Mapping[SplitName, tuple[Example, ...]], counter: Counter) -> int:
    """Return the tokens that a training bills: all epochs, and where the provider bills it one look at the validation file an epoch."""
    billed: tuple[SplitName, ...] = ("train", "validation") if spec.backend.provider in BILLS_VALIDATION else ("train",)
    rows = (row for name in billed for row in examples[name])
    epoch = sum(counter.conversation_tokens(messages) for row in rows for messages in conversations(row, spec.task.system))
    return epoch * spec.provider.hyperparameters.epochs


def training_meter(spec: RunSpec) -> Meter:
    """Return which price of the list a training token has."""
    return "training_preference" if spec.backend.objective == "preference" and spec.backend.provider in BY_METHOD else "training"


def billed_usd(offer: str, tokens: int, prices: PriceList, meter: Meter = "training") -> float:
    """Return what so many trained tokens cost by the price list. Raises SpecError where it has no price."""
    return tokens * _needed(prices, offer, meter).amount / 1e6


def price_of(prices: PriceList, offer: str, meter: Meter) -> float:
    """Return the price of 1M tokens, or of an hour or month; 0 for tokens of a tuned model that is billed by the hour alone.

    Raises:
        SpecError: the list has none.
    """
    if meter in ("tuned_input", "tuned_output") and _by_the_hour(prices, offer):
        return 0.0
    return _needed(prices, offer, meter).amount


def hosting_usd_per_hour(spec: RunSpec) -> float | None:
    """Return what a deployment of the tuned model costs while it runs; None = the price list has no price of an hour.

    Raises:
        SpecError: the price list has no entry for the model.
    """
    if hosted_free(spec.backend.provider, spec.provider):
        return 0.0
    prices = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    price = prices.find(offer_of(spec.backend.provider, spec.backend.model, prices), "hosting")
    return price.amount if price is not None and price.unit == "hour" else None


def _add_asked(bill: _Lines, asked: Asked) -> None:
    meters: tuple[Meter, Meter] = ("tuned_input", "tuned_output") if asked.tuned else ("input", "output")
    if asked.tuned and _by_the_hour(bill.prices, asked.offer):
        return  # its machine is paid for by the hour, and the tokens with it
    share, through = (BATCH_SHARE, ", by batch") if asked.batched else (1.0, "")
    for meter, tokens, longest, done in zip(meters, (asked.read, asked.written), asked.longest, ("read", "written"), strict=True):
        if tokens:
            bill.add(f"{asked.what}, {done}{through}", tokens, asked.offer, meter, share)
            bill.longer_usd += (longest - tokens) * bill.lines[-1].usd_per_unit


def _add_hosting(bill: _Lines, spec: RunSpec, offer: str) -> None:
    """Add the place that the tuned model answers from."""
    provider = spec.backend.provider
    if provider not in DEPLOYED or hosted_free(provider, spec.provider):
        return
    if _needed(bill.prices, offer, "hosting").unit == "hour":
        bill.add("hosting, for the evaluation", HOSTING_HOURS, offer, "hosting")
    else:
        bill.add("hosting, first month", 1.0, offer, "hosting")


def _by_the_hour(prices: PriceList, offer: str) -> bool:
    hosting = prices.find(offer, "hosting")
    return hosting is not None and hosting.unit == "hour" and prices.find(offer, "tuned_input") is None


class _Lines:
    """The lines of an estimate as they come, and the prices that they rest on."""

    def __init__(self, prices: PriceList) -> None:
        self.prices = prices
        self.lines: list[Line] = []
        self.used: list[Price] = []
        self.longer_usd = 0.0
        """What answers as long as their requests allow would cost besides."""

    def add(self, what: str, quantity: float, offer: str, meter: Meter, share: float = 1.0) -> None:
        """Add a line. Raises SpecError where the price list has no price for it."""
        price = _needed(self.prices, offer, meter)
        tokens = price.unit == "1M tokens"
        each = price.amount * share / (1e6 if tokens else 1.0)
        source = self.prices.source[price.source]
        self.used.append(price)
        self.lines.append(
            Line(
                what=what,
                quantity=quantity,
                unit="tokens" if tokens else price.unit,
                usd_per_unit=each,
                usd=quantity * each,
                source=source.name,
                checked=source.checked.isoformat(),
            )
        )


def _needed(prices: PriceList, offer: str, meter: Meter) -> Price:
    price = prices.find(offer, meter)
    if price is None:
        raise SpecError(
            f"the price list has no price for {offer}, {meter}, so nobody can say what the run would cost; add {meter} under "
            f'[price."{offer}"] to a file, and name it in use.prices'
        )
    return price


def _tokenizer(spec: RunSpec) -> Path | None:
    if spec.provider.tokenizer is None or not is_open(spec.backend.provider, spec.backend.model):
        return None
    from prooftune.models.resolve import resolve_tokenizer

    return resolve_tokenizer(spec.provider.tokenizer)


def _warnings(spec: RunSpec, bill: _Lines, counter: Counter) -> Iterator[str]:
    if stale := bill.prices.stale(bill.used):
        yield stale
    if isinstance(counter, UpperCounter) and is_open(spec.backend.provider, spec.backend.model):
        yield f"Tokens are {how_of(counter)}; name the base model's tokenizer in provider.tokenizer, and it counts them."
    elif not counter.exact and is_open(spec.backend.provider, spec.backend.model):
        yield f"Tokens are counted by {how_of(counter)}: the bill may differ."
    elif not counter.exact:
        yield f"{spec.backend.provider} publishes no tokenizer of {spec.backend.model}: tokens are {how_of(counter)}."
    yield from _asked_directly(spec)
    if spec.backend.objective == "reinforcement":
        yield "A reinforcement tuning is billed by what it generates, or by time: the line of training is no bound."
    if (judge := _unpriced_judge(spec, bill.prices)) is not None:
        yield f"The judge {judge} answers at judge.base_url and has no price; what it costs is not in the estimate."


def _asked_directly(spec: RunSpec) -> Iterator[str]:
    """Say who is asked at the full price although ``provider.batch`` is set."""
    provider = spec.backend.provider
    if not spec.provider.batch:
        return
    if not batches_base(provider, spec.provider):
        yield (
            "provider.tier: standard keeps data in the resource's region, and Azure works batches off anywhere: the base model is asked "
            "directly, at the full price."
        )
    if provider in DEPLOYED:
        yield "The tuned model answers from a deployment, so it is asked directly, at the full price, whatever provider.batch says."


def _unpriced_judge(spec: RunSpec, prices: PriceList) -> str | None:
    """Return the judge's entry where it answers from a server of the user's that has no price."""
    offer = f"{spec.judge.provider}/{spec.judge.model}"
    return offer if spec.judge.base_url is not None and prices.find(offer, "input") is None else None
