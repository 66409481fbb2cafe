"""Tests and intervals for paired comparisons: pure functions of numbers, seeded, each with its source.

Every bootstrap here resamples *examples*. A resample is a row of counts (how often each example was drawn), so a statistic is a function of
a ``(resamples, n)`` matrix and one matrix product does thousands of resamples. Rows come in chunks: memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Statistic = Callable[[Floats], Floats]
    """Counts ``(resamples, n)`` → one value a resample ``(resamples,)``."""

RESAMPLES = 10_000
POWER = 0.8
"""Chance that a study of the size ``n_needed`` gives finds the effect, if it is real."""
_CHUNK_CELLS = 2_000_000


def mcnemar_exact(baseline: Sequence[bool], candidate: Sequence[bool]) -> float:
    """Return the two-sided p-value that right/wrong answers of two contestants on the same examples differ only by luck.

    Under the null each discordant pair falls either way with probability 1/2, whatever their number; without one, p = 1.
    Source: McNemar (1947), https://doi.org/10.1007/BF02295996, in its exact binomial form.
    """
    from scipy.stats import binomtest

    gained, lost = discordant(baseline, candidate)
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def discordant(baseline: Sequence[bool], candidate: Sequence[bool]) -> tuple[int, int]:
    """Return how many examples only the candidate got right, and how many only the baseline."""
    pairs = list(zip(baseline, candidate, strict=True))
    return sum(c and not b for b, c in pairs), sum(b and not c for b, c in pairs)


def mcnemar_power(n: int, gained: float, lost: float, *, alpha: float = 0.05, least: float = 0.0) -> float:
    """Return the chance that n pairs show a gain: exact McNemar p < alpha, and an observed difference of at least ``least``.

    ``gained`` and ``lost`` are the true shares of pairs that only the candidate, and only the baseline, gets right. Exact: summed over how
    many pairs are discordant, binomial, and how many of those are lost, binomial again.
    Source: Duffy (1984), Asymptotic and exact power for the McNemar test, Biometrics 40, 1005-1015.
    """
    import numpy as np
    from scipy.stats import binom

    share = gained + lost
    if share <= 0:
        return 0.0
    # All but a billionth of the chance lies between these, so that large sets cost little more than small ones.
    first, last = (int(binom.ppf(chance, n, min(share, 1.0))) for chance in (5e-10, 1 - 5e-10))
    discordant_pairs = np.arange(first, last + 1)
    quantile = binom.ppf(alpha / 2, discordant_pairs, 0.5)
    most_lost = quantile - (2 * binom.cdf(quantile, discordant_pairs, 0.5) >= alpha)
    if least > 0:
        most_lost = np.minimum(most_lost, np.floor((discordant_pairs - n * least) / 2 + 1e-9))
    return float(binom.pmf(discordant_pairs, n, min(share, 1.0)) @ binom.cdf(most_lost, discordant_pairs, lost / share))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being tested together, in the order given: one below alpha is significant among all of them.

    Whatever the tests' dependence, the chance of a single false finding stays at most alpha.
    Source: Holm (1979), https://www.jstor.org/stable/4615733.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def wilson(successes: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the score interval of a proportion. Source: Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(1 - alpha, method="wilson")
    return float(interval.low), float(interval.high)


def paired_proportions_interval(gained: int, lost: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the score interval of the difference of two proportions that were observed on the same n examples.

    It holds every difference that the paired score test does not reject; at a difference of 0 that test is McNemar's, so interval and test
    agree. It keeps its coverage for small n, where Wald's and the percentile bootstrap are too short.
    Source: Tango (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    limit = float(norm.ppf(1 - alpha / 2))
    observed = (gained - lost) / n

    def end(extreme: float, sign: float) -> float:
        def excess(difference: float) -> float:
            return sign * _tango_score(difference, gained, lost, n) - limit

        # At -1 and 1 the variance vanishes: the score is infinite unless the extreme itself was observed.
        inside = extreme * (1 - 1e-12)
        return float(extreme if excess(inside) <= 0 else brentq(excess, inside, observed, xtol=1e-12))

    return end(-1.0, 1.0), end(1.0, -1.0)


def _tango_score(difference: float, gained: int, lost: int, n: int) -> float:
    """Return Tango's test statistic of "the true difference is ``difference``", standard normal under it."""
    a = 2 * n
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    # The share of "only the baseline is right" that is likeliest under the hypothesis; rounding must not push it below its bounds.
    lost_share = max((math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a), 0.0, -difference)
    variance = n * (2 * lost_share + difference * (1 - difference))
    distance = gained - lost - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def bootstrap(statistic: Statistic, n: int, *, resamples: int = RESAMPLES, seed: int) -> Floats:
    """Return the statistic on resamples of n examples drawn with replacement, shape ``(resamples,)``.

    Source: Efron (1979), https://doi.org/10.1214/aos/1176344552.
    """
    import numpy as np

    return np.concatenate([statistic(counts) for counts in _resampled_counts(n, resamples, seed)])


def _resampled_counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    import numpy as np

    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def percentile_interval(draws: Floats, alpha: float = 0.05) -> tuple[float, float]:
    """Return the central ``1 - alpha`` of bootstrap draws."""
    import numpy as np

    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def bootstrap_p(draws: Floats, differing: int) -> float:
    """Return the two-sided p-value of "the difference is 0": the largest alpha whose percentile interval still holds 0.

    Where only a few pairs differ the bootstrap is too sure of itself, so p is at least ``2 ** (1 - differing)``, the smallest value that an
    exact sign-flip test on so many pairs can reach. The ``+ 1`` keeps a finite number of draws from claiming p = 0.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 4.2.3 and 5.2.
    """
    import numpy as np

    tail = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    p = 2 * (tail + 1) / (len(draws) + 1)
    return min(1.0, max(p, 2.0 ** (1 - differing)))


def mean_of(values: Sequence[float]) -> Statistic:
    """Return the statistic "mean of these values", for ``bootstrap``."""
    import numpy as np

    column = np.asarray(values, dtype=np.float64)

    def statistic(counts: Floats) -> Floats:
        means: Floats = counts @ column / len(column)
        return means

    return statistic


def paired_bootstrap(
    differences: Sequence[float], resamples: int = RESAMPLES, *, seed: int, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Return interval and two-sided p-value ``(ci_low, ci_high, p)`` of the mean of per-example differences.

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("no differences to resample; at least one example must be scored for both contestants")
    draws = bootstrap(mean_of(differences), len(differences), resamples=resamples, seed=seed)
    return *percentile_interval(draws, alpha), bootstrap_p(draws, sum(difference != 0 for difference in differences))


def n_needed(effect: float, sd: float, *, null_sd: float | None = None, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return how many pairs make a true mean difference of ``effect`` significant with the given power; None = none in reach (a billion).

    ``((z[1 - alpha/2] · null_sd + z[power] · sd) / effect)²``, rounded up. ``sd`` is the standard deviation of the per-example differences
    and ``null_sd`` the one they would have without an effect: for right/wrong scores ``null_sd²`` is the share of discordant pairs, which
    makes this Connor's formula for McNemar's test; without it, it is the usual one for a paired mean.
    Source: Connor (1987), https://doi.org/10.2307/2531961.
    """
    from scipy.stats import norm

    z_alpha, z_power = float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
    noise = z_alpha * (sd if null_sd is None else null_sd) + z_power * sd
    return None if abs(effect) < noise / math.sqrt(1e9) or effect == 0 else math.ceil((noise / effect) ** 2)
