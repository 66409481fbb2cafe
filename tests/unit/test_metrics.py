"""What all metrics have in common: laws that each keeps, intervals, and how they load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError, EnvironmentLacks, SpecError
from prooftune.evaluation.metrics import BUILT_IN, check_metrics, evaluate_metric, measure, metrics_for, score, value_of
from prooftune.spec import Task
from prooftune.spec.evaluation import BUILT_IN_METRICS

TICKET = '{"category": "billing", "priority": 1, "open": true}'
TASK = Task(json_schema={"type": "object", "required": ["category"]}, pattern="[a-z ]*", tolerance=0.01)
TARGETS = (TICKET, '{"category": {"name": "x", "tags": ["a", "b"]}}', "billing", "the fee is 3.50 euros a month", "[1, 2]", "")

texts = st.sampled_from(TARGETS) | st.text(max_size=30)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


def test_the_spec_names_the_metrics_there_are() -> None:
    """The names that a spec may use and the definitions do not drift apart."""
    assert set(BUILT_IN) == set(BUILT_IN_METRICS)


@given(st.sampled_from(BUILT_IN_METRICS), texts, texts)
@settings(deadline=None)
def test_scores_are_between_0_and_1_and_the_target_is_right(metric: str, answer: str, target: str) -> None:
    """No answer breaks a metric, the target itself is right, and whether an example is scored is no matter of the answer."""
    found = score(metric, answer, target, TASK)
    assert found is None or 0 <= found <= 1
    assert score(metric, target, target, TASK) in (None, pytest.approx(1.0))
    assert (found is None) == (score(metric, target, target, TASK) is None)
    if BUILT_IN[metric].right_or_wrong:
        assert found in (None, 0.0, 1.0)


@given(st.sampled_from(BUILT_IN_METRICS), pairs)
@settings(deadline=None)
def test_values_are_between_0_and_1_and_do_not_depend_on_the_order(metric: str, found: list[tuple[str, str]]) -> None:
    """A metric of a set of examples is a metric of the set."""
    answers, targets = zip(*found, strict=True)
    if all(score(metric, answer, target, TASK) is None for answer, target in found):
        return
    value = value_of(metric, answers, targets, TASK)
    assert 0 <= value <= 1
    assert value_of(metric, answers[::-1], targets[::-1], TASK) == pytest.approx(value)


@pytest.mark.parametrize("metric", BUILT_IN_METRICS)
def test_perfect_answers_score_1(metric: str) -> None:
    """Of sentences, labels, JSON and numbers alike; the interval holds the value."""
    targets = [TICKET, TARGETS[1], *(f"the quick brown fox number {n} jumps over" for n in range(8)), "fee of three euros a month"]
    found = measure([metric], targets, targets, TASK, seed=0)[metric]
    assert found.value == pytest.approx(1.0)
    assert found.ci_low <= found.value <= found.ci_high + 1e-12
    assert found.n + found.unscored == len(targets)


@pytest.mark.parametrize(
    ("targets", "task", "expected"),
    [
        ([TICKET, "unsure"], Task(), ["exact_match", "json_valid", "json_field_accuracy"]),
        ([TICKET], Task(json_schema={}), ["exact_match", "json_valid", "json_schema", "json_field_accuracy"]),
        (["[1]", "[2]"], Task(), ["exact_match", "json_valid"]),
        (["yes", "no", "Yes.", "no"], Task(), ["exact_match", "label_accuracy", "macro_f1"]),
        (["a long answer", "another one"], Task(), ["exact_match", "rouge_l"]),
        (["a long answer", "another one"], Task(metric="chrf", metrics=("bleu", "rouge_l")), ["chrf", "bleu", "rouge_l", "exact_match"]),
    ],
)
def test_metrics_fit_the_targets(targets: list[str], task: Task, expected: list[str]) -> None:
    """The spec's metric comes first and the spec's others next; JSON, labels and free text are each measured as what they are."""
    assert metrics_for(targets, task) == expected


def test_a_metric_carries_its_count_and_interval() -> None:
    """Wilson for right/wrong, bootstrap for the rest, unscored targets counted apart; the same each time."""
    answers, targets = [TICKET, TICKET, "x", "unsure"], [TICKET, TICKET.replace("1", "2"), TICKET, "unsure"]
    names = ["exact_match", "json_valid", "json_field_accuracy", "json_field_precision"]
    found = measure(names, answers, targets, TASK, seed=3)
    assert (found["exact_match"].value, found["exact_match"].n, found["exact_match"].unscored) == (0.5, 4, 0)
    assert found["exact_match"].ci_low == pytest.approx(0.15003898914215947)
    assert (found["json_valid"].value, found["json_valid"].n, found["json_valid"].unscored) == (2 / 3, 3, 1)
    fields = found["json_field_accuracy"]
    assert fields.value == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert 0 <= fields.ci_low < fields.value < fields.ci_high <= 1
    assert found["json_field_precision"].value == pytest.approx(5 / 6)
    assert found == measure(names, answers, targets, TASK, seed=3)


def test_a_wider_confidence_is_a_wider_interval() -> None:
    """Whatever the metric's definition: right or wrong, mean, corpus."""
    answers, targets = ["a", "b", "c d", "a", "c"] * 8, ["a", "c", "c e", "b", "c"] * 8
    for name in ("exact_match", "rouge_l", "macro_f1"):
        narrow, wide = (measure([name], answers, targets, TASK, seed=1, alpha=alpha)[name] for alpha in (0.2, 0.01))
        assert wide.ci_low < narrow.ci_low < narrow.value < narrow.ci_high < wide.ci_high, name


def test_metrics_are_evaluate_modules_that_combine(tmp_path: Path) -> None:
    """They load without a hub and give their values through ``evaluate.combine``."""
    import evaluate

    names = ("exact_match", "rouge_l", "bleu")
    combined = evaluate.combine([evaluate_metric(name, TASK, str(tmp_path)) for name in names])
    values: dict[str, Any] = combined.compute(predictions=["a b", "c"], references=["a b", "d"])
    assert values == {"exact_match": 0.5, "rouge_l": 0.5, "bleu": 0.0}


def test_nothing_scored_is_an_error() -> None:
    """An empty set and a metric without a target to score are errors, not zeros."""
    with pytest.raises(DataError, match="no answers"):
        measure(["exact_match"], [], [], TASK, seed=0)
    for name in ("json_valid", "json_field_recall"):
        with pytest.raises(DataError, match=f"{name} scores none of the 1"):
            measure([name], ["x"], ["y"], TASK, seed=0)


def test_a_target_of_json_text_is_scored_as_data() -> None:
    """However it is written."""
    assert score("exact_match", json.dumps(json.loads(TICKET), indent=3), TICKET, TASK) == 1.0


def test_metrics_are_checked_before_anything_is_asked() -> None:
    """The gate's further metrics may need an option that the task lacks, or a package that is not there."""
    check_metrics(BUILT_IN_METRICS, TASK)
    with pytest.raises(SpecError, match=r"needs task\.pattern"):
        check_metrics(["exact_match", "regex_match"], Task())
    with pytest.raises(SpecError, match="no JSON Schema"):
        check_metrics(["json_schema"], Task(json_schema={"type": 3}))
    with pytest.raises(EnvironmentLacks, match="custom:absent"):
        check_metrics(["custom:absent"], Task())
