"""What the gate weighs besides the gain: slices, forgetting, judge, champion, money and further metrics, each as a ``Check``.

A fall is judged as the gain is: it is *shown* where the test of "no difference" rejects, and it is *too large* where the estimate is beyond
the limit.

===================  ================================================  ==========================================  =====================
check                False, which keeps the baseline                   None, which makes a gain inconclusive       tested together (Holm)
===================  ================================================  ==========================================  =====================
slice, forgetting    shown, and larger than the limit                  larger than the limit, not shown            all slices; all parts
champion             shown, however small                              any, not shown; or not met on a holdout     old and new holdout
judge                prefers the baseline, shown                       not one pair scored                         alone
payback              later than allowed, or never                      not known                                   no test
further metric       shown, however small                              never                                       with the gain itself
===================  ================================================  ==========================================  =====================

To ask instead that no fall beyond the limit be *possible* (non-inferiority) would take thousands of examples a slice. A check can only
cost a promotion, so all but the further metrics are tested at the whole ``gate.alpha``. What has no limit is no condition. Slices and
champion's holdouts with fewer than ``gate.min_slice`` examples are reported, not guarded: there even a large fall is luck.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prooftune.evaluation.gate.comparison import Comparison
from prooftune.evaluation.statistics import holm
from prooftune.evidence import Champion, Costs, Forgetting, General, JudgeReport, Rival, Slice
from prooftune.spec import Gate
from prooftune.types import Check

Which = Literal["old", "new"]
"""The holdout that the champion was promoted on, or the candidate's."""
GUARDED_PARTS = ("multiple choice", "perplexity")
"""Parts of the general suite with a limit, beside those of lm-eval; their topics are too small for one."""
_ROUNDING = 1e-9
"""A fall of exactly the limit is allowed, whatever the last bits of a difference of two means."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the decision rests on besides the answers to the holdout; what was not measured is left out."""

    slices: tuple[Slice, ...] = ()
    forgetting: Forgetting | None = None
    judge: JudgeReport | None = None
    judge_decides: bool = False
    """Whether the judge's preference is a condition (``judge.decides``)."""
    champion: Champion | None = None
    costs: Costs | None = None
    look: int = 1
    """Which of training's checkpoints this is, counted from the best by validation loss."""
    alpha: float | None = None
    """This look's share of ``gate.alpha``; None = all of it."""


def checks_of(evidence: Evidence, gate: Gate) -> tuple[Check, ...]:
    """Return the conditions on slices, forgetting, the judge, the champion and the money that the spec sets."""
    return (
        *_slice_checks([found for found in evidence.slices if found.guarded], gate),
        *_forgetting_checks(evidence.forgetting, gate),
        *([_judge_check(evidence.judge, gate.alpha)] if evidence.judge_decides else []),
        *_champion_checks(evidence.champion, gate),
        *([] if gate.max_payback_months is None else [_payback_check(evidence.costs, gate.max_payback_months)]),
    )


def metric_checks(further: Mapping[str, Comparison], adjusted: Sequence[float], alpha: float) -> tuple[Check, ...]:
    """Return the conditions that further metrics are not shown to be worse; ``adjusted`` are their p-values in the gain's family."""
    return tuple(
        Check(
            name=f"metric {name}",
            passed=_passed(compared.difference, p_value, alpha, shown_beyond=0.0, beyond=math.inf),
            text=f"{_change(compared.baseline_value, compared.candidate_value, compared.difference, p_value, compared.n)}; "
            "it must not be shown to be worse.",
            difference=compared.difference,
            ci_low=compared.ci_low,
            ci_high=compared.ci_high,
            p_value=p_value,
            limit=0.0,
            n=compared.n,
        )
        for (name, compared), p_value in zip(further.items(), adjusted, strict=True)
    )


def points(share: float) -> str:
    """Return a difference in points, with its sign."""
    return f"{100 * share:+.1f}"


def p_text(value: float) -> str:
    """Return a p-value in words."""
    return f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"


def _passed(difference: float, p_value: float | None, alpha: float, *, shown_beyond: float, beyond: float) -> bool | None:
    """Return the table's verdict on a difference, where positive is better."""
    if p_value is not None and p_value < alpha and difference < -shown_beyond - _ROUNDING:
        return False
    return None if difference < -beyond - _ROUNDING else True


def _slice_checks(slices: Sequence[Slice], gate: Gate) -> list[Check]:
    if (limit := gate.max_slice_drop) is None:
        return []
    adjusted = holm([found.p_value for found in slices])
    return [_slice_check(found, p_value, limit, gate) for found, p_value in zip(slices, adjusted, strict=True)]


def _slice_check(found: Slice, p_value: float, limit: float, gate: Gate) -> Check:
    passed = _passed(found.difference, p_value, gate.alpha, shown_beyond=limit, beyond=limit)
    change = _change(found.baseline, found.candidate, found.difference, p_value, found.n)
    return Check(
        name=f"slice {found.column}={found.value}",
        passed=passed,
        text=f"{change}; it may fall by {100 * limit:g} points.{_open(passed, p_value, found.n, gate, 'held-out examples of the slice')}",
        difference=found.difference,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p_value=p_value,
        limit=-limit,
        n=found.n,
    )


def _forgetting_checks(forgetting: Forgetting | None, gate: Gate) -> list[Check]:
    if forgetting is None or (limit := gate.max_forgetting) is None:
        return []
    parts = [part for part in forgetting.parts if part.name in GUARDED_PARTS or part.name.startswith("lm-eval")]
    tested = holm([part.p_value for part in parts if part.p_value is not None])
    adjusted = iter(tested)
    checks = [_forgetting_check(part, None if part.p_value is None else next(adjusted), limit, gate) for part in parts]
    if (why := forgetting.not_measured.get("multiple choice")) is not None:
        checks.append(Check(name="forgetting, multiple choice", passed=None, text=f"Not measured: {why}"))
    return checks


def _forgetting_check(part: General, p_value: float | None, limit: float, gate: Gate) -> Check:
    passed = _passed(part.change, p_value, gate.alpha, shown_beyond=limit, beyond=limit)
    if part.unit == "accuracy":
        change = _change(part.before, part.after, part.change, p_value, part.n)
        change += f", {part.unscored} unscored" if part.unscored else ""
        allowed = f"it may fall by {100 * limit:g} points"
    else:
        tested = "" if p_value is None else f", Holm-adjusted {p_text(p_value)}"
        change = f"{part.before:.3f} → {part.after:.3f} nats per token (perplexity {-100 * part.change:+.1f} %{tested}, n = {part.n})"
        allowed = f"it may rise by {100 * limit:g} %"
    settled = _open(passed, p_value, part.n, gate, "items of its kind")
    if passed and part.unscored > part.n:
        passed, settled = None, " Most questions have no score, so this shows nothing."
    return Check(
        name=f"forgetting, {part.name}",
        passed=passed,
        text=f"{change}; {allowed}.{settled}",
        difference=part.change,
        ci_low=part.ci_low,
        ci_high=part.ci_high,
        p_value=p_value,
        limit=-limit,
        n=part.n,
    )


def _judge_check(judge: JudgeReport | None, alpha: float) -> Check:
    scored = 0 if judge is None else judge.wins + judge.losses + judge.ties
    if not scored or judge is None or judge.win_rate is None or judge.ci_low is None or judge.ci_high is None:
        unknown = (
            "There is no verdict of a judge, and judge.decides requires one: set judge.model to one whose verdicts can be read, "
            "or judge.decides: false."
        )
        return Check(name="judge", passed=None, text=unknown)
    return Check(
        name="judge",
        passed=_passed(judge.wins - judge.losses, judge.p_value, alpha, shown_beyond=0.0, beyond=math.inf),
        text=f"{judge.judge} prefers the candidate in {judge.wins} pairs, the baseline in {judge.losses}, neither in {judge.ties} "
        f"(win rate {judge.win_rate:.3f}, {p_text(judge.p_value)}); it must not be shown to prefer the baseline.",
        difference=judge.win_rate - 0.5,
        ci_low=judge.ci_low - 0.5,
        ci_high=judge.ci_high - 0.5,
        p_value=judge.p_value,
        limit=0.0,
        n=scored,
    )


def _champion_checks(champion: Champion | None, gate: Gate) -> list[Check]:
    if champion is None or champion.run_id is None:
        return []
    if champion.reason:
        return [Check(name="champion", passed=None, text=f"The champion {champion.run_id} could not be met: {champion.reason}")]
    guarded = [rival for rival in champion.rivals if rival.n >= gate.min_slice]
    adjusted = iter(holm([rival.p_value for rival in guarded]))
    checks = {rival.holdout: _champion_check(rival, next(adjusted) if rival in guarded else None, gate) for rival in champion.rivals}
    asked: tuple[Which, ...] = ("new",) if champion.same_holdout else ("old", "new")
    return [checks.get(holdout) or _not_met(champion.run_id, holdout) for holdout in asked]


def _not_met(champion: str, holdout: Which) -> Check:
    remedy = {"old": "keep the champion's holdout out of the training data", "new": "label new examples"}[holdout]
    return Check(
        name=f"champion, {holdout} holdout",
        passed=None,
        text=f"The champion {champion} was not met on the {holdout} holdout: no example is left of it that the metric scores and that "
        f"neither of the two was trained on; {remedy}.",
    )


def _champion_check(rival: Rival, p_value: float | None, gate: Gate) -> Check:
    """Return the condition that a holdout of the champion's makes; without a p-value it has too few examples to be one."""
    change = _change(rival.champion_value, rival.candidate_value, rival.difference, p_value, rival.n)
    passed: bool | None = True
    rule = f"fewer than the {gate.min_slice} of gate.min_slice, so this is reported and no condition."
    if p_value is not None:
        passed = _passed(rival.difference, p_value, gate.alpha, shown_beyond=0.0, beyond=0.0)
        settled = _open(passed, p_value, rival.n, gate, "examples that neither was trained on")
        rule = f"it must be at least the champion's, or champions would drift down one by one.{settled}"
    return Check(
        name=f"champion, {rival.holdout} holdout",
        passed=passed,
        text=f"{rival.metric} {change}; {rule}",
        difference=rival.difference,
        ci_low=rival.ci_low,
        ci_high=rival.ci_high,
        p_value=p_value,
        limit=None if p_value is None else 0.0,
        n=rival.n,
    )


def _payback_check(costs: Costs | None, limit: float) -> Check:
    """Return whether the candidate, the first tuned option, is paid back in time against the best baseline as it is served now."""
    candidate = next((option for option in costs.options if option.tuned), None) if costs else None
    found = next((pair for pair in costs.break_even if candidate and pair.option == candidate.name), None) if costs else None
    allowed = f"gate.max_payback_months allows {limit:g}"
    if costs is None or candidate is None or found is None:
        return Check(
            name="payback", passed=None, text=f"{allowed}, but what the best baseline costs is not known; give prices in use.prices."
        )
    if candidate.tuning_usd is None:
        return Check(name="payback", passed=None, text=f"{allowed}, but what tuning cost is not known: nobody tells.")
    if costs.requests_per_month is None:
        return Check(name="payback", passed=None, text=f"{allowed}, but the volume is not known; set use.requests_per_month.")
    paid = "is never paid back" if found.months is None else f"is paid back after {found.months:.1f} months"
    at = f"at {costs.requests_per_month:,} requests a month"
    passed = found.months is not None and found.months <= limit
    return Check(name="payback", passed=passed, text=f"{found.option} {paid} against {found.against} {at}; {allowed}.")


def _change(before: float, after: float, difference: float, p_value: float | None, n: int) -> str:
    tested = "" if p_value is None else f", Holm-adjusted {p_text(p_value)}"
    return f"{before:.3f} → {after:.3f} ({points(difference)} points{tested}, n = {n})"


def _open(passed: bool | None, p_value: float | None, n: int, gate: Gate, what: str) -> str:
    """Say what is wrong with a check that does not hold, and what would settle one that is open."""
    if passed is not None:
        return "" if passed else " That is no luck."
    needed = _n_to_show(p_value, n, gate)
    settled = "more" if needed is None else f"about {needed:,}"
    return f" That could be luck: {settled} {what} would settle it."


def _n_to_show(p_value: float | None, n: int, gate: Gate) -> int | None:
    """Return how many examples would show the observed fall with ``gate.power``: a test statistic grows with the root of their number."""
    from scipy.stats import norm

    if p_value is None or (observed := float(norm.isf(p_value / 2))) <= 0:
        return None
    wanted = float(norm.isf(gate.alpha / 2) + norm.ppf(gate.power))
    return max(n + 1, math.ceil(n * (wanted / observed) ** 2))
