"""Metrics of JSON answers: validity, schema, fields, and agreement with scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import SpecError
from prooftune.evaluation.metrics import score, value_of
from prooftune.spec import Task

TASK = Task()
TICKET = '{"category": "billing", "priority": 1, "open": true}'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"category": {"enum": ["billing", "account"]}, "priority": {"$ref": "#/$defs/level"}},
    "required": ["category", "priority"],
    "additionalProperties": False,
    "$defs": {"level": {"type": "integer", "minimum": 1, "maximum": 5}},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("answer", "valid", "fields", "precision", "recall"),
    [
        (TICKET, 1.0, 1.0, 1.0, 1.0),
        ('{"category": "tax", "priority": 1, "open": true}', 1.0, 2 / 3, 2 / 3, 2 / 3),
        ('{"category": "billing"}', 0.0, 1 / 3, 1.0, 1 / 3),
        ('{"category": "billing", "priority": 1, "open": true, "x": 0}', 0.0, 1.0, 3 / 4, 1.0),
        ("[]", 0.0, 0.0, 0.0, 0.0),
        ("billing", 0.0, 0.0, 0.0, 0.0),
        (f"```json\n{TICKET}\n```", 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_fields_of_a_flat_object(answer: str, valid: float, fields: float, precision: float, recall: float) -> None:
    """Validity asks for the target's keys and no others; precision for nothing more, recall for nothing less."""
    found = [score(name, answer, TICKET, TASK) for name in ("json_valid", "json_field_accuracy")]
    assert found == [valid, pytest.approx(fields)]
    assert score("json_field_precision", answer, TICKET, TASK) == pytest.approx(precision)
    assert score("json_field_recall", answer, TICKET, TASK) == pytest.approx(recall)


@pytest.mark.parametrize(
    ("answer", "target", "precision", "recall"),
    [
        ('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1, "c": 3}}', 1 / 2, 1 / 2),
        ('{"b": 1}', '{"a": {"b": 1}}', 0.0, 0.0),
        ('{"tags": ["y", "x"]}', '{"tags": ["x", "y"]}', 1.0, 1.0),
        ('{"tags": ["x", "x", "z"]}', '{"tags": ["x", "y"]}', 1 / 3, 1 / 2),
        ('{"tags": []}', '{"tags": ["x"]}', 0.0, 0.0),
        ('[{"name": "x", "n": 1}, {"name": "y", "n": 1}]', '[{"n": 1, "name": "x"}]', 1 / 2, 1.0),
        ('{"a": 1.0, "b": true}', '{"a": 1, "b": 1}', 1 / 2, 1 / 2),
        ('{"a": ' * 600 + "1" + "}" * 600, '{"a": 1}', 0.0, 0.0),
    ],
)
def test_nested_fields(answer: str, target: str, precision: float, recall: float) -> None:
    """A field is a path and its value; the elements of a list count one by one, in any order, and not more often than they occur."""
    assert score("json_field_precision", answer, target, TASK) == pytest.approx(precision)
    assert score("json_field_recall", answer, target, TASK) == pytest.approx(recall)


@pytest.mark.parametrize(
    ("metric", "target"),
    [("json_valid", "hello"), ("json_field_accuracy", "[1]"), ("json_field_precision", "{}"), ("json_field_recall", "3")],
)
def test_what_does_not_apply_is_unscored(metric: str, target: str) -> None:
    """None, never 0, where the target is of another kind."""
    assert score(metric, "anything", target, TASK) is None


@given(st.dictionaries(st.text(max_size=4), json_values, min_size=1, max_size=4))
def test_any_json_matches_itself_however_written(value: dict[str, Any]) -> None:
    """Order of keys, spaces and escapes do not matter."""
    answer = json.dumps(dict(reversed(value.items())), indent=2)
    target = json.dumps(value, ensure_ascii=False)
    names = ("exact_match", "json_valid", "json_field_accuracy", "json_field_precision", "json_field_recall")
    assert [score(name, answer, target, TASK) for name in names] == [1.0] * 5


FLAT = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 1), max_size=5)


@given(st.lists(st.tuples(FLAT, FLAT.filter(bool)), min_size=1, max_size=8))
@settings(deadline=None)
def test_precision_and_recall_are_scikit_learns_micro_averages(pairs: list[tuple[dict[str, int], dict[str, int]]]) -> None:
    """Over the indicator matrix of all fields that occur."""
    from sklearn.metrics import precision_score, recall_score
    from sklearn.preprocessing import MultiLabelBinarizer

    answers, targets = ([json.dumps(value) for value in side] for side in zip(*pairs, strict=True))
    binarizer = MultiLabelBinarizer(classes=[(key, value) for key in "abcde" for value in (0, 1)])
    found, wanted = (binarizer.fit_transform([value.items() for value in side]) for side in zip(*pairs, strict=True))
    precision = precision_score(wanted, found, average="micro", zero_division=0)
    recall = recall_score(wanted, found, average="micro", zero_division=0)
    assert value_of("json_field_precision", answers, targets, TASK) == pytest.approx(precision)
    assert value_of("json_field_recall", answers, targets, TASK) == pytest.approx(recall)


@pytest.mark.parametrize(
    ("answer", "complies"),
    [
        ('{"category": "account", "priority": 5}', True),
        ('{"category": "account", "priority": 6}', False),
        ('{"category": "account"}', False),
        ('{"category": "account", "priority": 1, "x": 0}', False),
        ("account", False),
        ("[" * 900 + "]" * 900, False),
    ],
)
def test_schema_compliance(answer: str, complies: bool) -> None:
    """Any answer that the schema allows complies, whatever the target's values."""
    task = Task(json_schema=SCHEMA)
    assert score("json_schema", answer, '{"category": "billing", "priority": 1}', task) == float(complies)


def test_a_target_outside_the_schema_is_unscored() -> None:
    """The schema does not describe what is wanted there."""
    assert score("json_schema", "{}", "I don't know", Task(json_schema=SCHEMA)) is None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "at type, 'objekt'"),
        ({"properties": {"a": {"minimum": "1"}}}, "at properties/a/minimum"),
        ({"pattern": "("}, "at pattern"),
        ({"$ref": "https://example.com/ticket.json"}, "refers to 'https://example.com/ticket.json'"),
        ({"$ref": "#/$defs/missing"}, "refers to '.*missing'"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "written for http://json-schema.org/draft-07/schema"),
    ],
)
def test_an_unusable_schema_is_a_spec_error(schema: dict[str, Any], message: str) -> None:
    """It says where, and nothing is fetched from the network."""
    with pytest.raises(SpecError, match=message):
        score("json_schema", "{}", "{}", Task(json_schema=schema))


def test_the_schema_decides_among_numbers_of_any_size() -> None:
    """A number of hundreds of digits does not break the check."""
    task = Task(json_schema={"type": "number", "multipleOf": 0.5})
    assert score("json_schema", "1" * 400, "1.5", task) == 0.0
    assert score("json_schema", "7", "1.5", task) == 1.0
