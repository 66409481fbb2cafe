"""Tests and intervals for paired comparisons: pure functions of numbers, seeded, each with its source.

Every bootstrap here resamples *examples*. A resample is a row of counts (how often each example was drawn), so a statistic is a function of
a ``(resamples, n)`` matrix and one matrix product does thousands of resamples. Rows come in chunks: memory does not grow with their number.
A permutation test is the same with a row of zeros and ones: on which examples the two contestants' answers are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Statistic = Callable[[Floats], Floats]
    """Counts ``(resamples, n)`` → one value a resample ``(resamples,)``."""

RESAMPLES = 10_000
POWER = 0.8
"""Chance that a study of the size ``n_needed`` gives finds the effect, if it is real."""
_CHUNK_CELLS = 2_000_000
_ROUNDING = 1e-12
"""Differences that are equal but for the order of additions count as equal."""


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
    """Return the chance that n pairs show a gain: exact McNemar p < alpha, and Tango's interval does not end below ``least``.

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
        most_lost = np.minimum(most_lost, _most_lost_within_reach(least, discordant_pairs, n, alpha))
    return float(binom.pmf(discordant_pairs, n, min(share, 1.0)) @ binom.cdf(most_lost, discordant_pairs, lost / share))


def _most_lost_within_reach(least: float, discordant_pairs: NDArray[np.int64], n: int, alpha: float) -> NDArray[np.int64]:
    """Return for each number of discordant pairs how many may be lost for Tango's interval to reach ``least``; -1 = it never does."""
    import numpy as np
    from scipy.stats import norm

    limit = float(norm.ppf(1 - alpha / 2))
    holds, fails = np.full_like(discordant_pairs, -1), discordant_pairs + 1
    while (fails - holds > 1).any():  # bisection: the score falls with every pair that is lost instead of gained
        lost = (holds + fails) // 2
        distance = (discordant_pairs - 2 * lost) / n - least
        sd = tango_sd(least, (discordant_pairs - lost) / n, lost / n)
        reached = math.sqrt(n) * distance >= -limit * sd
        holds, fails = np.where(reached, lost, holds), np.where(reached, fails, lost)
    return holds


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
    sd = float(tango_sd(difference, gained / n, lost / n))
    distance = (gained - lost) / n - difference
    return math.sqrt(n) * distance / sd if sd > 0 else math.copysign(math.inf, distance) if distance else 0.0


def tango_sd(difference: float, gained: ArrayLike, lost: ArrayLike) -> Floats:
    """Return the standard deviation of one pair's difference, were the true difference ``difference``, from the shares that were observed.

    The share of "only the baseline is right" is the likeliest one under that hypothesis. Where no pair differs and ``difference`` is
    positive it is 0, and the variance ``difference · (1 - difference)``.
    Source: Tango (1998), as ``paired_proportions_interval``.
    """
    import numpy as np

    gained, lost = np.asarray(gained, dtype=np.float64), np.asarray(lost, dtype=np.float64)
    b = (2 - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    root = np.sqrt(np.maximum(b * b - 8 * c, 0.0))
    lost_share = np.maximum((root - b) / 4, max(0.0, -difference))  # rounding must not push it below its bounds
    sd: Floats = np.sqrt(np.maximum(2 * lost_share + difference * (1 - difference), 0.0))
    return sd


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


def swap_test(baseline: Floats, candidate: Floats, value: Callable[[Floats], Floats], *, swaps: int = RESAMPLES, seed: int) -> float:
    """Return the two-sided p-value that it does not matter which of two contestants gave which answer: the paired permutation test.

    ``baseline`` and ``candidate`` hold what each example adds to the sums, ``(n, k)``; ``value`` makes one number of sums ``(m, k)``,
    shape ``(m,)``. Under the null the two rows of any example may change sides, and p is the share of such swaps whose difference is at
    least the observed one. Every swap of the pairs that differ is tried where there are at most ``swaps`` of them; else as many are drawn,
    and the observed one counts among them: so p is never too small, whatever the metric and the number of examples. For a mean this is
    the sign-flip test, for right/wrong scores exact McNemar.
    Source: Fisher (1935), The Design of Experiments, section 21; Noreen (1989), Computer-Intensive Methods for Testing Hypotheses;
    the observed one among the drawn: Phipson and Smyth (2010), https://doi.org/10.2202/1544-6115.1585.
    """
    import numpy as np

    moved = (candidate - baseline)[(candidate != baseline).any(axis=1)]
    of_baseline, of_candidate = baseline.sum(axis=0), candidate.sum(axis=0)

    def distance(swapped: Floats) -> Floats:
        sums = swapped @ moved
        return np.abs(value(of_candidate - sums) - value(of_baseline + sums))

    least = float(distance(np.zeros((1, len(moved))))[0]) - _ROUNDING
    every = 2 ** len(moved) <= swaps
    chunks = _every_swap(len(moved)) if every else _drawn_swaps(moved.shape, swaps, seed)
    reached = sum(int(np.sum(distance(swapped) >= least)) for swapped in chunks)
    return reached / 2 ** len(moved) if every else (reached + 1) / (swaps + 1)


def _every_swap(pairs: int) -> Iterator[Floats]:
    import numpy as np

    yield ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1).astype(np.float64)


def _drawn_swaps(shape: tuple[int, ...], swaps: int, seed: int) -> Iterator[Floats]:
    import numpy as np

    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(shape))
    for start in range(0, swaps, chunk):
        yield rng.integers(2, size=(min(chunk, swaps - start), shape[0])).astype(np.float64)


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
