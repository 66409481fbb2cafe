"""What a right answer is: a score per example, and metrics over a set of examples with their intervals.

========================  ===================================================================  =================
metric                    score of one example                                                 interval
========================  ===================================================================  =================
``exact_match``           1 if the answer is the target; JSON is compared as data              Wilson
``label_accuracy``        1 if the label is the target's, whatever its case and punctuation    Wilson
``macro_f1``              as ``label_accuracy``; the metric is the mean F1 of the labels       bootstrap
``json_valid``            1 if the answer is JSON with exactly the target's keys               Wilson
``json_field_accuracy``   share of the target's fields that the answer gets right              bootstrap
``rouge_l``               F-measure of the longest common subsequence of words (Lin, 2004)     bootstrap
========================  ===================================================================  =================

A score of None means unscored, never 0: the JSON metrics do not apply to a target that is not JSON. Answers are judged as they came: what a
program reads must be JSON, and JSON in a code fence is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any, Final

from prooftune.errors import DataError
from prooftune.evaluation.statistics import bootstrap, macro_f1_of, mean_of, percentile_interval, wilson
from prooftune.spec import Task
from prooftune.types import Metric

RIGHT_OR_WRONG: Final = frozenset({"exact_match", "label_accuracy", "json_valid"})
"""Metrics whose scores are 0 or 1 and whose value is their mean."""
_LABEL_EDGES = " \t\r\n.,;:!?'\"`*()[]{}<>«»‹›“”„‘’‚…"
_NOT_JSON: Final = object()


def metrics_for(targets: Sequence[str], task: Task) -> list[str]:
    """Return the metrics that make sense for targets such as these, ``task.metric`` first.

    JSON objects: exact match, validity and fields. Labels (short texts that come back twice each, on average): accuracy and macro F1.
    Other text: ROUGE-L.
    """
    parsed = [_parse(target) for target in targets]
    names: list[str] = [task.metric, "exact_match"]
    if any(isinstance(value, dict | list) for value in parsed):
        names.append("json_valid")
        if any(isinstance(value, dict) for value in parsed):
            names.append("json_field_accuracy")
    elif 2 * len({label_of(target) for target in targets}) <= len(targets) and all(len(target.split()) <= 8 for target in targets):
        names += ["label_accuracy", "macro_f1"]
    else:
        names.append("rouge_l")
    return list(dict.fromkeys(names))


def score(metric: str, answer: str, target: str) -> float | None:
    """Return one answer's score between 0 and 1, or None where the metric does not apply to the target."""
    return _SCORES[metric](answer, target)


def measure(names: Sequence[str], answers: Sequence[str], targets: Sequence[str], *, seed: int, alpha: float = 0.05) -> dict[str, Metric]:
    """Return the named metrics over all examples, each with its ``1 - alpha`` interval, computed by one ``evaluate.combine``.

    Raises:
        DataError: there are no examples, or a metric scores none of them.
    """
    import evaluate

    if not targets:
        raise DataError("there are no answers to measure; at least one held-out example is required")
    scores = {name: [score(name, answer, target) for answer, target in zip(answers, targets, strict=True)] for name in names}
    for name in names:
        if all(value is None for value in scores[name]):
            raise DataError(f"{name} applies to none of the {len(targets)} targets; leave it out")
    with TemporaryDirectory() as cache:  # evaluate wants a folder, even where it writes nothing into it
        modules = evaluate.combine([evaluate_metric(name, cache) for name in names])
        values = modules.compute(predictions=list(answers), references=list(targets))
    return {name: _with_interval(name, values[name], scores[name], answers, targets, seed, alpha) for name in names}


def evaluate_metric(name: str, cache_dir: str | None = None) -> Any:
    """Return a metric as an ``evaluate.Metric``, which loads without a hub and combines with others.

    ``compute(predictions=answers, references=targets)`` gives ``{name: value}`` over the scored examples.
    """
    import datasets
    import evaluate

    class PerExampleMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
        def _info(self) -> Any:
            texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
            return evaluate.MetricInfo(description=__doc__ or "", citation="", inputs_description="answers, targets", features=texts)

        def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
            return {name: value_of(name, predictions, references)}

    return PerExampleMetric(cache_dir=cache_dir, keep_in_memory=True)


def value_of(name: str, answers: Sequence[str], targets: Sequence[str]) -> float:
    """Return the metric over the scored examples, without an interval.

    Raises:
        DataError: no example is scored.
    """
    import numpy as np

    scored = [value for answer, target in zip(answers, targets, strict=True) if (value := score(name, answer, target)) is not None]
    if not scored:
        raise DataError(f"{name} scores none of {len(targets)} examples")
    if name == "macro_f1":
        return float(macro_f1_of(*labels_of(targets, answers))(np.ones((1, len(targets))))[0])
    return float(np.mean(scored))


def label_of(text: str) -> str:
    """Return a label without regard to case and to the punctuation around it; a label of punctuation alone stays."""
    folded = text.casefold()
    return folded.strip(_LABEL_EDGES) or folded.strip()


def labels_of(targets: Sequence[str], answers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return targets and answers as labels, in the order that ``macro_f1_of`` takes them."""
    return [label_of(target) for target in targets], [label_of(answer) for answer in answers]


def _with_interval(
    name: str, value: float, scores: Sequence[float | None], answers: Sequence[str], targets: Sequence[str], seed: int, alpha: float
) -> Metric:
    scored = [x for x in scores if x is not None]
    if name in RIGHT_OR_WRONG:
        low, high = wilson(round(sum(scored)), len(scored), alpha)
    else:
        statistic = macro_f1_of(*labels_of(targets, answers)) if name == "macro_f1" else mean_of(scored)
        low, high = percentile_interval(bootstrap(statistic, len(scored), seed=seed), alpha)
    return Metric(name=name, value=value, ci_low=low, ci_high=high, n=len(scored), unscored=len(scores) - len(scored))


def _exact_match(answer: str, target: str) -> float:
    wanted = _parse(target)
    if isinstance(wanted, dict | list):
        return float(_same(_parse(answer), wanted))
    return float(answer.strip() == target.strip())


def _label_accuracy(answer: str, target: str) -> float:
    return float(label_of(answer) == label_of(target))


def _json_valid(answer: str, target: str) -> float | None:
    wanted, found = _parse(target), _parse(answer)
    if isinstance(wanted, dict):
        return float(isinstance(found, dict) and found.keys() == wanted.keys())
    return float(isinstance(found, list)) if isinstance(wanted, list) else None


def _json_field_accuracy(answer: str, target: str) -> float | None:
    wanted, found = _parse(target), _parse(answer)
    if not isinstance(wanted, dict) or not wanted:
        return None
    if not isinstance(found, dict):
        return 0.0
    return sum(key in found and _same(found[key], value) for key, value in wanted.items()) / len(wanted)


def _rouge_l(answer: str, target: str) -> float | None:
    wanted, found = (re.findall(r"[^\W_]+", text.casefold()) for text in (target, answer))
    if not wanted:
        return None
    return 2 * _common_subsequence(wanted, found) / (len(wanted) + len(found))


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, one machine word of ``a`` at a time.

    Source: Hyyrö (2004), Bit-parallel LCS-length computation revisited.
    """
    where: dict[str, int] = {}
    for at, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << at
    everything = (1 << len(a)) - 1
    row = everything
    for word in b:
        matches = row & where.get(word, 0)
        row = (row + matches | row - matches) & everything
    return len(a) - row.bit_count()


_SCORES: Final[Mapping[str, Callable[[str, str], float | None]]] = {
    "exact_match": _exact_match,
    "label_accuracy": _label_accuracy,
    "macro_f1": _label_accuracy,
    "json_valid": _json_valid,
    "json_field_accuracy": _json_field_accuracy,
    "rouge_l": _rouge_l,
}


def _parse(text: str) -> object:
    """Return the JSON value of a text, or ``_NOT_JSON``; a key given twice makes it none, because readers disagree about it."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _same(a: object, b: object) -> bool:
    try:
        return _canonical(a) == _canonical(b)
    except RecursionError:  # an answer nested hundreds deep is no one's target
        return False


def _canonical(value: object) -> object:
    """Return a form that is equal exactly for equal JSON: key order does not matter, 1 and 1.0 are one number, and true is not 1."""
    if isinstance(value, dict):
        return frozenset((key, _canonical(field)) for key, field in value.items())
    if isinstance(value, list):
        return tuple(_canonical(item) for item in value)
    return isinstance(value, bool), value
