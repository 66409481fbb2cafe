"""Numbers and patterns: how numbers are read, and when they are near enough."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.errors import SpecError
from prooftune.evaluation.metrics import score
from prooftune.evaluation.metrics.formats import numbers_in
from prooftune.spec import Task


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("The total is 42.", ["42"]),
        ("1,234.5", ["1234.5"]),
        ("1.234,5", ["1234.5"]),
        ("1.234.567", ["1234567"]),
        ("1,234,567.89 USD", ["1234567.89"]),
        ("12.345.678,9 €", ["12345678.9"]),
        ("3.142", ["3.142"]),
        ("3,14", ["3.14"]),
        ("0,123", ["0.123"]),
        ("1234,567", ["1234.567"]),
        ("1,234", ["1.234", "1234"]),
        ("12'345.60", ["12345.60"]),
        ("12\N{NO-BREAK SPACE}345,6", ["12345.6"]),
        ("-5 °C", ["-5"]),
        ("\N{MINUS SIGN}0.5", ["-0.5"]),
        ("+7", ["7"]),
        ("$-3", ["-3"]),
        ("pages 3-5", ["3"]),
        ("12 %", ["0.12"]),
        ("-1,5%", ["-0.015"]),
        ("6.02e23", ["6.02e23"]),
        (".5", ["0.5"]),
        ("Q3 brought 7", ["7"]),
        ("version 1.2.3 has 4 bugs", ["4"]),
        ("1,23,456 and 5", ["5"]),
        ("no number", []),
        ("", []),
    ],
)
def test_the_first_number(text: str, values: list[str]) -> None:
    """English and continental separators, percent and minus signs; 1,234 alone can be read in two ways; a version is no number."""
    assert numbers_in(text) == tuple(Decimal(value) for value in values)


@pytest.mark.parametrize(
    ("answer", "target", "tolerance", "expected"),
    [
        ("about 101", "100", 0.01, 1.0),
        ("101.001", "100", 0.01, 0.0),
        ("0.3", "0.1", 2.0, 1.0),
        ("-100", "100", 0.5, 0.0),
        ("1e-9", "0", 0.5, 0.0),
        ("0", "0.0", 0.0, 1.0),
        ("12%", "0.12", 0.0, 1.0),
        ("12", "12%", 0.0, 0.0),
        ("1,234", "1234", 0.0, 1.0),
        ("1,234", "1.234", 0.0, 1.0),
        ("none", "5", 0.0, 0.0),
        ("5", "1,234", 0.0, None),
        ("5", "unknown", 0.0, None),
    ],
)
def test_numeric_tolerance(answer: str, target: str, tolerance: float, expected: float | None) -> None:
    """Relative to the target and in decimal, so that the border belongs to it; a target without one clear number is unscored."""
    assert score("numeric_tolerance", answer, target, Task(tolerance=tolerance)) == expected


@given(st.decimals(-(10**9), 10**9, places=3), st.text(max_size=5))
def test_a_number_is_read_back_however_it_is_grouped(value: Decimal, unit: str) -> None:
    """With three decimals behind another separator nothing is ambiguous."""
    english = f"{value:,.3f}"
    continental = english.translate(str.maketrans(",.", ".,"))
    if abs(value) >= 1000:
        assert numbers_in(english) == numbers_in(continental) == (value,)
    assert value in numbers_in(english)
    assert score("numeric_tolerance", english, f"{value}", Task()) == 1.0


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [("AB-12", "CD-34", 1.0), (" AB-12\n", "CD-34", 1.0), ("AB-123", "CD-34", 0.0), ("ab-12", "CD-34", 0.0), ("AB-12", "none", None)],
)
def test_regex_match(answer: str, target: str, expected: float | None) -> None:
    """The whole answer must match; a target that does not is unscored."""
    assert score("regex_match", answer, target, Task(pattern=r"[A-Z]{2}-\d\d")) == expected


@pytest.mark.parametrize(("metric", "field"), [("regex_match", "pattern"), ("json_schema", "json_schema")])
def test_a_metric_without_its_option_is_a_spec_error(metric: str, field: str) -> None:
    """The gate's further metrics may name one that the task has no option for."""
    with pytest.raises(SpecError, match=f"task.{field}"):
        score(metric, "x", "x", Task())
