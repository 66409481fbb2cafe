"""Several of training's checkpoints on one holdout, one after the other, with the error rate of a single one.

The candidates are different models, so each look tests a hypothesis of its own ("this checkpoint is no better than the best baseline") on
the *same* examples. Group-sequential boundaries (O'Brien-Fleming, Lan-DeMets) are made for something else, one hypothesis on growing
data, and rest on the correlation that growing data give. How much two checkpoints agree is not known, so alpha is shared out among the
looks before the first one: by the union bound the chance to promote any checkpoint that is no better is at most the sum of the shares,
whatever their dependence. That is the fallback procedure, which stops here at its first rejection and so has no alpha to pass on.
Source: Wiens (2003), A fixed sequence Bonferroni procedure for testing multiple endpoints, Pharmaceutical Statistics 2, 211-215.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prooftune.evaluation.gate import Evidence, decide
from prooftune.spec import Gate, Task
from prooftune.types import Decision, Prediction


def alpha_by_look(alpha: float, looks: int) -> tuple[float, ...]:
    """Return each look's share of alpha: half for the first, the likeliest to pass, the rest in equal parts for the others.

    The shares add up to alpha; a single look has all of it.

    Raises:
        ValueError: there is no look.
    """
    if looks < 1:
        raise ValueError(f"{looks} looks; at least one is required")
    return (alpha,) if looks == 1 else (alpha / 2, *[alpha / 2 / (looks - 1)] * (looks - 1))


def look_in_turn(
    contenders: Sequence[Callable[[], Sequence[Prediction]]],
    baselines: Mapping[str, Sequence[Prediction]],
    task: Task,
    gate: Gate,
    seed: int,
) -> tuple[Decision, ...]:
    """Let the gate decide on one candidate after the other, until one is promoted; return the decisions that were made.

    ``contenders`` answer the holdout when they are called, so those after the promoted one cost nothing; their order and number must not
    depend on the holdout. Only the gain and ``gate.metrics`` count here; what else the gate weighs may take a promotion back.

    Raises:
        DataError: as ``decide``.
    """
    decisions: list[Decision] = []
    for look, (answer, alpha) in enumerate(zip(contenders, alpha_by_look(gate.alpha, len(contenders)), strict=True), start=1):
        decisions.append(decide(baselines, answer(), task, gate, seed, Evidence(look=look, alpha=alpha)))
        if decisions[-1].verdict == "promote":
            break
    return tuple(decisions)
