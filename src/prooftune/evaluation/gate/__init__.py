"""The gate: whether training is worth its while, and whether the candidate replaces the best prompt-only baseline.

Both contestants answered the same held-out examples, so everything is paired. The candidate meets the *best* rung of the ladder; choosing
it on the holdout favours the baseline, which is the safe side.

==================  =================================================================================================
verdict             when
==================  =================================================================================================
do_not_fine_tune    before training: a baseline reaches ``task.target``, or there is too little data to train or judge
promote             p < alpha, the interval lies above 0 and reaches ``gate.min_effect``, and every check holds
keep_baseline       the interval ends below ``gate.min_effect``, the candidate is significantly worse, or a check is violated
inconclusive        anything else, with the number of held-out examples that would settle it; fewer than ``gate.min_holdout`` are scored
==================  =================================================================================================

A gain is promoted where it is shown, and one of ``gate.min_effect`` is not excluded. Were the *observed* gain to reach it as well, a true
gain of just ``gate.min_effect`` would be promoted half the time, however many examples there are; so it is with the stated power.

The gain and the further metrics of ``gate.metrics`` are one family (Holm): alpha is what the gain is left with in it, and its interval has
that level. What else the gate weighs, and how, is said in ``checks``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prooftune.errors import DataError
from prooftune.evaluation.gate.checks import Evidence, checks_of, metric_checks, p_text, points
from prooftune.evaluation.gate.comparison import Comparison, Pair, compare, pair_up, value_on
from prooftune.evaluation.gate.slices import slices_of
from prooftune.evaluation.metrics import score
from prooftune.evaluation.statistics import holm, n_needed
from prooftune.spec import Gate, RunSpec, Task
from prooftune.types import Check, Decision, Evaluation, Prediction, Verdict

__all__ = ["Evidence", "check_gate_metrics", "decide", "decide_and_write", "worth_training"]


def check_gate_metrics(targets: Sequence[str], task: Task, gate: Gate) -> None:
    """Check that what the gate will test can be scored on the held-out targets, before anything is prompted or trained.

    Raises:
        DataError: a metric of ``gate.metrics``, or ``task.metric``, scores none of the targets; all such metrics are named.
    """
    fields = dict.fromkeys(gate.metrics, "gate.metrics") | {task.metric: "task.metric"}
    silent = [name for name in fields if all(score(name, target, target, task) is None for target in targets)]
    if silent:
        named = ", ".join(f"{name} ({fields[name]})" for name in silent)
        raise DataError(f"none of the {len(targets)} held-out targets can be scored by {named}; name metrics that apply to the targets")


def worth_training(n_train: int, n_holdout: int, baselines: Sequence[Evaluation], spec: RunSpec) -> Decision | None:
    """Return ``do_not_fine_tune`` with every reason there is, or None when training is worth its while.

    Where baselines have run, the held-out examples that count are those that the metric scores.
    """
    metric = spec.task.metric
    n_scored = min((baseline.metrics[metric].n for baseline in baselines), default=None)
    reasons = [
        *_too_little(n_train, n_holdout, n_scored, spec),
        *(_good_enough(baseline, spec.task) for baseline in baselines if baseline.metrics[metric].value >= spec.task.target),
    ]
    if not reasons:
        return None
    best = max(baselines, key=lambda baseline: baseline.metrics[metric].value, default=None)
    return Decision(
        verdict="do_not_fine_tune",
        reasons=tuple(reasons),
        metric=metric,
        baseline=best.name if best else None,
        baseline_value=best.metrics[metric].value if best else None,
        n=best.metrics[metric].n if best else n_holdout,
        unscored=best.metrics[metric].unscored if best else 0,
    )


def decide(
    baselines: Mapping[str, Sequence[Prediction]],
    candidate: Sequence[Prediction],
    task: Task,
    gate: Gate,
    seed: int,
    evidence: Evidence = Evidence(),  # noqa: B008 - frozen
) -> Decision:
    """Return the verdict on the candidate against the best baseline, by the table above.

    ``baselines`` come in the order of the ladder: of two rungs that are equally good the earlier one counts.

    Raises:
        DataError: there is no baseline, the contestants answered different examples, or a metric scores none of them, or one side only.
    """
    pairs = {name: pair_up(name, answers, candidate) for name, answers in baselines.items()}
    best = _best_rung(baselines, task)
    compared, alpha, of_metrics = _compare(pairs[best], task, gate, gate.alpha if evidence.alpha is None else evidence.alpha, seed)
    checks = (*of_metrics, *checks_of(evidence, gate))
    of_gain, why = _verdict(compared, gate, alpha, best)
    verdict, objections = _after_checks(of_gain, checks)
    open_gain = verdict == of_gain == "inconclusive"
    needed = _examples_needed(compared, gate, alpha) if open_gain else None
    settled = [_settled_by(needed, gate.power)] if open_gain else []
    return Decision(
        verdict=verdict,
        reasons=(_figures(task.metric, compared, alpha), why, *settled, *objections),
        metric=task.metric,
        baseline=best,
        baseline_value=compared.baseline_value,
        candidate_value=compared.candidate_value,
        difference=compared.difference,
        ci_low=compared.ci_low,
        ci_high=compared.ci_high,
        p_value=compared.p_value,
        test=compared.test,
        n=compared.n,
        unscored=compared.unscored,
        n_needed=needed,
        checks=checks,
        alpha=alpha,
        look=evidence.look,
    )


def decide_and_write(
    baselines: Mapping[str, Sequence[Prediction]],
    candidate: Sequence[Prediction],
    holdout: Path,
    spec: RunSpec,
    weighed: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Decide by the spec, the slices of ``task.slices`` among the evidence; return the decision as figures.

    ``weighed`` holds the other fields of ``Evidence``, as far as they were measured. Writes ``decision.json`` and ``slices.json``.

    Raises:
        DataError: as ``decide``, or no held-out example has a column of ``task.slices``.
    """
    task, seed = spec.task, spec.data.split.seed
    best = _best_rung(baselines, task)
    slices = slices_of(baselines[best], candidate, holdout, task, spec.gate, seed) if task.slices else ()
    evidence = Evidence(**weighed, slices=slices, judge_decides=spec.judge.decides)
    decision = decide(baselines, candidate, task, spec.gate, seed, evidence)
    (out / "decision.json").write_text(decision.model_dump_json(indent=2) + "\n", encoding="utf-8")
    rows = [found.model_dump(mode="json") for found in slices]
    (out / "slices.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"decision": decision.model_dump(mode="json")}


def level_of_first(p_values: Sequence[float], alpha: float) -> float:
    """Return the level that Holm's procedure tests the first hypothesis at: alpha shared among it and all not rejected before it.

    The first p-value is below it exactly where its adjusted one is below alpha.
    """
    first, *others = p_values
    rejected = sum(adjusted < alpha and p < first for adjusted, p in zip(holm(p_values)[1:], others, strict=True))
    return alpha / (len(p_values) - rejected)


def _too_little(n_train: int, n_holdout: int, n_scored: int | None, spec: RunSpec) -> list[str]:
    reasons = []
    if n_train < (required := spec.data.min_examples):
        reasons.append(f"There are {n_train} training examples; data.min_examples requires {required}. Collect more.")
    usable = n_holdout if n_scored is None else min(n_holdout, n_scored)
    if usable < (required := spec.gate.min_holdout):
        scored = "" if usable == n_holdout else f" that {spec.task.metric} scores, of {n_holdout}"
        reasons.append(
            f"There are {usable} held-out examples{scored}; gate.min_holdout requires {required}, because no result could be told from "
            "luck. Collect more, or raise data.split.holdout."
        )
    return reasons


def _good_enough(baseline: Evaluation, task: Task) -> str:
    found = baseline.metrics[task.metric]
    return (
        f"The baseline {baseline.name} reaches {found.name} {found.value:.3f} (95 % CI {found.ci_low:.3f} to {found.ci_high:.3f}, "
        f"n = {found.n}) without training, {points(found.value - task.target)} points from the target {task.target:g}: "
        "prompting is enough."
    )


def _best_rung(baselines: Mapping[str, Sequence[Prediction]], task: Task) -> str:
    if not baselines:
        raise DataError("the gate got no baseline; at least one rung of baseline.ladder must have run")
    return max(baselines, key=lambda name: value_on(task.metric, baselines[name], task))


def _compare(pairs: Sequence[Pair], task: Task, gate: Gate, alpha: float, seed: int) -> tuple[Comparison, float, tuple[Check, ...]]:
    """Return the gain, the level that it is tested at, and the checks on the further metrics."""
    compared = compare(task.metric, pairs, task, alpha=alpha, seed=seed)
    further = {name: compare(name, pairs, task, alpha=alpha, seed=seed) for name in gate.metrics if name != task.metric}
    p_values = [compared.p_value, *(found.p_value for found in further.values())]
    if (level := level_of_first(p_values, alpha)) < alpha:
        compared = compare(task.metric, pairs, task, alpha=level, seed=seed)
    return compared, level, metric_checks(further, holm(p_values)[1:], alpha)


def _verdict(compared: Comparison, gate: Gate, alpha: float, baseline: str) -> tuple[Verdict, str]:
    gain, required = points(compared.difference), f"{100 * gate.min_effect:g}"
    if compared.n < gate.min_holdout:
        return "inconclusive", _too_few_scored(compared, gate)
    significant = compared.p_value < alpha
    if significant and compared.ci_low > 0 and compared.ci_high >= gate.min_effect:
        compatible = f"below the {required} required, but compatible with them: the interval reaches {points(compared.ci_high)}"
        size = f"at least the {required} required" if compared.difference >= gate.min_effect else compatible
        return "promote", f"The gain of {gain} points over {baseline}, the best baseline, is significant and {size}."
    if significant and compared.difference < 0:
        return "keep_baseline", f"The candidate is significantly worse than {baseline}, the best baseline ({gain} points)."
    if compared.ci_high < gate.min_effect:
        most = points(compared.ci_high)
        return "keep_baseline", f"Even the top of the interval, {most} points, is below the {required} that gate.min_effect requires."
    if significant:
        lowest = points(compared.ci_low)
        return (
            "inconclusive",
            f"The gain of {gain} points over {baseline} is significant, but its interval starts at {lowest}, not above 0.",
        )
    return "inconclusive", f"The difference of {gain} points to {baseline}, the best baseline, could be luck at alpha = {alpha:.3g}."


def _too_few_scored(compared: Comparison, gate: Gate) -> str:
    unscored = f" of {compared.n + compared.unscored} (the metric does not apply to the targets of the others)" if compared.unscored else ""
    return (
        f"Only {compared.n} held-out examples{unscored} are scored; gate.min_holdout requires {gate.min_holdout}, because no result could "
        "be told from luck. Collect more, raise data.split.holdout, or set task.metric to one that scores them."
    )


def _after_checks(verdict: Verdict, checks: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """Return the verdict that the checks leave of the gain's, and the sentences of those that count against it."""
    violated = [f"{check.name}: {check.text}" for check in checks if check.passed is False]
    if violated:
        return "keep_baseline", violated
    unsettled = [f"{check.name}: {check.text}" for check in checks if check.passed is None]
    return ("inconclusive", unsettled) if verdict == "promote" and unsettled else (verdict, [])


def _examples_needed(compared: Comparison, gate: Gate, alpha: float) -> int | None:
    """Return the scored examples that would settle it at the observed effect: that show it to differ from 0, or to be below the required.

    The first of the two settles it. An effect that is large enough can only be shown to differ from 0.
    """
    ways = [_to_show_a_difference(compared, gate, alpha)]
    if (missing := gate.min_effect - compared.difference) > 0:
        ways.append(n_needed(missing, compared.sd, null_sd=compared.sd_at(gate.min_effect), alpha=alpha, power=gate.power))
    found = [way for way in ways if way is not None]
    return max(min(found), compared.n + 1, gate.min_holdout) if found else None


def _to_show_a_difference(compared: Comparison, gate: Gate, alpha: float) -> int | None:
    """Return Connor's number, or more where it has too few differing pairs: with m of them no exact paired test gets below 2 ** (1 - m)."""
    needed = n_needed(compared.difference, compared.sd, null_sd=compared.null_sd, alpha=alpha, power=gate.power)
    if needed is None:
        return None
    differing = math.floor(1 - math.log2(alpha)) + 1
    return max(needed, math.ceil(differing * compared.n / compared.differing))


def _settled_by(needed: int | None, power: float) -> str:
    if needed is None:
        return "The difference is so close to what is to be shown that no number of held-out examples in reach would settle it."
    return f"About {needed:,} held-out examples would settle it, if the effect is what was observed ({100 * power:g} % power)."


def _figures(metric: str, compared: Comparison, alpha: float) -> str:
    unscored = f", {compared.unscored} unscored" if compared.unscored else ""
    return (
        f"{metric} {compared.baseline_value:.3f} → {compared.candidate_value:.3f} ({points(compared.difference)} points, "
        f"{100 * (1 - alpha):.3g} % CI {points(compared.ci_low)} to {points(compared.ci_high)}, {compared.test} "
        f"{p_text(compared.p_value)}, n = {compared.n}{unscored})"
    )
