"""Compares two contestants on the examples that both answered: difference, interval and p-value.

Right/wrong metrics: exact McNemar test and Tango's score interval. All others: paired bootstrap over examples, seeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from prooftune.errors import DataError
from prooftune.evaluation import statistics
from prooftune.evaluation.metrics import RIGHT_OR_WRONG, labels_of
from prooftune.types import Prediction

Pair = tuple[Prediction, Prediction]
"""The baseline's and the candidate's answer to the same example."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidate against one baseline, in units of the metric."""

    baseline_value: float
    candidate_value: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    """``exact McNemar`` or ``paired bootstrap``."""
    n: int
    unscored: int
    """Pairs left out because the metric does not apply to their target."""
    sd: float
    """Standard deviation of one pair's difference."""
    null_sd: float
    """The same, were there no effect."""


def pair_up(name: str, baseline: Sequence[Prediction], candidate: Sequence[Prediction]) -> list[Pair]:
    """Return the answers to the same examples, in the candidate's order.

    Raises:
        DataError: the two did not answer exactly the same examples, each once.
    """
    answers = {prediction.example_id: prediction for prediction in baseline}
    ids = {prediction.example_id for prediction in candidate}
    if answers.keys() != ids or len(answers) != len(baseline) or len(ids) != len(candidate):
        raise DataError(
            f"{name} answered {len(baseline)} examples and the candidate {len(candidate)}, {len(answers.keys() & ids)} of them the same; "
            "a paired comparison needs both on the same sealed holdout: evaluate them again"
        )
    return [(answers[prediction.example_id], prediction) for prediction in candidate]


def compare(metric: str, pairs: Sequence[Pair], *, alpha: float, seed: int) -> Comparison:
    """Return the paired comparison on all pairs that are scored on both sides.

    Raises:
        DataError: no pair is scored.
    """
    scored = [pair for pair in pairs if all(side.scores.get(metric) is not None for side in pair)]
    if not scored:
        raise DataError(f"{metric} scores none of the {len(pairs)} held-out pairs; set task.metric to one that applies to the targets")
    unscored = len(pairs) - len(scored)
    if metric == "macro_f1":
        return _compare_macro_f1(scored, alpha, seed, unscored)
    baseline, candidate = ([float(pair[side].scores[metric] or 0.0) for pair in scored] for side in (0, 1))
    if metric in RIGHT_OR_WRONG:
        return _compare_right_or_wrong(baseline, candidate, alpha, unscored)
    return _compare_means(baseline, candidate, alpha, seed, unscored)


def _compare_right_or_wrong(baseline: Sequence[float], candidate: Sequence[float], alpha: float, unscored: int) -> Comparison:
    right = [value == 1.0 for value in baseline], [value == 1.0 for value in candidate]
    gained, lost = statistics.discordant(*right)
    n = len(baseline)
    difference = (gained - lost) / n
    low, high = statistics.paired_proportions_interval(gained, lost, n, alpha)
    share = (gained + lost) / n
    return Comparison(
        baseline_value=fmean(baseline),
        candidate_value=fmean(candidate),
        difference=difference,
        ci_low=low,
        ci_high=high,
        p_value=statistics.mcnemar_exact(*right),
        test="exact McNemar",
        n=n,
        unscored=unscored,
        sd=math.sqrt(share - difference**2),
        null_sd=math.sqrt(share),
    )


def _compare_means(baseline: Sequence[float], candidate: Sequence[float], alpha: float, seed: int, unscored: int) -> Comparison:
    differences = [c - b for b, c in zip(baseline, candidate, strict=True)]
    low, high, p = statistics.paired_bootstrap(differences, seed=seed, alpha=alpha)
    difference = fmean(differences)
    sd = math.sqrt(fmean((x - difference) ** 2 for x in differences))
    return Comparison(
        baseline_value=fmean(baseline),
        candidate_value=fmean(candidate),
        difference=difference,
        ci_low=low,
        ci_high=high,
        p_value=p,
        test="paired bootstrap",
        n=len(differences),
        unscored=unscored,
        sd=sd,
        null_sd=sd,
    )


def _compare_macro_f1(pairs: Sequence[Pair], alpha: float, seed: int, unscored: int) -> Comparison:
    """Compare on the same resamples: macro F1 is no mean over examples, so its difference is bootstrapped as a whole."""
    import numpy as np

    targets, baseline_labels = labels_of([b.target for b, _ in pairs], [b.answer for b, _ in pairs])
    _, candidate_labels = labels_of([], [c.answer for _, c in pairs])
    of_baseline = statistics.macro_f1_of(targets, baseline_labels)
    of_candidate = statistics.macro_f1_of(targets, candidate_labels)
    n = len(pairs)
    draws = statistics.bootstrap(lambda counts: of_candidate(counts) - of_baseline(counts), n, seed=seed)
    low, high = statistics.percentile_interval(draws, alpha)
    differing = sum(b != c for b, c in zip(baseline_labels, candidate_labels, strict=True))
    everything = np.ones((1, n))
    baseline_value, candidate_value = float(of_baseline(everything)[0]), float(of_candidate(everything)[0])
    sd = float(np.std(draws)) * math.sqrt(n)
    return Comparison(
        baseline_value=baseline_value,
        candidate_value=candidate_value,
        difference=candidate_value - baseline_value,
        ci_low=low,
        ci_high=high,
        p_value=statistics.bootstrap_p(draws, differing),
        test="paired bootstrap",
        n=n,
        unscored=unscored,
        sd=sd,
        null_sd=sd,
    )
