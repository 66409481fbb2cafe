"""Statistics: agreement with SciPy and statsmodels, laws, edge cases, and how often a candidate without merit would pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from prooftune.evaluation.statistics import (
    bootstrap,
    discordant,
    holm,
    mcnemar_exact,
    mcnemar_power,
    mean_of,
    n_needed,
    paired_proportions_interval,
    percentile_interval,
    swap_test,
    wilson,
)

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
LIMIT = NormalDist().inv_cdf(0.975)
answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


@given(answers)
def test_mcnemar_is_statsmodels_exact_test(pairs: list[tuple[bool, bool]]) -> None:
    """The p-value is that of statsmodels on the 2 x 2 table."""
    table = np.zeros((2, 2))
    for baseline, candidate in pairs:
        table[int(baseline), int(candidate)] += 1
    expected = min(1.0, mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(*zip(*pairs, strict=True)) == pytest.approx(expected)


@given(answers)
def test_mcnemar_does_not_care_who_is_the_candidate(pairs: list[tuple[bool, bool]]) -> None:
    """Exchanging the contestants leaves p, and exchanges gained and lost."""
    baseline, candidate = zip(*pairs, strict=True)
    assert mcnemar_exact(baseline, candidate) == mcnemar_exact(candidate, baseline)
    assert discordant(baseline, candidate) == discordant(candidate, baseline)[::-1]


def test_no_discordant_pair_is_no_evidence() -> None:
    """Equal answers give p = 1, and an interval around 0 that is not a point."""
    assert mcnemar_exact([True] * 20, [True] * 20) == 1.0
    low, high = paired_proportions_interval(0, 0, 20)
    assert low == pytest.approx(-high)
    assert 0.1 < high < 0.2


def test_contestants_must_have_answered_the_same_number() -> None:
    """Pairs that do not match are an error, not a shorter list."""
    with pytest.raises(ValueError, match="shorter"):
        mcnemar_exact([True, False], [True])


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.01, 0.05, 0.2]))
def test_wilson_is_statsmodels(case: tuple[int, int], alpha: float) -> None:
    """The interval is that of statsmodels."""
    successes, n = case
    assert wilson(successes, n, alpha) == pytest.approx(proportion_confint(successes, n, alpha, method="wilson"), abs=1e-9)


tables = st.tuples(st.integers(0, 25), st.integers(0, 25), st.integers(0, 60)).filter(lambda t: sum(t) > 0)


@given(tables)
@settings(deadline=None)
def test_tangos_interval_holds_the_difference_and_mirrors(table: tuple[int, int, int]) -> None:
    """The interval lies within -1 and 1, holds the observed difference, and turns around with the contestants."""
    gained, lost, same = table
    n = gained + lost + same
    low, high = paired_proportions_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert paired_proportions_interval(lost, gained, n) == pytest.approx((-high, -low), abs=1e-6)


@given(tables.filter(lambda t: t[0] != t[1]))
@settings(deadline=None)
def test_tangos_interval_excludes_zero_when_mcnemars_score_test_rejects(table: tuple[int, int, int]) -> None:
    """At a difference of 0 the score is McNemar's (gained - lost) / sqrt(gained + lost)."""
    gained, lost, same = table
    low, high = paired_proportions_interval(gained, lost, gained + lost + same)
    z = abs(gained - lost) / math.sqrt(gained + lost)
    if abs(z - LIMIT) > 1e-6:
        assert (low > 0 or high < 0) == (z > LIMIT)


@given(tables.filter(lambda t: t[0] > 0 and t[1] > 0 and t[2] > 0))
@settings(deadline=None, max_examples=30)
def test_tangos_ends_are_where_the_constrained_likelihood_says(table: tuple[int, int, int]) -> None:
    """At each end the score, with nuisance parameters from a numeric maximum of the likelihood, is the normal quantile."""
    from scipy.optimize import minimize_scalar

    gained, lost, same = table
    n = gained + lost + same
    for end, sign in zip(paired_proportions_interval(gained, lost, n), (1, -1), strict=True):

        def loss(q: float, end: float = end) -> float:
            return -(gained * math.log(q + end) + lost * math.log(q) + same * math.log(1 - 2 * q - end))

        bounds = (max(0.0, -end) + 1e-12, (1 - end) / 2 - 1e-12)
        q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        score = (gained - lost - n * end) / math.sqrt(n * (2 * q + end - end**2))
        assert sign * score == pytest.approx(LIMIT, abs=1e-3)


def test_paired_bootstrap_agrees_with_scipy() -> None:
    """The percentile interval is SciPy's, up to the noise of resampling."""
    from scipy.stats import bootstrap as scipy_bootstrap

    differences = np.random.default_rng(1).normal(0.1, 0.5, 120)
    ours = percentile_interval(bootstrap(mean_of(list(differences)), 120, seed=2))
    theirs = scipy_bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def by_swaps(differences: Sequence[float] | Floats, *, swaps: int = 10_000, seed: int = 0) -> float:
    """The permutation test of a mean difference."""
    rows = np.asarray(differences, dtype=float)[:, None]
    return swap_test(np.zeros_like(rows), rows, lambda sums: sums[:, 0] / len(rows), swaps=swaps, seed=seed)


@given(answers)
@settings(deadline=None, max_examples=40)
def test_swapping_right_and_wrong_is_mcnemar(pairs: list[tuple[bool, bool]]) -> None:
    """With every swap tried, the permutation test of right/wrong scores is the exact binomial one."""
    gained, lost = discordant(*zip(*pairs, strict=True))
    if gained + lost <= 12:
        assert by_swaps([float(c) - float(b) for b, c in pairs]) == pytest.approx(mcnemar_exact(*zip(*pairs, strict=True)))


@pytest.mark.parametrize("n", [8, 40])
def test_swapping_is_scipys_paired_permutation_test(n: int) -> None:
    """Exactly where every swap is tried, and up to the noise of drawing where there are too many."""
    from scipy.stats import permutation_test

    values = np.random.default_rng(n).normal(0.25, 0.6, n)
    theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(1))
    assert by_swaps(values) == pytest.approx(theirs.pvalue, abs=1e-12 if n == 8 else 0.015)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.25, 1.0]), min_size=1, max_size=40), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_swapping_does_not_care_who_is_the_candidate(values: list[float], seed: int) -> None:
    """Mirrored differences have the same p-value, which is never 0 and never below what the differing pairs can show."""
    p = by_swaps(values, swaps=500, seed=seed)
    assert p == by_swaps([-value for value in values], swaps=500, seed=seed)
    differing = max(1, np.count_nonzero(values))
    assert max(2.0 ** (1 - differing), 1 / 501) - 1e-12 <= p <= 1


def test_few_differing_pairs_cannot_be_significant() -> None:
    """Five gains in thirty are luck at 5 % to any exact paired test, and so to ours; equal contestants are as equal as can be."""
    assert by_swaps([1.0] * 5 + [0.0] * 25) == 2.0**-4
    assert by_swaps([0.0] * 30) == 1.0


def test_swaps_are_bounded_in_memory() -> None:
    """A hundred thousand examples do not need a matrix of all swaps."""
    values = np.random.default_rng(0).normal(0.02, 1, 100_000)
    assert by_swaps(values, swaps=60) == pytest.approx(1 / 61)


def test_bootstrap_is_seeded_and_bounded_in_memory() -> None:
    """The same seed gives the same draws; a set of a hundred thousand examples does not need a matrix of all resamples."""
    values = list(np.random.default_rng(0).random(100_000))
    draws = bootstrap(mean_of(values), len(values), resamples=60, seed=4)
    assert draws.shape == (60,)
    assert np.array_equal(draws, bootstrap(mean_of(values), len(values), resamples=60, seed=4))
    assert not np.array_equal(draws, bootstrap(mean_of(values), len(values), resamples=60, seed=5))


@given(st.floats(0.02, 0.4), st.floats(0.3, 1.0))
def test_n_needed_shrinks_with_effect_and_grows_with_noise(effect: float, sd: float) -> None:
    """A larger effect, a lower power and less noise need fewer examples; no effect can never be shown."""
    n = n_needed(effect, sd)
    assert n is not None
    assert n >= (n_needed(2 * effect, sd) or 0)
    assert n >= (n_needed(effect, sd, power=0.5) or 0)
    assert n <= (n_needed(effect, 2 * sd) or 0)
    assert n_needed(-effect, sd) == n
    assert n_needed(0.0, sd) is None
    assert n_needed(1e-300, sd) is None


def test_n_needed_gives_the_power_it_promises() -> None:
    """Right/wrong pairs with 20 % gained and 10 % lost: n pairs are significant in about 80 % of studies, by McNemar's score test."""
    rng = np.random.default_rng(0)
    n = n_needed(0.1, math.sqrt(0.3 - 0.01), null_sd=math.sqrt(0.3))
    assert n is not None
    studies = rng.multinomial(n, [0.2, 0.1, 0.7], size=4000)
    gained, lost = studies[:, 0], studies[:, 1]
    power = np.mean(np.abs(gained - lost) / np.sqrt(gained + lost) > LIMIT)
    assert 0.78 < power < 0.83


def skewed(rng: np.random.Generator) -> Floats:
    """Differences of twenty scores, most of which are near 1."""
    return rng.beta(1.4, 0.35, 20) - rng.beta(1.4, 0.35, 20)


def thirds(rng: np.random.Generator) -> Floats:
    """Differences of forty scores in thirds."""
    return rng.choice([-2, -1, 0, 0, 0, 0, 1, 2], size=40) / 3


@pytest.mark.parametrize("draw", [skewed, thirds])
def test_false_findings_are_no_more_frequent_than_alpha(draw: Callable[[np.random.Generator], Floats]) -> None:
    """Of 600 candidates that are no better, 5 % are found different, in whatever direction, within the error of so many."""
    rng = np.random.default_rng(7)
    found = sum(by_swaps(draw(rng), swaps=999, seed=study) < 0.05 for study in range(600))
    assert wilson(found, 600)[0] <= 0.05


def test_mcnemar_finds_nothing_more_often_than_alpha() -> None:
    """Of 600 candidates that are no better."""
    rng = np.random.default_rng(7)
    assert sum(mcnemar_exact(*(rng.random((2, 40)) < 0.6).tolist()) < 0.05 for _ in range(600)) / 600 <= 0.05


def test_macro_f1_with_rare_labels_holds_alpha() -> None:
    """77 labels, 200 examples: two equally good contestants are found different in no more than 5 % of 200 studies, up to chance."""
    from prooftune.evaluation.metrics.labels import LABEL_METRICS
    from prooftune.spec import Task

    corpus = LABEL_METRICS["macro_f1"].corpus
    assert corpus is not None
    rng = np.random.default_rng(3)
    targets = [f"label {at % 77}" for at in range(200)]
    found = 0
    for study in range(200):
        said = [[t if right else "label 0" for t, right in zip(targets, rng.random(200) < 0.7, strict=True)] for _ in range(2)]
        rows = [corpus.rows(side, targets, Task()) for side in said]
        found += swap_test(rows[0], rows[1], corpus.value, swaps=499, seed=study) < 0.05
    assert wilson(found, 200)[0] <= 0.05


def test_tangos_interval_covers_as_often_as_it_says() -> None:
    """Of 95 % intervals from sets of 50 pairs, 93 % or more hold the true difference."""
    rng = np.random.default_rng(11)
    studies, inverse = np.unique(rng.multinomial(50, [0.15, 0.05, 0.8], size=3000)[:, :2], axis=0, return_counts=True)
    held = 0
    for (gained, lost), times in zip(studies, inverse, strict=True):
        low, high = paired_proportions_interval(int(gained), int(lost), 50)
        held += times * (low <= 0.1 <= high)
    assert 0.93 <= held / 3000 <= 0.98


def test_percentile_interval_is_central() -> None:
    """Half of alpha lies on either side."""
    assert percentile_interval(np.linspace(0, 1, 1001), 0.1) == pytest.approx((0.05, 0.95))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_closed_testing(p_values: list[float]) -> None:
    """An adjusted p-value is the largest Bonferroni p-value of all sets of hypotheses that hold its own (Marcus et al., 1976)."""
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(range(len(p_values)), size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[one] for one in chosen)) for chosen in sets}
    assert holm(p_values) == pytest.approx([max(bonferroni[chosen] for chosen in sets if one in chosen) for one in range(len(p_values))])


def test_holm_is_statsmodels() -> None:
    """Adjusted p-values are those of statsmodels, in the order given; it takes too long for more than one example."""
    p_values = [0.03, 0.001, 0.2, 0.03, 0.9, 0.0, 0.011, 1.0]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_one_is_itself_and_of_none_is_none() -> None:
    """A test that stands alone costs nothing."""
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.integers(1, 40), st.floats(0, 0.6), st.floats(0, 0.4), st.floats(0, 0.2), st.sampled_from([0.05, 0.025, 0.2]))
@settings(deadline=None, max_examples=15)
def test_mcnemar_power_sums_over_every_table(n: int, gained: float, lost: float, least: float, alpha: float) -> None:
    """The power is the chance of all tables that the gate's test and the interval's end let pass, counted one by one."""
    from scipy.stats import multinomial

    chances = [gained, lost, 1 - gained - lost]
    expected = sum(
        multinomial.pmf([g, b, n - g - b], n, chances)
        for g in range(n + 1)
        for b in range(min(g, n - g + 1))
        if g > b and mcnemar_exact([False] * g + [True] * b, [True] * g + [False] * b) < alpha
        if paired_proportions_interval(g, b, n, alpha)[1] >= least - 1e-9
    )
    assert mcnemar_power(n, gained, lost, alpha=alpha, least=least) == pytest.approx(expected, abs=1e-6)


def test_mcnemar_power_is_met_by_simulation() -> None:
    """Of 4,000 studies of 120 pairs, as many are significant as the power says."""
    rng = np.random.default_rng(5)
    tables, times = np.unique(rng.multinomial(120, [0.2, 0.06, 0.74], size=4000)[:, :2], axis=0, return_counts=True)
    passed = sum(
        int(count)
        for (g, b), count in zip(tables, times, strict=True)
        if g > b and mcnemar_exact([0] * g + [1] * b, [1] * g + [0] * b) < 0.05
    )
    assert passed / 4000 == pytest.approx(mcnemar_power(120, 0.2, 0.06), abs=0.02)


def test_mcnemar_power_is_a_little_below_connors_formula() -> None:
    """The exact test asks for a few more pairs than the formula, and no effect at all passes at most alpha / 2 of the time."""
    n = n_needed(0.1, math.sqrt(0.3 - 0.01), null_sd=math.sqrt(0.3))
    assert n is not None
    assert 0.75 < mcnemar_power(n, 0.2, 0.1) < 0.8 < mcnemar_power(round(1.1 * n), 0.2, 0.1)
    assert 0 < mcnemar_power(300, 0.15, 0.15) <= 0.025
    assert mcnemar_power(300, 0.0, 0.0) == 0.0
