"""The gate: each verdict and its reasons, and that no order, tie or missing score slips through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError
from prooftune.evaluation.gate import decide, worth_training
from prooftune.spec import Gate, RunSpec, Task, parse_spec
from prooftune.types import Decision, Evaluation, Metric, Prediction


def prediction(number: int, value: float | None, *, metric: str = "exact_match", target: str = "a", answer: str = "a") -> Prediction:
    """One scored answer."""
    return Prediction(
        example_id=f"{number:016x}",
        prompt="?",
        target=target,
        answer=answer,
        prompt_tokens=1,
        answer_tokens=1,
        finished=True,
        latency_s=0.1,
        scores={metric: value},
    )


def predictions(values: Sequence[float | None], metric: str = "exact_match") -> list[Prediction]:
    """One scored answer a value."""
    return [prediction(number, value, metric=metric) for number, value in enumerate(values)]


def judge(baseline: Sequence[float | None], candidate: Sequence[float | None], metric: str = "exact_match", **rules: float) -> Decision:
    """Let the gate decide between two lists of scores."""
    task = Task.model_validate({"metric": metric})
    return decide({"zero_shot": predictions(baseline, metric)}, predictions(candidate, metric), task, Gate.model_validate(rules), seed=1)


def evaluation(name: str, value: float) -> Evaluation:
    """A contestant with one metric."""
    return Evaluation(
        name=name,
        description="",
        metrics={"exact_match": Metric(name="exact_match", value=value, ci_low=value - 0.05, ci_high=value + 0.02, n=150)},
        answer_tokens_mean=1,
        answer_tokens_p50=1,
        answer_tokens_p95=1,
        prompt_tokens_mean=1,
        latency_p50_s=1,
        latency_p95_s=1,
        batch_size=1,
        tokens_per_second=1,
        seconds=1,
        refusals=0,
        empty=0,
        holdout_sha256="0",
    )


@pytest.fixture
def spec() -> RunSpec:
    """A spec with the default limits."""
    return parse_spec({"name": "x", "data": {"source": "x.jsonl"}})


def test_a_clear_gain_is_promoted() -> None:
    """Significant, large enough, interval above 0; the reason carries every figure."""
    decision = judge([1.0] * 60 + [0.0] * 40, [1.0] * 90 + [0.0] * 10)
    assert decision.verdict == "promote"
    assert decision.difference == pytest.approx(0.3)
    assert (decision.baseline, decision.test, decision.n, decision.unscored) == ("zero_shot", "exact McNemar", 100, 0)
    assert decision.ci_low is not None
    assert decision.ci_low > 0.2
    assert decision.reasons[0].startswith("exact_match 0.600 → 0.900 (+30.0 points, 95 % CI +21.")
    assert decision.reasons[0].endswith("exact McNemar p < 0.0001, n = 100)")
    assert "at least the 2 required" in decision.reasons[1]


def test_a_worse_candidate_leaves_the_baseline() -> None:
    """Significantly worse is said as such."""
    decision = judge([1.0] * 80 + [0.0] * 20, [1.0] * 50 + [0.0] * 50)
    assert decision.verdict == "keep_baseline"
    assert "significantly worse" in decision.reasons[1]


def test_a_gain_that_cannot_be_large_enough_leaves_the_baseline() -> None:
    """The whole interval lies below what is required."""
    decision = judge([1.0] * 300, [1.0] * 300, min_effect=0.1)
    assert decision.verdict == "keep_baseline"
    assert "Even the top of the interval" in decision.reasons[1]


def test_luck_is_inconclusive_and_says_how_many_examples_would_settle_it() -> None:
    """Five gained and one lost of forty is no proof; n_needed is Connor's."""
    decision = judge([0.0] * 5 + [1.0] * 35, [1.0] * 5 + [0.0] + [1.0] * 34)
    assert decision.verdict == "inconclusive"
    effect, share = 4 / 40, 6 / 40
    assert decision.n_needed == math.ceil(((1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - effect**2)) / effect) ** 2)
    assert f"About {decision.n_needed} held-out examples" in decision.reasons[2]


def test_a_real_gain_that_may_be_too_small_is_inconclusive() -> None:
    """Significant but below the minimum effect, with an interval that reaches it."""
    decision = judge([0.0] * 8 + [1.0] * 192, [1.0] * 200, min_effect=0.05)
    assert decision.verdict == "inconclusive"
    assert "is real" in decision.reasons[1]
    assert decision.n_needed is not None
    assert decision.n_needed > 200


def test_exactly_even_without_a_minimum_can_never_be_settled() -> None:
    """No number of examples shows an effect that is 0."""
    decision = judge([1.0] * 20 + [0.0] * 20, [1.0] * 20 + [0.0] * 20, min_effect=0.0)
    assert (decision.verdict, decision.n_needed) == ("inconclusive", None)


def test_graded_scores_are_bootstrapped() -> None:
    """A metric that is not right/wrong gets the paired bootstrap, and the same one for the same seed."""
    values = [(number * 37 % 11) / 20 for number in range(80)]
    decision = judge(values, [value + 0.2 for value in values], metric="rouge_l")
    assert (decision.verdict, decision.test) == ("promote", "paired bootstrap")
    assert decision.ci_low == pytest.approx(0.2)
    assert decision == judge(values, [value + 0.2 for value in values], metric="rouge_l")


def test_macro_f1_is_compared_as_a_whole() -> None:
    """A candidate that learns the rare label wins on macro F1, judged by its answers."""
    targets = ["common"] * 80 + ["rare"] * 20
    baseline = [prediction(n, None, target=t, answer="common") for n, t in enumerate(targets)]
    candidate = [prediction(n, None, target=t, answer=t.title()) for n, t in enumerate(targets)]
    for side in (baseline, candidate):
        for found in side:
            found.scores["macro_f1"] = float(found.answer.casefold() == found.target)
    decision = decide({"few_shot": baseline}, candidate, Task(metric="macro_f1"), Gate(), seed=0)
    assert (decision.verdict, decision.test, decision.candidate_value) == ("promote", "paired bootstrap", 1.0)
    assert decision.baseline_value == pytest.approx((2 * 80 / 180) / 2)


def test_the_best_rung_is_the_one_to_beat() -> None:
    """Whatever its place in the ladder; of equals the earlier one."""
    ladder = {"zero_shot": predictions([0.0] * 40), "few_shot": predictions([1.0] * 20 + [0.0] * 20)}
    decision = decide(ladder, predictions([1.0] * 40), Task(), Gate(), seed=0)
    assert (decision.baseline, decision.baseline_value) == ("few_shot", 0.5)
    even = {"zero_shot": predictions([0.0] * 40), "few_shot": predictions([0.0] * 40)}
    assert decide(even, predictions([1.0] * 40), Task(), Gate(), seed=0).baseline == "zero_shot"


def test_unscored_pairs_are_left_out_and_counted() -> None:
    """None is not 0, on either side."""
    decision = judge([None, 0.0, None, *[0.0] * 40], [1.0, None, None, *[1.0] * 40])
    assert (decision.n, decision.unscored, decision.baseline_value) == (40, 3, 0.0)
    assert "n = 40, 3 unscored" in decision.reasons[0]


@given(st.permutations(range(30)))
@settings(deadline=None, max_examples=10)
def test_pairs_are_matched_by_example_not_by_place(order: list[int]) -> None:
    """Shuffling one side's rows changes nothing."""
    baseline, candidate = predictions([0.0] * 15 + [1.0] * 15), predictions([1.0] * 20 + [0.0] * 10)
    straight = decide({"zero_shot": baseline}, candidate, Task(), Gate(), seed=0)
    assert decide({"zero_shot": [baseline[at] for at in order]}, candidate, Task(), Gate(), seed=0) == straight


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=120), st.floats(0, 0.2))
@settings(deadline=None, max_examples=60)
def test_verdicts_follow_the_table(pairs: list[tuple[bool, bool]], min_effect: float) -> None:
    """Each verdict holds exactly under its row of the table."""
    decision = judge([float(b) for b, _ in pairs], [float(c) for _, c in pairs], min_effect=min_effect)
    difference, low, high, p = decision.difference, decision.ci_low, decision.ci_high, decision.p_value
    assert None not in (difference, low, high, p)
    promoted = p < 0.05 and difference >= min_effect and low > 0  # type: ignore[operator]
    kept = high < min_effect or (p < 0.05 and difference < 0)  # type: ignore[operator]
    assert not (promoted and kept)
    assert decision.verdict == ("promote" if promoted else "keep_baseline" if kept else "inconclusive")
    if decision.n_needed is not None:
        assert decision.n_needed > decision.n


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [([0.0] * 3, [0.0] * 4), ([], [0.0])],
)
def test_different_examples_cannot_be_paired(baseline: list[float], candidate: list[float]) -> None:
    """The error says how many each answered."""
    with pytest.raises(DataError, match=f"zero_shot answered {len(baseline)} examples and the candidate {len(candidate)}"):
        judge(baseline, candidate)


def test_an_example_twice_cannot_be_paired() -> None:
    """A duplicate answer would count twice."""
    twice = [*predictions([1.0, 1.0]), prediction(0, 1.0)]
    with pytest.raises(DataError, match="on the same sealed holdout"):
        decide({"zero_shot": twice}, twice, Task(), Gate(), seed=0)


def test_nothing_to_compare_is_an_error() -> None:
    """No baseline, or no scored pair."""
    with pytest.raises(DataError, match="no baseline"):
        decide({}, predictions([1.0]), Task(), Gate(), seed=0)
    with pytest.raises(DataError, match="scores none of the 2"):
        judge([None, None], [None, None])


def test_training_is_worth_it_when_the_baseline_falls_short(spec: RunSpec) -> None:
    """Enough data and a weak baseline: no decision yet."""
    assert worth_training(50, 30, [evaluation("zero_shot", 0.94)], spec) is None
    assert worth_training(50, 30, [], spec) is None


def test_every_reason_not_to_train_is_given(spec: RunSpec) -> None:
    """Too little of both and a baseline at the target are all said at once, with their figures."""
    decision = worth_training(49, 29, [evaluation("zero_shot", 0.5), evaluation("few_shot", 0.97)], spec)
    assert decision is not None
    assert (decision.verdict, decision.baseline, decision.baseline_value, decision.n) == ("do_not_fine_tune", "few_shot", 0.97, 150)
    train, holdout, reached = decision.reasons
    assert "49 training examples; data.min_examples requires 50" in train
    assert "29 held-out examples; gate.min_holdout requires 30" in holdout
    assert "few_shot reaches exact_match 0.970 (95 % CI 0.920 to 0.990, n = 150) without training" in reached
    assert "+2.0 points" in reached
