"""Metrics: what counts as right, what is unscored, and agreement with the slow and obvious way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError
from prooftune.evaluation.metrics import evaluate_metric, measure, metrics_for, score, value_of
from prooftune.spec import Task

TICKET = '{"category": "billing", "priority": 1, "open": true}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        (" yes\n", "yes", 1.0),
        ("Yes", "yes", 0.0),
        ('{"open": true, "priority": 1.0,"category":"billing"}', TICKET, 1.0),
        ('{"category": "billing", "priority": true, "open": true}', TICKET, 0.0),
        (f"```json\n{TICKET}\n```", TICKET, 0.0),
        (TICKET.replace("}", ', "open": true}'), TICKET, 0.0),
        ("[1, 2]", "[1,2]", 1.0),
        ("1.0", "1", 0.0),
        ("NaN", "[1]", 0.0),
        ("[" * 5000, "[1]", 0.0),
        ("[" * 600 + "]" * 600, "[1]", 0.0),
    ],
)
def test_exact_match(answer: str, target: str, expected: float) -> None:
    """JSON is compared as data, other text without the space around it; a key twice, a fence or NaN is not JSON."""
    assert score("exact_match", answer, target) == expected


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [("Card_Arrival.", "card_arrival", 1.0), ("“Straße”", "STRASSE", 1.0), ("C++", "C", 0.0), ("", "...", 0.0), ("a b", "a", 0.0)],
)
def test_label_accuracy(answer: str, target: str, expected: float) -> None:
    """Case and the punctuation around a label do not matter; what is part of the label does."""
    assert score("label_accuracy", answer, target) == expected


@pytest.mark.parametrize(
    ("answer", "valid", "fields"),
    [
        (TICKET, 1.0, 1.0),
        ('{"category": "tax", "priority": 1, "open": true}', 1.0, 2 / 3),
        ('{"category": "billing"}', 0.0, 1 / 3),
        ('{"category": "billing", "priority": 1, "open": true, "x": 0}', 0.0, 1.0),
        ("[]", 0.0, 0.0),
        ("billing", 0.0, 0.0),
    ],
)
def test_json_metrics(answer: str, valid: float, fields: float) -> None:
    """Validity asks for the target's keys and no others, the fields for their values."""
    assert score("json_valid", answer, TICKET) == valid
    assert score("json_field_accuracy", answer, TICKET) == pytest.approx(fields)


@pytest.mark.parametrize(("metric", "target"), [("json_valid", "hello"), ("json_field_accuracy", "[1]"), ("rouge_l", "…")])
def test_what_does_not_apply_is_unscored(metric: str, target: str) -> None:
    """None, never 0, where the target is of another kind."""
    assert score(metric, "anything", target) is None


@given(st.dictionaries(st.text(max_size=4), json_values, min_size=1, max_size=4))
def test_any_json_matches_itself_however_written(value: dict[str, Any]) -> None:
    """Order of keys, spaces and escapes do not matter."""
    answer = json.dumps(dict(reversed(value.items())), indent=2)
    target = json.dumps(value, ensure_ascii=False)
    assert [score(name, answer, target) for name in ("exact_match", "json_valid", "json_field_accuracy")] == [1.0, 1.0, 1.0]


@given(st.sampled_from(["exact_match", "label_accuracy", "macro_f1", "json_valid", "json_field_accuracy", "rouge_l"]), st.text(), st.text())
def test_scores_are_between_0_and_1_and_the_target_is_right(metric: str, answer: str, target: str) -> None:
    """No answer breaks a metric, and the target itself is always a right answer."""
    assert (found := score(metric, answer, target)) is None or 0 <= found <= 1
    assert score(metric, target, target) in (None, 1.0)


@given(st.lists(st.sampled_from("abcd"), max_size=20), st.lists(st.sampled_from("abcd"), min_size=1, max_size=20))
def test_rouge_l_is_the_textbook_recursion(answer: list[str], target: list[str]) -> None:
    """The bit-parallel length equals that of the quadratic table."""
    table = [[0] * (len(target) + 1) for _ in range(len(answer) + 1)]
    for i, a in enumerate(answer):
        for j, b in enumerate(target):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    expected = 2 * table[-1][-1] / (len(answer) + len(target))
    assert score("rouge_l", " ".join(answer), "_".join(target)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([TICKET, "unsure"], ["exact_match", "json_valid", "json_field_accuracy"]),
        (["[1]", "[2]"], ["exact_match", "json_valid"]),
        (["yes", "no", "Yes.", "no"], ["exact_match", "label_accuracy", "macro_f1"]),
        (["a long answer", "another one"], ["exact_match", "rouge_l"]),
    ],
)
def test_metrics_fit_the_targets(targets: list[str], expected: list[str]) -> None:
    """JSON, labels and free text are each measured as what they are, and the spec's metric always comes first."""
    assert metrics_for(targets, Task()) == expected
    assert metrics_for(targets, Task(metric="rouge_l"))[0] == "rouge_l"


def test_a_metric_carries_its_count_and_interval() -> None:
    """Wilson for right/wrong, bootstrap for the rest, unscored targets counted apart; the same each time."""
    answers, targets = [TICKET, TICKET, "x", "unsure"], [TICKET, TICKET.replace("1", "2"), TICKET, "unsure"]
    names = ["exact_match", "json_valid", "json_field_accuracy"]
    found = measure(names, answers, targets, seed=3)
    assert (found["exact_match"].value, found["exact_match"].n, found["exact_match"].unscored) == (0.5, 4, 0)
    assert found["exact_match"].ci_low == pytest.approx(0.15003898915214947)
    assert (found["json_valid"].value, found["json_valid"].n, found["json_valid"].unscored) == (2 / 3, 3, 1)
    fields = found["json_field_accuracy"]
    assert fields.value == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert 0 <= fields.ci_low < fields.value < fields.ci_high <= 1
    assert found == measure(names, answers, targets, seed=3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=2, max_size=20))
@settings(deadline=None, max_examples=15)
def test_macro_f1_value_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    """Labels are compared without case; the value is scikit-learn's over the targets' labels."""
    from sklearn.metrics import f1_score

    targets, answers = zip(*pairs, strict=True)
    expected = f1_score(targets, answers, labels=sorted(set(targets)), average="macro", zero_division=0)
    assert value_of("macro_f1", [answer.upper() for answer in answers], targets) == pytest.approx(expected)


def test_metrics_are_evaluate_modules_that_combine(tmp_path: Path) -> None:
    """They load without a hub and give their values through ``evaluate.combine``."""
    import evaluate

    combined = evaluate.combine([evaluate_metric(name, str(tmp_path)) for name in ("exact_match", "rouge_l")])
    values = combined.compute(predictions=["a b", "c"], references=["a b", "d"])
    assert values == {"exact_match": 0.5, "rouge_l": 0.5}


def test_nothing_scored_is_an_error() -> None:
    """An empty set and a metric without a target to score are errors, not zeros."""
    with pytest.raises(DataError, match="no answers"):
        measure(["exact_match"], [], [], seed=0)
    with pytest.raises(DataError, match="json_valid applies to none of the 1"):
        measure(["json_valid"], ["x"], ["y"], seed=0)
