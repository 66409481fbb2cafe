"""What a right answer is: a score per example, and metrics over a set of examples with their intervals.

The metrics themselves are defined in ``text``, ``labels``, ``json_fields``, ``formats`` and ``custom``. By
their definition they are compared and get their intervals:

=================================  =========  ============================  ==================================
definition                         interval   test of two contestants       interval of their difference
=================================  =========  ============================  ==================================
right or wrong                     Wilson     exact McNemar                 Tango's score interval
mean of scores                     bootstrap  paired permutation            paired bootstrap
corpus (macro F1, BLEU, fields)    bootstrap  paired permutation of the     paired bootstrap of the difference
                                              difference
=================================  =========  ============================  ==================================

A score of None means unscored, never 0; it depends on the target alone. Answers are judged as they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from prooftune.errors import DataError
from prooftune.evaluation.metrics.custom import PREFIX, custom_metric
from prooftune.evaluation.metrics.definition import Corpus, Definition
from prooftune.evaluation.metrics.formats import FORMAT_METRICS
from prooftune.evaluation.metrics.json_fields import JSON_METRICS, parse
from prooftune.evaluation.metrics.labels import LABEL_METRICS, are_labels
from prooftune.evaluation.metrics.text import TEXT_METRICS
from prooftune.evaluation.statistics import bootstrap, mean_of, percentile_interval, wilson
from prooftune.spec import Task
from prooftune.types import Metric

if TYPE_CHECKING:
    from prooftune.evaluation.statistics import Floats, Statistic

BUILT_IN: Final[Mapping[str, Definition]] = TEXT_METRICS | LABEL_METRICS | JSON_METRICS | FORMAT_METRICS


def definition_of(name: str) -> Definition:
    """Return how a metric judges answers.

    Raises:
        EnvironmentLacks: it is a custom metric that no installed package offers.
    """
    return custom_metric(name) if name.startswith(PREFIX) else BUILT_IN[name]


def metrics_for(targets: Sequence[str], task: Task) -> list[str]:
    """Return the metrics to take of targets such as these: ``task.metric``, then ``task.metrics``, then those that suit the targets.

    JSON: exact match, validity, fields, and the schema where there is one. Labels: accuracy and macro F1. Other text: ROUGE-L.
    """
    parsed = [parse(target) for target in targets]
    suitable = ["exact_match"]
    if any(isinstance(value, dict | list) for value in parsed):
        suitable.append("json_valid")
        if task.json_schema is not None:
            suitable.append("json_schema")
        if any(isinstance(value, dict) for value in parsed):
            suitable.append("json_field_accuracy")
    elif are_labels(targets):
        suitable += ["label_accuracy", "macro_f1"]
    else:
        suitable.append("rouge_l")
    return list(dict.fromkeys([task.metric, *task.metrics, *suitable]))


def check_metrics(names: Sequence[str], task: Task) -> None:
    """Check that metrics can be taken, before anything is asked or trained.

    Raises:
        SpecError: one needs an option that ``task`` lacks, or ``task.json_schema`` is no JSON Schema.
        EnvironmentLacks: one is a custom metric that no installed package offers.
    """
    for name in names:
        definition = definition_of(name)
        if name in BUILT_IN:
            definition.score("", "", task)


def score(metric: str, answer: str, target: str, task: Task) -> float | None:
    """Return one answer's score between 0 and 1, or None where the metric does not apply to the target."""
    return definition_of(metric).score(answer, target, task)


def measure(
    names: Sequence[str], answers: Sequence[str], targets: Sequence[str], task: Task, *, seed: int, alpha: float = 0.05
) -> dict[str, Metric]:
    """Return the named metrics over all examples, each with its ``1 - alpha`` interval, computed by one ``evaluate.combine``.

    Raises:
        DataError: there are no examples, or a metric scores none of them.
    """
    import evaluate

    if not targets:
        raise DataError("there are no answers to measure; at least one held-out example is required")
    with TemporaryDirectory() as cache:  # evaluate wants a folder, even where it writes nothing into it
        modules = evaluate.combine([evaluate_metric(name, task, cache) for name in names])
        values = modules.compute(predictions=list(answers), references=list(targets))
    return {name: _with_interval(name, values[name], answers, targets, task, seed, alpha) for name in names}


def evaluate_metric(name: str, task: Task, cache_dir: str | None = None) -> Any:
    """Return a metric as an ``evaluate.Metric``, which loads without a hub and combines with others.

    ``compute(predictions=answers, references=targets)`` gives ``{name: value}`` over the scored examples.
    """
    import datasets
    import evaluate

    class ProoftuneMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
        def _info(self) -> Any:
            texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
            return evaluate.MetricInfo(description=__doc__ or "", citation="", inputs_description="answers, targets", features=texts)

        def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
            return {name: value_of(name, predictions, references, task)}

    return ProoftuneMetric(cache_dir=cache_dir, keep_in_memory=True)


def value_of(name: str, answers: Sequence[str], targets: Sequence[str], task: Task) -> float:
    """Return the metric over the scored examples, without an interval.

    Raises:
        DataError: no example is scored.
    """
    import numpy as np

    statistic, scores = statistic_of(name, answers, targets, _scores(name, answers, targets, task), task)
    return float(statistic(np.ones((1, len(scores))))[0])


def statistic_of(
    name: str, answers: Sequence[str], targets: Sequence[str], scores: Sequence[float | None], task: Task
) -> tuple[Statistic, list[float]]:
    """Return the metric as a statistic of the scored examples, for ``bootstrap``, and their scores.

    Raises:
        DataError: no example is scored.
    """
    scored = [(answer, target, value) for answer, target, value in zip(answers, targets, scores, strict=True) if value is not None]
    if not scored:
        raise DataError(f"{name} scores none of the {len(targets)} examples: it does not fit their targets; set another metric")
    values = [value for _, _, value in scored]
    if (corpus := definition_of(name).corpus) is None:
        return mean_of(values), values
    return corpus_statistic(corpus, corpus.rows([answer for answer, _, _ in scored], [target for _, target, _ in scored], task)), values


def corpus_statistic(corpus: Corpus, rows: Floats) -> Statistic:
    """Return a corpus metric of these rows as a statistic of how often each example counts, for ``bootstrap``."""
    return lambda counts: corpus.value(counts @ rows)


def interval(name: str, statistic: Statistic, scores: Sequence[float], *, alpha: float, seed: int) -> tuple[float, float]:
    """Return the ``1 - alpha`` interval of one contestant's metric: Wilson's where scores are right or wrong, else by bootstrap."""
    if definition_of(name).right_or_wrong:
        return wilson(round(sum(scores)), len(scores), alpha)
    return percentile_interval(bootstrap(statistic, len(scores), seed=seed), alpha)


def _scores(name: str, answers: Sequence[str], targets: Sequence[str], task: Task) -> list[float | None]:
    return [score(name, answer, target, task) for answer, target in zip(answers, targets, strict=True)]


def _with_interval(name: str, value: float, answers: Sequence[str], targets: Sequence[str], task: Task, seed: int, alpha: float) -> Metric:
    statistic, scores = statistic_of(name, answers, targets, _scores(name, answers, targets, task), task)
    low, high = interval(name, statistic, scores, alpha=alpha, seed=seed)
    return Metric(name=name, value=value, ci_low=low, ci_high=high, n=len(scores), unscored=len(targets) - len(scores))
