"""Compares two contestants on the examples that both answered: difference, interval and p-value, as the metric's definition asks for.

Right or wrong: exact McNemar and Tango's interval. Else the p-value is that of the paired permutation test, which is exact however few or
skewed the scores are where both contestants are equally good, and the interval is the percentile interval of the paired bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from prooftune.errors import DataError
from prooftune.evaluation import statistics
from prooftune.evaluation.metrics import definition_of, interval, score, statistic_of
from prooftune.spec import Task
from prooftune.types import Prediction

if TYPE_CHECKING:
    from prooftune.evaluation.statistics import Floats, Statistic

MCNEMAR, PERMUTATION = "exact McNemar", "paired permutation"
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
    """``exact McNemar`` or ``paired permutation``."""
    n: int
    unscored: int
    """Pairs left out because the metric does not apply to their target."""
    sd: float
    """Standard deviation of one pair's difference."""
    null_sd: float
    """The same, were there no effect."""
    differing: int
    """Pairs on which the two do not do the same."""

    def sd_at(self, difference: float) -> float:
        """Return ``sd`` as it were if the true difference were ``difference``; where scores are graded it is taken to stay as it is."""
        if self.test != MCNEMAR:
            return self.sd
        share = self.differing / self.n
        return float(statistics.tango_sd(difference, (share + self.difference) / 2, (share - self.difference) / 2))


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


def value_on(metric: str, predictions: Sequence[Prediction], task: Task) -> float:
    """Return a contestant's metric over the predictions that are scored.

    Raises:
        DataError: none is scored.
    """
    import numpy as np

    statistic, scores = _statistic(metric, predictions, task)
    return float(statistic(np.ones((1, len(scores))))[0])


def interval_of(metric: str, predictions: Sequence[Prediction], task: Task, *, alpha: float, seed: int) -> tuple[float, float]:
    """Return the ``1 - alpha`` interval of a contestant's metric.

    Raises:
        DataError: none of the predictions is scored.
    """
    statistic, scores = _statistic(metric, predictions, task)
    return interval(metric, statistic, scores, alpha=alpha, seed=seed)


def score_of(metric: str, prediction: Prediction, task: Task) -> float | None:
    """Return the score that a prediction was given, or that of a metric which was not taken when it was made."""
    if metric in prediction.scores:
        return prediction.scores[metric]
    return score(metric, prediction.answer, prediction.target, task)


def compare(metric: str, pairs: Sequence[Pair], task: Task, *, alpha: float, seed: int) -> Comparison:
    """Return the paired comparison on all pairs that are scored.

    Raises:
        DataError: no pair is scored, or one is on one side only.
    """
    import numpy as np

    scored = scored_pairs(metric, pairs, task)
    if not scored:
        raise DataError(f"{metric} scores none of the {len(pairs)} held-out pairs; set task.metric to one that applies to the targets")
    unscored = len(pairs) - len(scored)
    definition = definition_of(metric)
    if (corpus := definition.corpus) is not None:
        rows = [corpus.rows(*_texts([pair[side] for pair in scored]), task) for side in (0, 1)]
        return _compare_sums(rows[0], rows[1], corpus.value, alpha, seed, unscored)
    scores = np.array([[score_of(metric, side, task) for side in pair] for pair in scored], dtype=np.float64)
    if definition.right_or_wrong:
        return _compare_right_or_wrong(scores[:, 0], scores[:, 1], alpha, unscored)
    return _compare_sums(scores[:, :1], scores[:, 1:], lambda sums: sums[:, 0] / len(scores), alpha, seed, unscored)


def scored_pairs(metric: str, pairs: Sequence[Pair], task: Task) -> list[Pair]:
    """Return the pairs whose target the metric applies to.

    Raises:
        DataError: one answer of a pair is scored and the other is not: then a contestant could choose which questions count.
    """
    scores = [tuple(score_of(metric, side, task) is not None for side in pair) for pair in pairs]
    if one_sided := [pair[0].example_id for pair, (b, c) in zip(pairs, scores, strict=True) if b != c]:
        raise DataError(
            f"{metric} scores one answer and not the other on {len(one_sided)} of {len(pairs)} held-out pairs, such as {one_sided[0]}; "
            "a metric may leave a question unscored by its target only; return 0 for a bad answer"
        )
    return [pair for pair, (b, _) in zip(pairs, scores, strict=True) if b]


def _compare_right_or_wrong(baseline: Floats, candidate: Floats, alpha: float, unscored: int) -> Comparison:
    right = (baseline == 1.0).tolist(), (candidate == 1.0).tolist()
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
        test=MCNEMAR,
        n=n,
        unscored=unscored,
        sd=math.sqrt(share - difference**2),
        null_sd=math.sqrt(share),
        differing=gained + lost,
    )


def _compare_sums(
    baseline: Floats, candidate: Floats, value: Callable[[Floats], Floats], alpha: float, seed: int, unscored: int
) -> Comparison:
    """Compare a metric that is a function of sums over the examples, a mean among them; each side's rows are ``(n, k)``."""
    import numpy as np

    n = len(baseline)
    draws = statistics.bootstrap(lambda counts: value(counts @ candidate) - value(counts @ baseline), n, seed=seed)
    low, high = statistics.percentile_interval(draws, alpha)
    baseline_value, candidate_value = (float(value(side.sum(axis=0, keepdims=True))[0]) for side in (baseline, candidate))
    sd = float(np.std(draws)) * math.sqrt(n)
    return Comparison(
        baseline_value=baseline_value,
        candidate_value=candidate_value,
        difference=candidate_value - baseline_value,
        ci_low=low,
        ci_high=high,
        p_value=statistics.swap_test(baseline, candidate, value, seed=seed),
        test=PERMUTATION,
        n=n,
        unscored=unscored,
        sd=sd,
        null_sd=sd,
        differing=int((baseline != candidate).any(axis=1).sum()),
    )


def _statistic(metric: str, predictions: Sequence[Prediction], task: Task) -> tuple[Statistic, list[float]]:
    scores = [score_of(metric, prediction, task) for prediction in predictions]
    return statistic_of(metric, *_texts(predictions), scores, task)


def _texts(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Return answers and targets."""
    return [prediction.answer for prediction in predictions], [prediction.target for prediction in predictions]
