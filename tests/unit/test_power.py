"""Power before spending: the effect that a holdout shows, the holdout that an effect takes, and the sentence that says both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.evaluation.gate import power as planning
from prooftune.evaluation.gate.power import detectable_effect, examples_for, power_text
from prooftune.evaluation.statistics import bootstrap, bootstrap_p, mcnemar_power, mean_of
from prooftune.spec import Gate

sizes, scores = st.integers(40, 800), st.floats(0.05, 0.7)


@given(sizes, scores, st.sampled_from([0.05, 0.0125]), st.sampled_from([0.0, 0.02, 0.05]))
@settings(deadline=None, max_examples=40)
def test_the_detectable_effect_has_the_power_and_hardly_more(n: int, baseline: float, alpha: float, min_effect: float) -> None:
    """Independent contestants with that gain pass just as often as asked, and with a slightly smaller one less often."""
    effect = detectable_effect(n, baseline, alpha=alpha, power=0.8, min_effect=min_effect)
    assert effect is not None

    def power(gain: float) -> float:
        candidate = baseline + gain
        return mcnemar_power(n, (1 - baseline) * candidate, baseline * (1 - candidate), alpha=alpha, least=min_effect)

    assert power(effect) >= 0.8
    assert power(effect - 1e-4) < 0.8


@given(sizes, scores, st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_contestants_that_agree_more_have_more_power(n: int, baseline: float, agreement: float) -> None:
    """Independence is the safe assumption: the fewer pairs are lost for the same gain, the likelier it is seen."""
    effect = detectable_effect(n, baseline, alpha=0.05, power=0.8)
    assert effect is not None
    lost = (1 - agreement) * baseline * (1 - baseline - effect)
    assert mcnemar_power(n, lost + effect, lost) >= 0.799


@given(sizes, scores)
@settings(deadline=None, max_examples=30)
def test_effect_and_examples_are_each_others_inverse(n: int, baseline: float) -> None:
    """The smallest effect that n examples show takes no more than n examples, and one a tenth smaller takes more."""
    effect = detectable_effect(n, baseline, alpha=0.05, power=0.8)
    assert effect is not None
    needed = examples_for(effect, baseline, alpha=0.05, power=0.8)
    assert needed is not None
    assert 0.95 * n <= needed <= n
    assert (examples_for(0.9 * effect, baseline, alpha=0.05, power=0.8) or 0) > n


@given(st.sampled_from([0.05, 0.1]), st.floats(0.3, 0.8), st.sampled_from([0.7, 0.8, 0.9]))
@settings(deadline=None, max_examples=20)
def test_the_minimum_effect_passes_on_the_holdout_that_is_said_to_show_it(effect: float, baseline: float, power: float) -> None:
    """The interval's condition costs nothing there, and little on a holdout ten times as large, where smaller gains do not pass."""
    needed = examples_for(effect, baseline, alpha=0.05, power=power, min_effect=effect)
    assert needed is not None
    assert needed == examples_for(effect, baseline, alpha=0.05, power=power)

    def passed(n: int, gain: float) -> float:
        candidate = baseline + gain
        return mcnemar_power(n, (1 - baseline) * candidate, baseline * (1 - candidate), alpha=0.05, least=effect)

    assert power <= passed(needed, effect) < power + 0.02
    assert passed(10 * needed, effect) >= 0.97
    assert passed(10 * needed, effect / 3) < 0.05


def test_smaller_levels_and_higher_powers_take_more() -> None:
    """Alpha's share and the power both cost examples."""
    usual = examples_for(0.05, 0.6, alpha=0.05, power=0.8)
    assert usual is not None
    assert usual < (examples_for(0.05, 0.6, alpha=0.0125, power=0.8) or 0)
    assert usual < (examples_for(0.05, 0.6, alpha=0.05, power=0.9) or 0)


def test_what_cannot_be_seen_is_none() -> None:
    """No room above the baseline, too small a holdout, no effect, or one that takes more than a million examples."""
    assert detectable_effect(60, 1.0, alpha=0.05, power=0.8) is None
    assert detectable_effect(12, 0.9, alpha=0.05, power=0.8) is None
    assert examples_for(0.1, 0.95, alpha=0.05, power=0.8) is None
    assert examples_for(0.0, 0.5, alpha=0.05, power=0.8) is None
    assert examples_for(0.0001, 0.5, alpha=0.05, power=0.8) is None


def test_graded_scores_have_at_least_the_power_of_right_and_wrong() -> None:
    """Scores between 0 and 1 vary less than all-or-nothing ones of the same mean: the bootstrap finds the effect more often."""
    n, baseline = 80, 0.5
    effect = detectable_effect(n, baseline, alpha=0.05, power=0.8)
    assert effect is not None
    rng = np.random.default_rng(2)
    found = 0
    for study in range(200):
        before, after = (rng.beta(2 * mean, 2 * (1 - mean), size=n) for mean in (baseline, baseline + effect))
        draws = bootstrap(mean_of(list(after - before)), n, resamples=400, seed=study)
        found += bootstrap_p(draws, n) < 0.05 and after.mean() > before.mean()
    assert found / 200 >= 0.9


def test_the_level_is_what_holm_and_the_looks_leave() -> None:
    """Three metrics share alpha, and the first of several looks has half of it."""
    assert planning.tested_at(Gate()) == 0.05
    assert planning.tested_at(Gate(metrics=("json_valid", "macro_f1"))) == pytest.approx(0.05 / 3)
    assert planning.tested_at(Gate(metrics=("json_valid",), looks=3)) == pytest.approx(0.05 / 4)


def test_the_sentence_says_what_is_seen_and_what_to_label() -> None:
    """Both figures are those of the functions."""
    seen, needed = detectable_effect(120, 0.8, alpha=0.05, power=0.8), examples_for(0.02, 0.8, alpha=0.05, power=0.8)
    assert seen is not None
    assert needed is not None
    assert power_text(120, 0.8, Gate()) == (
        f"With 120 holdout examples you can only see gains over {100 * seen:.1f} points (80 % power); "
        f"to see the 2 points of gate.min_effect label {needed - 120:,} more."
    )


@pytest.mark.parametrize(
    ("n", "baseline", "rules", "said"),
    [
        (12, 0.95, {}, "cannot see any gain over 0.950, not even to perfect answers (80 % power); to see"),
        (120, 0.99, {}, "the 2 points of gate.min_effect do not fit above 0.990."),
        (13_000, 0.6, {"power": 0.9}, "over 2.0 points (90 % power), which takes in the 2 points of gate.min_effect."),
        (13_000, 0.6, {"power": 0.99}, "no number of examples in reach shows the 2 points of gate.min_effect"),
        (120, 0.6, {"min_effect": 0.0}, "gains over 17.5 points (80 % power)."),
        (120, 0.6, {"min_effect": 0.0001}, "no number of examples in reach shows the 0.01 points"),
    ],
)
def test_the_sentence_is_honest_at_the_edges(n: int, baseline: float, rules: dict[str, float], said: str) -> None:
    """Nothing to see, no room, enough already, nothing required, out of reach."""
    assert said in power_text(n, baseline, Gate.model_validate(rules))
