"""The gate: each verdict and its reasons, and that no order, tie or missing score slips through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError
from prooftune.evaluation.gate import check_gate_metrics, decide, worth_training
from prooftune.evaluation.metrics import BUILT_IN, score
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


def evaluation(name: str, value: float, n: int = 150) -> Evaluation:
    """A contestant with one metric."""
    return Evaluation(
        name=name,
        description="",
        metrics={"exact_match": Metric(name="exact_match", value=value, ci_low=value - 0.05, ci_high=value + 0.02, n=n)},
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


def test_a_gain_below_the_minimum_is_promoted_as_long_as_the_minimum_is_not_excluded() -> None:
    """Significant, observed below the minimum effect: the interval decides, and the reason says which it was."""
    compatible = judge([0.0] * 8 + [1.0] * 192, [1.0] * 200, min_effect=0.05)
    assert compatible.verdict == "promote"
    assert "+4.0 points over zero_shot, the best baseline, is significant and below the 5 required, but compatible" in compatible.reasons[1]
    assert "the interval reaches +7.7." in compatible.reasons[1]
    excluded = judge([0.0] * 8 + [1.0] * 192, [1.0] * 200, min_effect=0.08)
    assert excluded.verdict == "keep_baseline"
    assert "Even the top of the interval, +7.7 points, is below the 8" in excluded.reasons[1]


def test_an_equal_candidate_is_told_how_many_examples_really_settle_it() -> None:
    """Tango's interval without a differing pair ends at z² / (n + z²): with the n that is said it excludes the minimum, with fewer not."""
    decision = judge([1.0] * 100, [1.0] * 100)
    assert (decision.verdict, decision.n_needed) == ("inconclusive", math.ceil(1.959964**2 * 0.98 / 0.02))
    needed = decision.n_needed or 0
    assert judge([1.0] * needed, [1.0] * needed).verdict == "keep_baseline"
    just_short = judge([1.0] * (needed - 1), [1.0] * (needed - 1))
    assert (just_short.verdict, just_short.n_needed) == ("inconclusive", needed)


def test_few_gained_pairs_need_enough_to_differ() -> None:
    """Four gained and none lost of forty: no exact test is below 5 % with fewer than six differing pairs, which sixty examples have."""
    assert judge([0.0] * 4 + [1.0] * 36, [1.0] * 40, power=0.5).n_needed == 60
    assert judge([0.5] * 40, [0.9] * 4 + [0.5] * 36, metric="rouge_l", power=0.5).n_needed == 60


def test_the_first_way_to_settle_it_counts() -> None:
    """A gain just below the minimum is shown to be one long before it is shown to be below the minimum."""
    decision = judge([0.0] * 20 + [1.0] * 130, [1.0] * 20 + [0.0] * 18 + [1.0] * 112)
    assert decision.verdict == "inconclusive"
    assert decision.difference == pytest.approx(2 / 150)
    effect, share = 2 / 150, 38 / 150
    gain = math.ceil(((1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - effect**2)) / effect) ** 2)
    assert decision.n_needed == pytest.approx(gain, abs=1)


def test_too_few_scored_pairs_settle_nothing() -> None:
    """``gate.min_holdout`` counts pairs that are scored; a gain on fewer is no promotion, and the reason says what to do."""
    side = [None] * 30
    decision = judge([*[0.0] * 29, *side], [*[1.0] * 29, *side])
    assert (decision.verdict, decision.n, decision.n_needed) == ("inconclusive", 29, 30)
    assert "Only 29 held-out examples of 59 (the metric does not apply" in decision.reasons[1]
    assert "gate.min_holdout requires 30" in decision.reasons[1]
    assert "set task.metric to one that scores them" in decision.reasons[1]
    assert judge([*[0.0] * 30, *side], [*[1.0] * 30, *side]).verdict == "promote"


def test_exactly_even_without_a_minimum_can_never_be_settled() -> None:
    """No number of examples shows an effect that is 0."""
    decision = judge([1.0] * 20 + [0.0] * 20, [1.0] * 20 + [0.0] * 20, min_effect=0.0)
    assert "could be luck" in decision.reasons[1]
    assert (decision.verdict, decision.n_needed) == ("inconclusive", None)


def test_graded_scores_are_tested_by_permutation() -> None:
    """A metric that is not right/wrong gets the paired permutation test, and the same one for the same seed."""
    values = [(number * 37 % 11) / 20 for number in range(80)]
    decision = judge(values, [value + 0.2 for value in values], metric="rouge_l")
    assert (decision.verdict, decision.test) == ("promote", "paired permutation")
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
    assert (decision.verdict, decision.test, decision.candidate_value) == ("promote", "paired permutation", 1.0)
    assert decision.baseline_value == pytest.approx((2 * 80 / 180) / 2)


def test_the_best_rung_is_the_one_to_beat() -> None:
    """Whatever its place in the ladder; of equals the earlier one."""
    ladder = {"zero_shot": predictions([0.0] * 40), "few_shot": predictions([1.0] * 20 + [0.0] * 20)}
    decision = decide(ladder, predictions([1.0] * 40), Task(), Gate(), seed=0)
    assert (decision.baseline, decision.baseline_value) == ("few_shot", 0.5)
    even = {"zero_shot": predictions([0.0] * 40), "few_shot": predictions([0.0] * 40)}
    assert decide(even, predictions([1.0] * 40), Task(), Gate(), seed=0).baseline == "zero_shot"


def test_unscored_pairs_are_left_out_and_counted() -> None:
    """None is not 0."""
    decision = judge([None, None, *[0.0] * 40], [None, None, *[1.0] * 40])
    assert (decision.n, decision.unscored, decision.baseline_value) == (40, 2, 0.0)
    assert "n = 40, 2 unscored" in decision.reasons[0]


@pytest.mark.parametrize(("baseline", "candidate"), [(None, 1.0), (0.0, None)])
def test_no_contestant_may_drop_a_question(baseline: float | None, candidate: float | None) -> None:
    """A pair with one unscored answer is an error that names the example, not a pair less."""
    with pytest.raises(DataError, match=r"not the other on 1 of 41 held-out pairs, such as 0{16}; .* return 0 for a bad answer"):
        judge([baseline, *[0.0] * 40], [candidate, *[1.0] * 40])


@given(st.sampled_from(sorted(BUILT_IN)), st.text(max_size=20), st.sampled_from(["7", "a", '{"a": 1}', "[1]", ""]) | st.text(max_size=20))
@settings(deadline=None, max_examples=150)
def test_no_metric_of_ours_lets_a_contestant_drop_a_question(metric: str, answer: str, target: str) -> None:
    """Whether an answer is scored depends on the target alone."""
    task = Task(json_schema={"type": "object"}, pattern="a+", metric=metric)
    assert (score(metric, answer, target, task) is None) == (score(metric, target, target, task) is None)


def test_a_metric_that_scores_no_target_is_found_before_training() -> None:
    """Each is named with its field; one target that is scored is enough."""
    task = Task(metric="numeric_tolerance")
    with pytest.raises(DataError, match=r"none of the 2 held-out targets can be scored by json_field_accuracy \(gate.metrics\); name"):
        check_gate_metrics(["7", "8"], task, Gate(metrics=("json_field_accuracy", "exact_match")))
    with pytest.raises(DataError, match=r"json_field_accuracy \(gate.metrics\), numeric_tolerance \(task.metric\)"):
        check_gate_metrics(["a", "b"], task, Gate(metrics=("json_field_accuracy",)))
    check_gate_metrics(["a", '{"a": 1}', "7"], task, Gate(metrics=("json_field_accuracy",)))


@given(st.permutations(range(30)))
@settings(deadline=None, max_examples=10)
def test_pairs_are_matched_by_example_not_by_place(order: list[int]) -> None:
    """Shuffling one side's rows changes nothing."""
    baseline, candidate = predictions([0.0] * 15 + [1.0] * 15), predictions([1.0] * 20 + [0.0] * 10)
    straight = decide({"zero_shot": baseline}, candidate, Task(), Gate(), seed=0)
    assert decide({"zero_shot": [baseline[at] for at in order]}, candidate, Task(), Gate(), seed=0) == straight


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=10, max_size=120), st.floats(0, 0.2))
@settings(deadline=None, max_examples=60)
def test_verdicts_follow_the_table(pairs: list[tuple[bool, bool]], min_effect: float) -> None:
    """Each verdict holds exactly under its row of the table."""
    decision = judge([float(b) for b, _ in pairs], [float(c) for _, c in pairs], min_effect=min_effect)
    difference, low, high, p = decision.difference, decision.ci_low, decision.ci_high, decision.p_value
    assert None not in (difference, low, high, p)
    enough = decision.n >= 30
    promoted = enough and p < 0.05 and high >= min_effect and low > 0  # type: ignore[operator]
    kept = enough and (high < min_effect or (p < 0.05 and difference < 0))  # type: ignore[operator]
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


def test_only_scored_examples_count_for_the_holdout(spec: RunSpec) -> None:
    """Where baselines have run, what the metric scores is known."""
    assert worth_training(50, 60, [evaluation("zero_shot", 0.5, n=30)], spec) is None
    decision = worth_training(50, 60, [evaluation("zero_shot", 0.5, n=29)], spec)
    assert decision is not None
    assert "29 held-out examples that exact_match scores, of 60; gate.min_holdout requires 30" in decision.reasons[0]


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
