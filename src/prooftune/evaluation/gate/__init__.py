"""The gate: whether training is worth its while, and whether the candidate replaces the best prompt-only baseline.

Both contestants answered the same held-out examples, so everything is paired. The candidate meets the *best* rung of the ladder; choosing
it on the holdout favours the baseline, which is the safe side.

==================  =================================================================================================
verdict             when
==================  =================================================================================================
do_not_fine_tune    before training: a baseline reaches ``task.target``, or there is too little data to train or judge
promote             p < alpha, difference ≥ ``gate.min_effect``, the interval lies above 0, and every check holds
keep_baseline       the interval lies below ``gate.min_effect``, the candidate is significantly worse, or a check is violated
inconclusive        anything else, with the number of held-out examples that would settle it
==================  =================================================================================================

The gain and the further metrics of ``gate.metrics`` are one family (Holm): alpha is what the gain is left with in it, and its interval has
that level. What else the gate weighs, and how, is said in ``checks``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prooftune.errors import DataError
from prooftune.evaluation.gate.checks import Evidence, checks_of, metric_checks, p_text, points
from prooftune.evaluation.gate.comparison import Comparison, Pair, compare, pair_up, value_on
from prooftune.evaluation.gate.slices import slices_of
from prooftune.evaluation.statistics import holm, n_needed
from prooftune.spec import Gate, RunSpec, Task
from prooftune.types import Check, Decision, Evaluation, Prediction, Verdict

__all__ = ["Evidence", "decide", "decide_and_write", "worth_training"]


def worth_training(n_train: int, n_holdout: int, baselines: Sequence[Evaluation], spec: RunSpec) -> Decision | None:
    """Return ``do_not_fine_tune`` with every reason there is, or None when training is worth its while."""
    metric = spec.task.metric
    reasons = [
        *_too_little(n_train, n_holdout, spec),
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
    """Return the verdict on the candidate against the best baseline (the earlier one where two are equal), by the table above.

    Raises:
        DataError: there is no baseline, the contestants answered different examples, or a metric scores none of them.
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


def _too_little(n_train: int, n_holdout: int, spec: RunSpec) -> list[str]:
    reasons = []
    if n_train < (required := spec.data.min_examples):
        reasons.append(f"There are {n_train} training examples; data.min_examples requires {required}. Collect more.")
    if n_holdout < (required := spec.gate.min_holdout):
        reasons.append(
            f"There are {n_holdout} held-out examples; gate.min_holdout requires {required}, because no result could be told from luck. "
            "Collect more, or raise data.split.holdout."
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
    significant = compared.p_value < alpha
    if significant and compared.difference >= gate.min_effect and compared.ci_low > 0:
        return (
            "promote",
            f"The gain of {gain} points over {baseline}, the best baseline, is significant and at least the {required} required.",
        )
    if significant and compared.difference < 0:
        return "keep_baseline", f"The candidate is significantly worse than {baseline}, the best baseline ({gain} points)."
    if compared.ci_high < gate.min_effect:
        most = points(compared.ci_high)
        return "keep_baseline", f"Even the top of the interval, {most} points, is below the {required} that gate.min_effect requires."
    if significant and compared.difference > 0:
        return (
            "inconclusive",
            f"The gain of {gain} points over {baseline} is real, but whether it is the {required} required is not settled.",
        )
    return "inconclusive", f"The difference of {gain} points to {baseline}, the best baseline, could be luck at alpha = {alpha:.3g}."


def _after_checks(verdict: Verdict, checks: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """Return the verdict that the checks leave of the gain's, and the sentences of those that count against it."""
    violated = [f"{check.name}: {check.text}" for check in checks if check.passed is False]
    if violated:
        return "keep_baseline", violated
    unsettled = [f"{check.name}: {check.text}" for check in checks if check.passed is None]
    return ("inconclusive", unsettled) if verdict == "promote" and unsettled else (verdict, [])


def _examples_needed(compared: Comparison, gate: Gate, alpha: float) -> int | None:
    """Return the examples that would show the observed effect to differ from 0, or, where it is too small, from the one required."""
    if compared.difference >= gate.min_effect:
        needed = n_needed(compared.difference, compared.sd, null_sd=compared.null_sd, alpha=alpha, power=gate.power)
    else:
        needed = n_needed(gate.min_effect - compared.difference, compared.sd, alpha=alpha, power=gate.power)
    # The exact test asks for a little more than the normal formula behind n_needed where few pairs differ.
    return None if needed is None else max(needed, compared.n + 1)


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
