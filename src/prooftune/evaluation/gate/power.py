"""What a holdout can show, before any money is spent: the smallest gain that the gate would see, and how many examples a smaller one takes.

The power is that of the gate's exact McNemar test, summed exactly. It depends on how often only one of baseline and candidate is right,
which no one knows beforehand. It is taken to be as if they were right independently of each other: ``baseline · (1 - candidate) +
(1 - baseline) · candidate``, the most that is possible unless the candidate tends to fail where the baseline succeeds, and so the safe side
(Connor, 1987, https://doi.org/10.2307/2531961). Contestants that find the same examples hard differ less often and need fewer examples.

To pass, a gain must be significant and its interval must reach ``gate.min_effect``, as the gate asks. Where a holdout is just large enough
to tell a true gain of ``gate.min_effect`` from 0, the second costs nothing; in larger ones it keeps smaller gains out.

A metric with graded scores between 0 and 1 is taken to be all or nothing, which is the largest variance that its mean allows (Bhatia and
Davis, 2000, A better bound on the variance, American Mathematical Monthly 107, 353-357): again the safe side. Macro F1 and corpus metrics
such as BLEU are no means of scores; for them the figures are a guide.
"""

from __future__ import annotations

from prooftune.evaluation.gate.looks import alpha_by_look
from prooftune.evaluation.statistics import mcnemar_power, n_needed
from prooftune.spec import Gate

MOST_EXAMPLES = 10**6
"""More than this is called out of reach."""
_PRECISION = 1e-6


def tested_at(gate: Gate) -> float:
    """Return the least level that the gain of the first look is tested at: alpha's share for it, divided by the number of metrics."""
    return alpha_by_look(gate.alpha, gate.looks)[0] / (1 + len(gate.metrics))


def detectable_effect(n: int, baseline: float, *, alpha: float, power: float, min_effect: float = 0.0) -> float | None:
    """Return the smallest true gain over ``baseline`` (a share) that n examples let pass with the given power.

    To pass, a gain must be significant with an interval that reaches ``min_effect``. None = not even perfect answers would pass.
    """
    from scipy.optimize import brentq

    def excess(effect: float) -> float:
        return _power(n, baseline, effect, alpha, min_effect) - power

    most = 1.0 - baseline
    if most <= 0 or excess(most) < 0:
        return None
    return min(most, float(brentq(excess, 0.0, most, xtol=_PRECISION)) + _PRECISION)


def examples_for(effect: float, baseline: float, *, alpha: float, power: float, min_effect: float = 0.0) -> int | None:
    """Return how many examples let a true gain of ``effect`` over ``baseline`` pass with the given power; None = none in reach.

    None also where ``baseline`` leaves no room for it, and where ``effect`` is ``min_effect`` and the power above ``1 - alpha / 2``: the
    interval ends below the true gain that often, however many examples there are.
    """
    if effect <= 0 or baseline + effect > 1 + 1e-9:
        return None
    gained, lost = _discordant(baseline, effect)
    share = gained + lost
    start = n_needed(effect, (share - effect**2) ** 0.5, null_sd=share**0.5, alpha=alpha, power=power)  # a little too few: not exact
    if start is None or start > MOST_EXAMPLES:
        return None
    low, high = 0, start
    while _power(high, baseline, effect, alpha, min_effect) < power:
        low, high = high, 2 * high
        if high > MOST_EXAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, baseline, effect, alpha, min_effect) >= power else (middle, high)
    return high


def power_text(n: int, baseline: float, gate: Gate) -> str:
    """Return in a sentence or two what n holdout examples can show of a gain over a baseline with that score.

    ``baseline`` is the metric's value of the best rung, as measured; the sentence is as uncertain as that.
    """
    alpha, power = tested_at(gate), gate.power
    seen = detectable_effect(n, baseline, alpha=alpha, power=power, min_effect=gate.min_effect)
    stated, required = f"{100 * power:g} % power", f"{100 * gate.min_effect:g} points of gate.min_effect"
    if seen is None:
        start = f"With {n:,} holdout examples you cannot see any gain over {baseline:.3f}, not even to perfect answers ({stated})"
    else:
        start = f"With {n:,} holdout examples you can only see gains over {100 * seen:.1f} points ({stated})"
    if gate.min_effect == 0:
        return f"{start}."
    if baseline + gate.min_effect > 1:
        return f"{start}; the {required} do not fit above {baseline:.3f}."
    needed = examples_for(gate.min_effect, baseline, alpha=alpha, power=power, min_effect=gate.min_effect)
    if needed is None:
        return f"{start}; no number of examples in reach shows the {required}."
    if needed <= n:
        return f"{start}, which takes in the {required}."
    return f"{start}; to see the {required} label {needed - n:,} more."


def _power(n: int, baseline: float, effect: float, alpha: float, min_effect: float = 0.0) -> float:
    gained, lost = _discordant(baseline, effect)
    return mcnemar_power(n, gained, lost, alpha=alpha, least=min_effect)


def _discordant(baseline: float, effect: float) -> tuple[float, float]:
    """Return the shares of examples that only the candidate, and only the baseline, gets right, were they right independently."""
    candidate = min(baseline + effect, 1.0)
    return (1 - baseline) * candidate, baseline * (1 - candidate)
