"""What a managed run may cost, before anything is paid for: training, evaluation and hosting, line by line.

Training counts every token that the provider bills: exactly, where its tokenizer is public (OpenAI, Azure, and open models whose tokenizer
``provider.tokenizer`` names), else from characters. Evaluation is an upper estimate: each answer is taken to be as long as the longest
target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prooftune.data.counting import Counter, counter_of
from prooftune.data.lines import read_lines
from prooftune.economics.prices import BATCH_SHARE, Meter, Price, PriceList
from prooftune.economics.spending import BudgetExceeded
from prooftune.errors import SpecError
from prooftune.spec import RunSpec
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message, SplitName

HOSTING_HOURS = 2.0
"""That a deployment is taken to run for the evaluation, its start included."""
SUITE_TOKENS = 120
"""Of a question of the general suite and its answer, rounded up."""
SUITE_QUESTIONS = 100


class Line(Frozen):
    """One line of an estimate."""

    what: str
    quantity: float
    unit: str
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
    lines: tuple[Line, ...]
    usd: float
    warnings: tuple[str, ...] = ()


def estimate_managed(spec: RunSpec, splits: Mapping[SplitName, Path], prices: PriceList) -> Estimate:
    """Return what a managed run may cost.

    Raises:
        SpecError: the price list lacks a price that is needed.
    """
    counter = counter_of(spec.backend.provider, spec.provider.tokenizer)
    offer = offer_of(spec.backend.provider, spec.backend.model, prices)
    train, validation, holdout = (list(read_lines(splits[name], Example)) for name in ("train", "validation", "holdout"))
    tokens = training_tokens(train, spec.task.system, counter) * spec.provider.hyperparameters.epochs
    lines = [_line("training", tokens, offer, "training", prices)]
    lines += _evaluation(spec, counter, train, validation, holdout, offer, prices)
    if (hosting := prices.find(offer, "hosting")) is not None and hosting.unit == "hour":
        lines.append(_line("hosting for the evaluation", HOSTING_HOURS, offer, "hosting", prices))
    used = [
        price
        for meter in ("training", "input", "output", "tuned_input", "tuned_output", "hosting")
        if (price := _found(prices, offer, meter))
    ]
    warnings = [prices.stale(used)]
    if not counter.exact:
        warnings.append(
            f"{spec.backend.provider} publishes no tokenizer of {spec.backend.model}, or provider.tokenizer does not name it: tokens are "
            "estimated from characters, and the bill may differ by a fifth."
        )
    return Estimate(
        offer=offer,
        training_tokens=tokens,
        exact=counter.exact,
        lines=tuple(lines),
        usd=round(sum(line.usd for line in lines), 6),
        warnings=tuple(filter(None, warnings)),
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


def training_tokens(examples: Sequence[Example], system: str, counter: Counter) -> int:
    """Return the tokens that one epoch bills: of a preference pair, both conversations."""
    conversations = [with_system(example.messages, system) for example in examples]
    conversations += [
        with_system((*example.prompt, Message(role="assistant", content=example.rejected)), system)
        for example in examples
        if example.rejected is not None
    ]
    return sum(counter.conversation_tokens(messages) for messages in conversations)


def billed_usd(offer: str, tokens: int, prices: PriceList) -> float:
    """Return what so many trained tokens cost by the price list. Raises SpecError where it has no price."""
    return _line("training", tokens, offer, "training", prices).usd


def offer_of(provider: str, model: str, prices: PriceList) -> str:
    """Return the price list's entry for a provider's model: of those whose name the model's name contains, the longest.

    Raises:
        SpecError: there is none.
    """
    name = model.lower()
    known = [offer for offer in prices.price if offer.startswith(f"{provider}/")]
    fitting = [offer for offer in known if offer.partition("/")[2] in name]
    if not fitting:
        listed = ", ".join(known) or "none"
        raise SpecError(
            f"the price list has no entry for {provider}/{model}, so nobody can say what it would cost. It has {listed}; add "
            f'[price."{provider}/{model}"] with training, input, output, tuned_input and tuned_output to a file, and name it in use.prices'
        )
    return max(fitting, key=len)


def _evaluation(
    spec: RunSpec,
    counter: Counter,
    train: Sequence[Example],
    validation: Sequence[Example],
    holdout: Sequence[Example],
    offer: str,
    prices: PriceList,
) -> Iterator[Line]:
    """Yield what the ladder and the candidate read and write."""
    system = spec.task.system if spec.baseline.system is None else spec.baseline.system
    asked = sum(counter.prompt_tokens(with_system(example.prompt, system)) for example in holdout)
    chosen_on = validation[: spec.baseline.choose_on]
    tried = sum(counter.prompt_tokens(with_system(example.prompt, system)) for example in chosen_on)
    longest = max(counter.text_tokens([example.target for example in train]), default=0)
    shown = max((counter.conversation_tokens(example.messages) for example in train), default=0)
    trials = sum(2**step for step in range(spec.baseline.shots.bit_length()))
    read = written = 0
    for rung in spec.baseline.ladder if spec.baseline.model is None else ():
        shots = 0 if rung in ("zero_shot", "larger_model") else spec.baseline.passages if rung == "rag" else spec.baseline.shots
        read += asked + shots * shown * len(holdout)
        written += longest * len(holdout)
        if rung in ("few_shot", "retrieved") and chosen_on:
            read += tried * spec.baseline.shots.bit_length() + trials * shown * len(chosen_on)
            written += longest * len(chosen_on) * spec.baseline.shots.bit_length()
        if rung == "optimised":
            read += spec.baseline.optimise.calls * (shown * (spec.baseline.shots + 1))
            written += spec.baseline.optimise.calls * longest
    suite = SUITE_QUESTIONS * SUITE_TOKENS if spec.general.suite == "shipped" else 0
    share = BATCH_SHARE if spec.provider.batch else 1.0
    own = sum(counter.prompt_tokens(with_system(example.prompt, spec.task.system)) for example in holdout)
    yield _line("baselines, read", (read + suite) * share, offer, "input", prices)
    yield _line("baselines, written", written * share, offer, "output", prices)
    yield _line("candidate, read", (own + suite) * share, offer, "tuned_input", prices, instead="input")
    yield _line("candidate, written", longest * len(holdout) * share, offer, "tuned_output", prices, instead="output")


def _line(what: str, quantity: float, offer: str, meter: Meter, prices: PriceList, instead: Meter | None = None) -> Line:
    price = _found(prices, offer, meter) or (_found(prices, offer, instead) if instead else None)
    if price is None:
        raise SpecError(
            f"the price list has no price for {offer}, {meter}, so nobody can say what the run would cost; add it under "
            f'[price."{offer}"] to a file, and name it in use.prices'
        )
    per = 1e6 if price.unit == "1M tokens" else 1.0
    source = prices.source[price.source]
    return Line(
        what=what,
        quantity=quantity,
        unit="tokens" if price.unit == "1M tokens" else price.unit,
        usd_per_unit=price.amount / per,
        usd=quantity * price.amount / per,
        source=source.name,
        checked=source.checked.isoformat(),
    )


def price_of(prices: PriceList, offer: str, meter: Meter) -> float:
    """Return a price, of 1M tokens or of an hour; a tuned model without one of its own costs what its base model does.

    Raises:
        SpecError: the list has neither.
    """
    base: dict[Meter, Meter] = {"tuned_input": "input", "tuned_output": "output"}
    return _line("", 1.0, offer, meter, prices, base.get(meter)).usd * 1e6


def _found(prices: PriceList, offer: str, meter: str) -> Price | None:
    return prices.find(offer, meter)  # type: ignore[arg-type]  # the meters named above
