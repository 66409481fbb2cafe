"""The one thing to do, and why.

The first row that applies:

==============================================================================  ==========================================================
what was found                                                                  recommendation
==============================================================================  ==========================================================
a baseline reaches ``task.target``                                              what the first such rung is
too few training or held-out examples                                           ``collect_data``
the prompted model lacks facts; or right answers change every few days          ``rag``
it lacks reasoning                                                              ``larger_model``
fewer than 50 training examples                                                 ``few_shot``
contradictions keep even a perfect model from ``task.target``                   ``collect_data``
tuning, better answers included, is not paid back within a year                 what the best rung is
the spec's backend is a managed provider                                        ``managed``
training would take longer than a day of CPU                                    ``managed``, where a provider may be used
at least 100,000 examples, and all weights fit into memory                      ``full``
the base model fits into memory                                                 ``lora``
it fits in 4 bits                                                               ``qlora``
otherwise                                                                       ``managed``, where a provider may be used; else ``qlora``
==============================================================================  ==========================================================

Bytes a parameter: 16 with all weights trained (fp32 weights, gradients and two moments of Adam: Rajbhandari et al., 2020,
https://arxiv.org/abs/1910.02054); with adapters 2 on a GPU (bf16) and 4 on CPU (fp32); 4.127 bits in NF4 with double quantisation (Dettmers
et al., 2023, https://arxiv.org/abs/2305.14314). A quarter of the memory is left for activations. LoRA matches full tuning on data sets of
instruction-tuning size; Biderman et al. (2024, https://arxiv.org/abs/2405.09673) saw it fall behind from about 100,000 examples on.
"""

from __future__ import annotations

from typing import Literal

from prooftune.evaluation.advice.case import Case
from prooftune.evaluation.advice.findings import FEW, RETRAIN_DAYS, too_small
from prooftune.evidence import Recommendation
from prooftune.types import Decision

FULL_FROM = 100_000
"""Training examples."""
FREE = 0.75
"""Share of the memory that weights and optimizer may take."""
NF4_BYTES = 4.127 / 8
CPU_HOURS = 24.0
"""Longer training on CPU is not worth waiting for."""
OF_RUNG: dict[str, Recommendation] = {
    "zero_shot": "prompt",
    "optimised": "prompt",
    "few_shot": "few_shot",
    "retrieved": "few_shot",
    "rag": "rag",
    "larger_model": "larger_model",
}
Choice = tuple[Recommendation, str]


def recommend(case: Case, decision: Decision | None) -> Choice:
    """Return the recommendation and its reason, by the table above; ``decision`` is the one that ends the run, if it does."""
    without = _without_training(case, decision)
    return without if without is not None else _method(case)


def _without_training(case: Case, decision: Decision | None) -> Choice | None:
    use, target = case.spec.use, case.spec.task.target
    good = next((one for one in case.baselines if case.value(one) >= target), None)
    if good is not None:
        return OF_RUNG[good.name], f"{good.name} reaches {case.value(good):.3f} without training; task.target is {target:g}."
    if decision is not None:
        return "collect_data", f"{case.n_train:,} training and {case.n_holdout:,} held-out examples are too few to train or to judge."
    if use.lacks == "facts":
        return "rag", "The prompted model lacks facts, and those are looked up rather than trained."
    if use.answers_change_every_days is not None and use.answers_change_every_days < RETRAIN_DAYS:
        return "rag", f"Right answers change every {use.answers_change_every_days:g} days, faster than a model is tuned again."
    if use.lacks == "reasoning":
        return "larger_model", "The prompted model lacks reasoning, which examples of answers do not teach."
    if case.n_train < FEW:
        return "few_shot", f"{case.n_train:,} training examples are better shown in the prompt; training asks for {FEW}."
    if 1 - case.contradicting / 2 < target:
        most = 1 - case.contradicting / 2
        return "collect_data", f"Targets contradict each other so often that a perfect model gets {most:.3f}; task.target is {target:g}."
    if case.best is not None and too_small(case):
        return OF_RUNG[case.best.name], f"At {use.requests_per_month:,} requests a month, tuning is not paid back within a year."
    return None


def _method(case: Case) -> Choice:
    """Return how to train."""
    if case.spec.backend.managed:
        return "managed", _at_provider(case)
    if case.parameters is None:
        kind = case.spec.backend.method.kind
        return kind, f"Training can pay; the size of {case.spec.backend.model} is not known here, so the spec's method stands."
    hours, memory = case.training_hours, case.machine.memory_gb
    size = f"{_size(case.parameters)} parameters"
    managed = case.prices.tunable(case.spec.data.residency)
    if not case.machine.cuda and hours is not None and hours > CPU_HOURS and managed:
        return (
            "managed",
            f"Training {size} would take about {hours:.0f} hours on this CPU; {managed[0]} is among those that tune it for you.",
        )
    if case.n_train >= FULL_FROM and needs_gb(case, "full") <= FREE * memory:
        return "full", f"{case.n_train:,} examples can use all weights, and {size} fit into {memory:.0f} GB with their optimizer."
    if needs_gb(case, "lora") <= FREE * memory:
        return "lora", f"{size} fit into {memory:.0f} GB, and adapters learn what {case.n_train:,} examples can teach."
    if needs_gb(case, "qlora") <= FREE * memory:
        return "qlora", f"{size} fit into {memory:.0f} GB in 4 bits only."
    needed = needs_gb(case, "qlora") / FREE
    if managed:
        return "managed", f"{size} need {needed:.0f} GB even in 4 bits; this machine has {memory:.0f} GB."
    return "qlora", f"{size} need {needed:.0f} GB even in 4 bits, on a larger machine: no provider may be used."


def _at_provider(case: Case) -> str:
    """Return what training at the spec's provider would cost, as far as the price list says."""
    backend, usd = case.spec.backend, case.managed_usd
    epochs = case.spec.provider.hyperparameters.epochs
    does = f"Training can pay, and {backend.provider} tunes {backend.model}"
    many = f"{case.trained_tokens:,.0f} tokens in {epochs} epoch{'s' if epochs > 1 else ''}"
    if usd is None:
        return f"{does}: {many}, for which the price list has no price."
    return f"{does}: {many} cost about {usd:.2g} USD, before evaluation and hosting."


def _size(parameters: float) -> str:
    """Return a number of parameters as people say it: ``135M``, ``1.2M``, ``85,000``."""
    millions = parameters / 1e6
    if millions < 0.1:
        return f"{parameters:,.0f}"
    return f"{millions:,.0f}M" if millions >= 10 else f"{millions:.1f}M"


def needs_gb(case: Case, kind: Literal["lora", "qlora", "full"]) -> float:
    """Return the GB that weights, gradients and optimizer take; activations are not counted."""
    per_parameter = {"full": 16.0, "lora": 2.0 if case.machine.cuda else 4.0, "qlora": NF4_BYTES}
    return (case.parameters or 0) * per_parameter[kind] / 1e9
