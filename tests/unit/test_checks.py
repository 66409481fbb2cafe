"""What the gate weighs besides the gain: each kind of check at, beyond and within its limit, and what it does to the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.evaluation.gate import decide, decide_and_write, level_of_first
from prooftune.evaluation.gate.checks import Evidence, checks_of
from prooftune.evaluation.statistics import holm
from prooftune.evidence import BreakEven, Champion, Costs, Forgetting, General, JudgeReport, Option, Rival, Slice
from prooftune.spec import Gate, Task, parse_spec
from prooftune.types import Check, Decision, Example, Message, Prediction

Scores = dict[str, list[float]]


def answers(scores: Scores) -> list[Prediction]:
    """One answer a column, with its scores by metric."""
    texts = {"prompt": "", "target": "", "answer": ""}
    counts: Any = {"prompt_tokens": 1, "answer_tokens": 1, "finished": True, "latency_s": 0.0}
    columns = zip(*scores.values(), strict=True)
    return [
        Prediction(**texts, **counts, example_id=str(at), scores=dict(zip(scores, column, strict=True)))
        for at, column in enumerate(columns)
    ]


def right(count: int, n: int = 100) -> list[float]:
    """Scores of which the first ones are right."""
    return [1.0] * count + [0.0] * (n - count)


def judged(evidence: Evidence, *, candidate: int = 90, **rules: Any) -> Decision:
    """Let the gate decide on a candidate with so many of 100 right over a baseline with 60."""
    baselines = {"zero_shot": answers({"exact_match": right(60)})}
    return decide(baselines, answers({"exact_match": right(candidate)}), Task(), Gate.model_validate(rules), 1, evidence)


def one_slice(difference: float, p_value: float, *, value: str = "pay", guarded: bool = True) -> Slice:
    """A slice that fell or rose so much."""
    sides = {"baseline": 0.8, "baseline_low": 0.7, "baseline_high": 0.9, "candidate": 0.8 + difference}
    ends = {"candidate_low": 0.0, "candidate_high": 1.0, "ci_low": difference - 0.1, "ci_high": difference + 0.1}
    return Slice(column="product", value=value, n=40, difference=difference, p_value=p_value, guarded=guarded, **sides, **ends)


def part(name: str, change: float, p_value: float | None, unit: Any = "accuracy") -> General:
    """A part of the general suite."""
    return General(name=name, unit=unit, before=0.6, after=0.6 + change, change=change, ci_low=None, ci_high=None, p_value=p_value, n=200)


def judge(wins: int, losses: int, p_value: float, ties: int = 10) -> JudgeReport:
    """A judge's report."""
    counts = {"wins": wins, "losses": losses, "ties": ties, "unscored": 2, "contradictions": 1}
    return JudgeReport(
        judge="openai judge", rubric="", baseline="few_shot", win_rate=0.5, ci_low=0.4, ci_high=0.6, p_value=p_value, **counts
    )


def rival(holdout: Any, difference: float, p_value: float, n: int = 100) -> Rival:
    """The candidate against the champion on one holdout."""
    values = {"champion_value": 0.8, "candidate_value": 0.8 + difference, "difference": difference}
    ends = {"ci_low": difference - 0.1, "ci_high": difference + 0.1, "p_value": p_value}
    return Rival(holdout=holdout, holdout_sha256="0", metric="exact_match", n=n, seen=3, **values, **ends)


def costs(months: float | None, volume: int | None = 5000) -> Costs:
    """What a baseline and a candidate cost, and when the candidate is paid back."""
    money = {"hosting_usd_per_month": 0.0, "usd_per_1000_requests": 1.0, "prompt_tokens": 9.0, "answer_tokens": 9.0}
    options = (Option(name="few-shot", tuned=False, tuning_usd=0, **money), Option(name="candidate", tuned=True, tuning_usd=45, **money))
    saved = {"saving_usd_per_request": 0.1, "saving_usd_per_month": None, "requests": None, "months": months}
    found = BreakEven.model_validate({"option": "candidate", "against": "few-shot", **saved})
    facts: Any = {"training_usd": 45, "training_hours": 1, "priced_at": "2026-01-01"}
    return Costs(options=options, break_even=(found,), requests_per_month=volume, **facts)


def only(evidence: Evidence, **rules: Any) -> Check:
    """Return the single check there is."""
    [check] = checks_of(evidence, Gate.model_validate(rules))
    return check


@pytest.mark.parametrize(
    ("difference", "p_value", "passed"),
    [(0.1, 0.5, True), (-0.05, 0.001, True), (-0.8 + 0.75, 0.001, True), (-0.06, 0.2, None), (-0.06, 0.049, False)],
)
def test_a_slice_may_fall_to_the_limit_and_by_luck_beyond_it_settles_nothing(
    difference: float, p_value: float, passed: bool | None
) -> None:
    """At the limit it holds, bits of rounding included; beyond it is open until the fall is significant."""
    check = only(Evidence(slices=(one_slice(difference, p_value),)))
    assert (check.name, check.passed, check.limit, check.n) == ("slice product=pay", passed, -0.05, 40)
    assert "it may fall by 5 points." in check.text
    assert ("would settle it" in check.text, "no luck" in check.text) == (passed is None, passed is False)


def test_what_would_settle_a_slice_is_the_examples_that_show_its_fall() -> None:
    """At p = 0.2, z is 1.28: 2.80 of 5 % and 80 % power takes (2.80 / 1.28)² times as many."""
    check = only(Evidence(slices=(one_slice(-0.1, 0.2),)))
    assert "0.800 → 0.700 (-10.0 points, Holm-adjusted p = 0.2, n = 40)" in check.text
    assert "about 192 held-out examples of the slice would settle it" in check.text
    assert "luck: more held-out" in only(Evidence(slices=(one_slice(-0.1, 1.0),))).text


def test_slices_are_tested_together_and_only_the_guarded_ones() -> None:
    """Of two falls with p = 0.03, neither is shown: Holm makes them 0.06. A third, unguarded, is no condition and costs nothing."""
    both = (one_slice(-0.1, 0.03), one_slice(-0.1, 0.03, value="app"))
    checks = checks_of(Evidence(slices=(*both, one_slice(-0.5, 0.0001, value="rare", guarded=False))), Gate())
    assert [(check.passed, check.p_value) for check in checks] == [(None, 0.06), (None, 0.06)]


def test_what_has_no_limit_is_no_condition() -> None:
    """Null limits, a judge that does not decide, no champion, no measurement."""
    forgotten = Forgetting(parts=(part("multiple choice", -0.5, 0.001),))
    evidence = Evidence(slices=(one_slice(-0.5, 0.001),), forgetting=forgotten, judge=judge(1, 90, 0.001), champion=Champion(run_id=None))
    assert checks_of(evidence, Gate(max_slice_drop=None, max_forgetting=None)) == ()
    assert checks_of(Evidence(), Gate()) == ()


def test_forgetting_guards_the_wholes_and_lm_eval_but_no_topics() -> None:
    """Accuracy falls in points, perplexity rises in percent; a part without values by item can be open, never shown."""
    parts = (
        part("multiple choice", -0.1, 0.001),
        part("perplexity", -0.06, 0.04, "nats_per_token"),
        part("multiple choice: science", -0.9, 0.0001),
        part("lm-eval: arc_easy", -0.2, None),
        part("lm-eval: piqa", 0.0, None),
    )
    checks = checks_of(Evidence(forgetting=Forgetting(parts=parts)), Gate())
    assert [(check.name, check.passed) for check in checks] == [
        ("forgetting, multiple choice", False),
        ("forgetting, perplexity", False),
        ("forgetting, lm-eval: arc_easy", None),
        ("forgetting, lm-eval: piqa", True),
    ]
    assert [check.p_value for check in checks] == [0.002, 0.04, None, None]
    assert "nats per token (perplexity +6.0 %, Holm-adjusted p = 0.04, n = 200); it may rise by 5 %" in checks[1].text


@pytest.mark.parametrize(("report", "passed"), [(judge(9, 30, 0.001), False), (judge(9, 12, 0.6), True), (judge(30, 9, 0.001), True)])
def test_the_judge_must_not_prefer_the_baseline(report: JudgeReport, passed: bool) -> None:
    """Only a preference that is shown counts, and only against the candidate."""
    assert only(Evidence(judge=report, judge_decides=True)).passed is passed


def test_a_judge_that_decides_must_have_judged() -> None:
    """No report, or not one scored pair: open."""
    assert only(Evidence(judge_decides=True)).passed is None
    assert only(Evidence(judge=judge(0, 0, 1.0, ties=0), judge_decides=True)).passed is None


@pytest.mark.parametrize(
    ("difference", "p_value", "passed"),
    [(0.03, 0.4, True), (0.0, 1.0, True), (-0.01, 0.4, None), (-0.03, 0.4, None), (-0.01, 0.01, False), (-0.2, 0.01, False)],
)
def test_the_champion_must_not_be_better(difference: float, p_value: float, passed: bool | None) -> None:
    """Shown to be worse by anything is a violation; worse without proof is open, or champions would drift down one by one."""
    checks = checks_of(
        Evidence(champion=Champion(run_id="r", rivals=(rival("old", difference, p_value), rival("new", 0.1, 0.001)))), Gate()
    )
    assert [(check.name, check.passed) for check in checks] == [("champion, old holdout", passed), ("champion, new holdout", True)]


@pytest.mark.parametrize(
    ("found", "passed"),
    [(costs(2.0), True), (costs(3.0), True), (costs(3.1), False), (costs(None), False), (costs(None, None), None), (None, None)],
)
def test_tuning_must_be_paid_back_in_time(found: Costs | None, passed: bool | None) -> None:
    """In time, late, never; open where volume or money are not known."""
    check = only(Evidence(costs=found), max_payback_months=3)
    assert (check.name, check.passed) == ("payback", passed)


def test_a_violated_check_keeps_the_baseline_however_large_the_gain() -> None:
    """The verdict names the check and says its figures."""
    evidence = Evidence(slices=(one_slice(-0.2, 0.001),))
    assert judged(Evidence()).verdict == "promote"
    decision = judged(evidence)
    assert decision.verdict == "keep_baseline"
    assert decision.reasons[-1].startswith("slice product=pay: 0.800 → 0.600 (-20.0 points")
    assert decision.checks == checks_of(evidence, Gate())
    assert judged(evidence, candidate=62).verdict == "keep_baseline"


def test_an_open_check_makes_a_gain_inconclusive() -> None:
    """It says what would settle it, and leaves the other verdicts as they are."""
    evidence = Evidence(slices=(one_slice(-0.2, 0.2),))
    decision = judged(evidence)
    assert (decision.verdict, decision.n_needed) == ("inconclusive", None)
    assert "would settle it" in decision.reasons[-1]
    assert judged(evidence, candidate=40).verdict == "keep_baseline"
    assert judged(evidence, candidate=62).reasons == judged(Evidence(), candidate=62).reasons


def test_a_check_that_holds_changes_nothing_but_is_listed() -> None:
    """Whoever reads the decision sees what was weighed."""
    decision = judged(Evidence(slices=(one_slice(0.1, 0.001),)))
    assert decision.verdict == "promote"
    assert decision.reasons == judged(Evidence()).reasons
    assert [check.passed for check in decision.checks] == [True]


def with_further(gained: int, further: Scores, **rules: Any) -> Decision:
    """Let the gate decide on a candidate with so many more right than 60 of 100, and with further metrics against all right."""
    names = tuple(further)
    before = answers({"exact_match": right(60), **{name: right(100) for name in names}})
    after = answers({"exact_match": right(60 + gained), **further})
    return decide({"zero_shot": before}, after, Task(), Gate.model_validate({"metrics": names, **rules}), 1)


def test_a_further_metric_that_is_shown_to_be_worse_keeps_the_baseline() -> None:
    """Fifteen of a hundred lost are no luck, even with three metrics tested together."""
    decision = with_further(30, {"json_valid": right(85), "label_accuracy": right(100)})
    assert decision.verdict == "keep_baseline"
    assert [(check.name, check.passed) for check in decision.checks] == [("metric json_valid", False), ("metric label_accuracy", True)]
    assert decision.reasons[-1].startswith("metric json_valid: 1.000 → 0.850 (-15.0 points")


def test_further_metrics_share_alpha_with_the_gain() -> None:
    """Six gained and none lost is p = 0.031: enough alone, too little beside a metric that shows nothing; Holm gives all back."""
    assert with_further(6, {}).verdict == "promote"
    shared = with_further(6, {"json_valid": right(99)})
    assert (shared.verdict, shared.alpha) == ("inconclusive", 0.025)
    assert "97.5 % CI" in shared.reasons[0]
    after_rejection = with_further(6, {"json_valid": right(80)})
    assert after_rejection.alpha == 0.05
    assert after_rejection.verdict == "keep_baseline"


def test_the_gains_own_metric_is_not_tested_twice() -> None:
    """Naming task.metric in gate.metrics costs nothing."""
    before, after = answers({"exact_match": right(60)}), answers({"exact_match": right(66)})
    decision = decide({"zero_shot": before}, after, Task(), Gate(metrics=("exact_match",)), 1)
    assert (decision.verdict, decision.alpha, decision.checks) == ("promote", 0.05, ())


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=6), st.sampled_from([0.05, 0.0125]))
def test_the_gains_level_is_holms(p_values: list[float], alpha: float) -> None:
    """The first p-value is below its level exactly where Holm's adjusted one is below alpha."""
    level, adjusted = level_of_first(p_values, alpha), holm(p_values)[0]
    assert alpha / len(p_values) <= level <= alpha
    if abs(adjusted - alpha) > 1e-9:
        assert (p_values[0] < level) == (adjusted < alpha)


def test_a_look_has_its_own_level_and_says_so() -> None:
    """The decision carries look and level, and its interval is as wide as that level asks."""
    whole, look = judged(Evidence()), judged(Evidence(look=2, alpha=0.0125))
    assert (look.look, look.alpha, whole.look, whole.alpha) == (2, 0.0125, 1, 0.05)
    assert whole.ci_low is not None
    assert look.ci_low is not None
    assert look.ci_low < whole.ci_low
    assert "98.8 % CI" in look.reasons[0]


def test_the_power_of_the_spec_sets_what_would_settle_a_gain() -> None:
    """More power takes more examples."""
    usual, sure = judged(Evidence(), candidate=63), judged(Evidence(), candidate=63, power=0.95)
    assert usual.n_needed is not None
    assert sure.n_needed is not None
    assert sure.n_needed > usual.n_needed
    assert "(95 % power)" in sure.reasons[-1]


def test_the_decision_is_written_with_its_slices(tmp_path: Path) -> None:
    """Slices come from the holdout's metadata, the other evidence from what was weighed."""
    turns = (Message(role="user", content="?"), Message(role="assistant", content=""))
    holdout = tmp_path / "holdout.jsonl"
    rows = [Example(id=str(at), source="x", messages=turns, metadata={"product": "pay" if at < 50 else "app"}) for at in range(100)]
    write_lines(holdout, rows)
    before, after = answers({"exact_match": right(60)}), answers({"exact_match": [0.0] * 20 + [1.0] * 80})
    rules = {"task": {"slices": ["product"]}, "gate": {"max_payback_months": 1}, "use": {"requests_per_month": 5000}}
    spec = parse_spec({"name": "x", "data": {"source": "x"}, **rules})
    weighed = {"costs": costs(9.0), "look": 2, "alpha": 0.025}
    figures = decide_and_write({"zero_shot": before}, after, holdout, spec, weighed, tmp_path)
    decision = Decision.model_validate_json((tmp_path / "decision.json").read_bytes())
    assert figures == {"decision": decision.model_dump(mode="json")}
    assert (decision.verdict, decision.look) == ("keep_baseline", 2)
    assert {check.name: check.passed for check in decision.checks} == {
        "slice product=app": True,
        "slice product=pay": False,
        "payback": False,
    }
    assert [found["value"] for found in json.loads((tmp_path / "slices.json").read_text())] == ["app", "pay"]


def test_a_champion_must_be_met_on_both_holdouts() -> None:
    """A holdout without an example that is new to both leaves the gain open and is named; of equal holdouts one is enough."""
    assert judged(Evidence(champion=Champion(run_id=None))).verdict == "promote"
    decision = judged(Evidence(champion=Champion(run_id="toy-1")))
    assert decision.verdict == "inconclusive"
    assert [(check.name, check.passed) for check in decision.checks] == [("champion, old holdout", None), ("champion, new holdout", None)]
    new = (rival("new", 0.1, 0.001),)
    decision = judged(Evidence(champion=Champion(run_id="toy-1", rivals=new)))
    assert decision.verdict == "inconclusive"
    assert [(check.name, check.passed) for check in decision.checks] == [("champion, old holdout", None), ("champion, new holdout", True)]
    assert "toy-1 was not met on the old holdout: no example is left" in decision.reasons[-1]
    same = judged(Evidence(champion=Champion(run_id="toy-1", rivals=new, same_holdout=True)))
    assert (same.verdict, [check.name for check in same.checks]) == ("promote", ["champion, new holdout"])


def test_a_champion_on_few_examples_is_reported_and_no_condition() -> None:
    """Nineteen examples neither block a promotion nor cost the other holdout a part of alpha; twenty count."""
    few = Champion(run_id="r", rivals=(rival("old", -0.2, 0.04, n=19), rival("new", 0.1, 0.04)))
    old, new = checks_of(Evidence(champion=few), Gate())
    assert (old.passed, old.p_value, old.n, new.p_value) == (True, None, 19, 0.04)
    assert "fewer than the 20 of gate.min_slice" in old.text
    enough = Champion(run_id="r", rivals=(rival("old", -0.2, 0.02, n=20), rival("new", 0.1, 0.04)))
    assert [check.passed for check in checks_of(Evidence(champion=enough), Gate())] == [False, True]
