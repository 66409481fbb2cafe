"""Looks at several checkpoints: alpha is spent once, in order, and no more is asked than needed. And the gate's error rates, simulated."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import ROOT

from prooftune.evaluation.gate import Evidence, decide
from prooftune.evaluation.gate.looks import alpha_by_look, look_in_turn
from prooftune.spec import Gate, Task
from prooftune.types import Prediction


def answers(right: int, n: int = 60) -> list[Prediction]:
    """Return n answers, the first ones right."""
    texts = {"prompt": "", "target": "", "answer": ""}
    return [
        Prediction(
            **texts,
            example_id=str(at),
            prompt_tokens=1,
            answer_tokens=1,
            finished=True,
            latency_s=0.0,
            scores={"exact_match": float(at < right)},
        )
        for at in range(n)
    ]


BASELINES = {"zero_shot": answers(20)}


@given(st.floats(0.001, 0.4), st.integers(1, 8))
def test_the_shares_add_up_to_alpha(alpha: float, looks: int) -> None:
    """No more than alpha is spent, the first look has the most, and none has nothing."""
    shares = alpha_by_look(alpha, looks)
    assert len(shares) == looks
    assert sum(shares) == pytest.approx(alpha)
    assert min(shares) > 0
    assert shares[0] == max(shares)


def test_no_look_is_an_error() -> None:
    """There is nothing to share alpha among."""
    with pytest.raises(ValueError, match="at least one"):
        alpha_by_look(0.05, 0)


def contenders(*right: int) -> tuple[list[Callable[[], Sequence[Prediction]]], list[int]]:
    """Candidates with so many right answers, and the list of those that were asked."""
    asked: list[int] = []

    def contender(count: int) -> Callable[[], Sequence[Prediction]]:
        def answer() -> Sequence[Prediction]:
            asked.append(count)
            return answers(count)

        return answer

    return [contender(count) for count in right], asked


def test_looking_stops_at_the_first_that_is_promoted() -> None:
    """The second passes at its own share; the third is never asked."""
    candidates, asked = contenders(21, 40, 50)
    decisions = look_in_turn(candidates, BASELINES, Task(), Gate(looks=3), seed=1)
    assert asked == [21, 40]
    assert [decision.verdict for decision in decisions] == ["inconclusive", "promote"]
    assert [(decision.look, decision.alpha) for decision in decisions] == [(1, 0.025), (2, 0.0125)]
    assert decisions[1] == decide(BASELINES, answers(40), Task(), Gate(looks=3), 1, Evidence(look=2, alpha=0.0125))


def test_a_gain_that_one_look_would_pass_may_fail_at_its_share() -> None:
    """Six gained and none lost is p = 0.031: enough for one look, too little for the first of two."""
    [alone] = look_in_turn(contenders(26)[0], BASELINES, Task(), Gate(), seed=1)
    shared = look_in_turn(contenders(26, 26)[0], BASELINES, Task(), Gate(looks=2), seed=1)
    assert alone.verdict == "promote"
    assert [decision.verdict for decision in shared] == ["inconclusive", "inconclusive"]


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's simulation."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield import_module("decision_simulation")
    sys.modules.pop("decision_simulation")


@pytest.mark.parametrize("kind", [{}, {"rungs": 3}, {"looks": 3}, {"metrics": 3}])
def test_without_a_difference_the_gate_promotes_at_most_alpha(simulation: Any, kind: dict[str, int]) -> None:
    """Of 250 candidates that are no better, no more than 5 % pass, nor, within the error of so many, the half of it that gains have."""
    found = simulation.simulate(simulation.World(80, 0.6, **kind), 250, seed=1)
    assert found["promoted"][0] <= 0.05
    assert found["promoted"][1] <= 0.025
    assert found.get("covered", [0.95])[0] >= 0.92


@pytest.mark.parametrize("kind", [{}, {"agreement": 0.6}, {"looks": 2}, {"metrics": 2}])
def test_the_detectable_difference_is_promoted_with_the_stated_power(simulation: Any, kind: dict[str, float]) -> None:
    """Of 250 candidates that are better by what ``power`` calls detectable, 80 % pass, within the error of so many."""
    found = simulation.simulate(simulation.World(120, 0.6, **kind).detectable(), 250, seed=2)
    assert found["promoted"][2] >= 0.8
    assert found["promoted"][0] >= 0.74


@pytest.mark.parametrize("agreement", [0.0, 0.7])
def test_the_minimum_effect_is_promoted_with_the_stated_power(simulation: Any, agreement: float) -> None:
    """Of 250 candidates that are better by just ``gate.min_effect``, 80 % are promoted on the holdout that is said to show it."""
    found = simulation.simulate(simulation.World(2, 0.6, min_effect=0.1, agreement=agreement).large_enough(), 250, seed=3)
    assert found["promoted"][2] >= 0.8
    assert found["promoted"][0] >= 0.74


@pytest.mark.parametrize(("scores", "n", "studies"), [("skewed", 20, 250), ("macro F1", 150, 40)])
def test_no_test_rejects_more_often_than_alpha(simulation: Any, scores: str, n: int, studies: int) -> None:
    """Of candidates that are no better, with few skewed scores or many rare labels: 5 % in both directions, within the error."""
    found = simulation.simulate(simulation.World(n, 0.8, scores=scores), studies, seed=4)
    assert found["rejected"][1] <= 0.05
    assert found["promoted"][1] <= 0.025
