"""Compares two contestants on the examples that both answered: difference, interval and p-value, as the metric's definition asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from prooftune.errors import DataError
from prooftune.evaluation import statistics
from prooftune.evaluation.metrics import corpus_statistic, definition_of, interval, score, statistic_of
from prooftune.evaluation.metrics.definition import Corpus
from prooftune.spec import Task
from prooftune.types import Prediction

if TYPE_CHECKING:
    from prooftune.evaluation.statistics import Statistic

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
    """Return the paired comparison on all pairs that are scored on both sides.

    Raises:
        DataError: no pair is scored.
    """
    scores = [(score_of(metric, b, task), score_of(metric, c, task)) for b, c in pairs]
    scored = [(pair, b, c) for pair, (b, c) in zip(pairs, scores, strict=True) if b is not None and c is not None]
    if not scored:
        raise DataError(f"{metric} scores none of the {len(pairs)} held-out pairs; set task.metric to one that applies to the targets")
    unscored = len(pairs) - len(scored)
    definition = definition_of(metric)
    if definition.corpus is not None:
        return _compare_corpus(definition.corpus, [pair for pair, _, _ in scored], task, alpha, seed, unscored)
    baseline, candidate = [b for _, b, _ in scored], [c for _, _, c in scored]
    if definition.right_or_wrong:
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


def _compare_corpus(corpus: Corpus, pairs: Sequence[Pair], task: Task, alpha: float, seed: int, unscored: int) -> Comparison:
    """Compare on the same resamples: the metric is no mean over examples, so its difference is bootstrapped as a whole."""
    import numpy as np

    n = len(pairs)
    rows = [corpus.rows(*_texts([pair[side] for pair in pairs]), task) for side in (0, 1)]
    of_baseline, of_candidate = (corpus_statistic(corpus, side) for side in rows)
    draws = statistics.bootstrap(lambda counts: of_candidate(counts) - of_baseline(counts), n, seed=seed)
    low, high = statistics.percentile_interval(draws, alpha)
    everything = np.ones((1, n))
    baseline_value, candidate_value = float(of_baseline(everything)[0]), float(of_candidate(everything)[0])
    sd = float(np.std(draws)) * math.sqrt(n)
    return Comparison(
        baseline_value=baseline_value,
        candidate_value=candidate_value,
        difference=candidate_value - baseline_value,
        ci_low=low,
        ci_high=high,
        p_value=statistics.bootstrap_p(draws, int((rows[0] != rows[1]).any(axis=1).sum())),
        test="paired bootstrap",
        n=n,
        unscored=unscored,
        sd=sd,
        null_sd=sd,
    )


def _statistic(metric: str, predictions: Sequence[Prediction], task: Task) -> tuple[Statistic, list[float]]:
    scores = [score_of(metric, prediction, task) for prediction in predictions]
    return statistic_of(metric, *_texts(predictions), scores, task)


def _texts(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Return answers and targets."""
    return [prediction.answer for prediction in predictions], [prediction.target for prediction in predictions]
