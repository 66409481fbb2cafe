"""Metrics of the user's own, from packages that are really on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prooftune.errors import DataError, EnvironmentLacks
from prooftune.evaluation.metrics import measure, metrics_for, score
from prooftune.evaluation.metrics.custom import custom_metric
from prooftune.spec import Task

TASK = Task()
SOURCE = """
def brief(answer, target):
    return None if not target else min(1.0, len(target) / max(len(answer), 1))

def picky(answer, target):
    return None if answer == "pass" or not target else 1.0

def outside(answer, target):
    return 1.5

def words(answer, target):
    return "good"

constant = 3
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Give a function that puts a package with the named entry points on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(package: str, entry_points: str) -> None:
        (tmp_path / f"{package}.py").write_text(SOURCE)
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[prooftune.metrics]\n{entry_points}\n")

    custom_metric.cache_clear()
    yield make
    custom_metric.cache_clear()


def test_an_installed_function_is_a_metric(install: Callable[[str, str], None]) -> None:
    """It scores, leaves targets unscored, and gets an interval like any other."""
    install("metrics_of_ours", "brief = metrics_of_ours:brief")
    task = Task(metric="custom:brief")
    assert metrics_for(["some text", "another one"], task)[0] == "custom:brief"
    found = measure(["custom:brief", "exact_match"], ["abcd", "ab", "x"], ["ab", "ab", ""], task, seed=0)["custom:brief"]
    assert (found.value, found.n, found.unscored) == (0.75, 2, 1)
    assert found.ci_low <= found.value <= found.ci_high


def test_a_missing_metric_names_those_installed(install: Callable[[str, str], None]) -> None:
    """So that a typing error is seen at once."""
    with pytest.raises(EnvironmentLacks, match="no installed package offers the metric custom:tone; installed: no custom metric"):
        score("custom:tone", "a", "b", TASK)
    install("metrics_of_theirs", "brief = metrics_of_theirs:brief\nwords = metrics_of_theirs:words")
    with pytest.raises(EnvironmentLacks, match="custom:tone; installed: custom:brief, custom:words"):
        score("custom:tone", "a", "b", TASK)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("x = metrics_broken:absent", "cannot be loaded from metrics_broken:absent"),
        ("x = no_such_module_at_all:f", "No module named 'no_such_module_at_all'"),
        ("x = metrics_broken:constant", "is metrics_broken:constant, which is no function"),
    ],
)
def test_what_cannot_be_loaded_is_lacking(install: Callable[[str, str], None], entry: str, message: str) -> None:
    """The package is there, its metric is not."""
    install("metrics_broken", entry)
    with pytest.raises(EnvironmentLacks, match=message):
        score("custom:x", "a", "b", TASK)


def test_two_packages_with_one_name_are_refused(install: Callable[[str, str], None]) -> None:
    """Which of them is meant must not depend on the order of installation."""
    install("metrics_one", "same = metrics_one:brief")
    install("metrics_two", "same = metrics_two:brief")
    with pytest.raises(EnvironmentLacks, match="several packages offer the metric custom:same"):
        score("custom:same", "a", "b", TASK)


def test_a_metric_that_lets_answers_drop_questions_is_refused(install: Callable[[str, str], None]) -> None:
    """None for an answer's sake is an error; for the target's sake it means that the metric does not apply."""
    install("metrics_picky", "picky = metrics_picky:picky")
    assert score("custom:picky", "a", "b", TASK) == 1.0
    assert score("custom:picky", "pass", "", TASK) is None
    with pytest.raises(DataError, match=r"custom:picky returned None for an answer to a target that it scores; .* return 0 for a bad"):
        score("custom:picky", "pass", "b", TASK)


@pytest.mark.parametrize(("name", "value"), [("outside", "1.5"), ("words", "'good'")])
def test_a_score_outside_its_range_is_refused(install: Callable[[str, str], None], name: str, value: str) -> None:
    """Instead of a mean that means nothing."""
    install("metrics_wrong", f"{name} = metrics_wrong:{name}")
    with pytest.raises(DataError, match=f"custom:{name} returned {value}; a score is a number from 0 to 1"):
        score(f"custom:{name}", "a", "b", TASK)
