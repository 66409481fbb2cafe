"""The gate: whether training is worth its while, and whether the candidate replaces the best prompt-only baseline.

Both contestants answered the same held-out examples, so everything is paired. The candidate meets the *best* rung of the ladder; choosing
it on the holdout favours the baseline, which is the safe side.

==================  =================================================================================================
verdict             when
==================  =================================================================================================
do_not_fine_tune    before training: a baseline reaches ``task.target``, or there is too little data to train or judge
promote             p < alpha, difference ≥ ``gate.min_effect`` and the interval lies above 0
keep_baseline       the interval lies below ``gate.min_effect``, or the candidate is significantly worse
inconclusive        anything else, with the number of held-out examples that would settle it
==================  =================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from prooftune.errors import DataError
from prooftune.evaluation.comparison import Comparison, compare, pair_up
from prooftune.evaluation.metrics import value_of
from prooftune.evaluation.statistics import POWER, n_needed
from prooftune.spec import Gate, RunSpec, Task
from prooftune.types import Decision, Evaluation, Prediction, Verdict


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


def decide(baselines: Mapping[str, Sequence[Prediction]], candidate: Sequence[Prediction], task: Task, gate: Gate, seed: int) -> Decision:
    """Return the verdict on the candidate against the best baseline (the earlier one where two are equal), by the table above.

    Raises:
        DataError: there is no baseline, the contestants answered different examples, or none of them is scored.
    """
    if not baselines:
        raise DataError("the gate got no baseline; at least one rung of baseline.ladder must have run")
    best = max(baselines, key=lambda name: _value(baselines[name], task.metric))
    compared = compare(task.metric, pair_up(best, baselines[best], candidate), alpha=gate.alpha, seed=seed)
    verdict, why = _verdict(compared, gate, best)
    needed = _examples_needed(compared, gate) if verdict == "inconclusive" else None
    return Decision(
        verdict=verdict,
        reasons=(_figures(task.metric, compared, gate.alpha), why, *([_settled_by(needed)] if verdict == "inconclusive" else [])),
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
    )


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
        f"n = {found.n}) without training, {_points(found.value - task.target)} points from the target {task.target:g}: "
        "prompting is enough."
    )


def _value(predictions: Sequence[Prediction], metric: str) -> float:
    if metric == "macro_f1":
        return value_of(metric, [prediction.answer for prediction in predictions], [prediction.target for prediction in predictions])
    scored = [score for prediction in predictions if (score := prediction.scores.get(metric)) is not None]
    return fmean(scored) if scored else 0.0  # a contestant without any score is refused by compare


def _verdict(compared: Comparison, gate: Gate, baseline: str) -> tuple[Verdict, str]:
    gain, required = _points(compared.difference), f"{100 * gate.min_effect:g}"
    significant = compared.p_value < gate.alpha
    if significant and compared.difference >= gate.min_effect and compared.ci_low > 0:
        return (
            "promote",
            f"The gain of {gain} points over {baseline}, the best baseline, is significant and at least the {required} required.",
        )
    if significant and compared.difference < 0:
        return "keep_baseline", f"The candidate is significantly worse than {baseline}, the best baseline ({gain} points)."
    if compared.ci_high < gate.min_effect:
        most = _points(compared.ci_high)
        return "keep_baseline", f"Even the top of the interval, {most} points, is below the {required} that gate.min_effect requires."
    if significant and compared.difference > 0:
        return (
            "inconclusive",
            f"The gain of {gain} points over {baseline} is real, but whether it is the {required} required is not settled.",
        )
    return "inconclusive", f"The difference of {gain} points to {baseline}, the best baseline, could be luck at alpha = {gate.alpha:g}."


def _examples_needed(compared: Comparison, gate: Gate) -> int | None:
    """Return the examples that would show the observed effect to differ from 0, or, where it is too small, from the one required."""
    if compared.difference >= gate.min_effect:
        needed = n_needed(compared.difference, compared.sd, null_sd=compared.null_sd, alpha=gate.alpha)
    else:
        needed = n_needed(gate.min_effect - compared.difference, compared.sd, alpha=gate.alpha)
    # The exact test asks for a little more than the normal formula behind n_needed where few pairs differ.
    return None if needed is None else max(needed, compared.n + 1)


def _settled_by(needed: int | None) -> str:
    if needed is None:
        return "The difference is so close to what is to be shown that no number of held-out examples in reach would settle it."
    return f"About {needed:,} held-out examples would settle it, if the effect is what was observed ({100 * POWER:g} % power)."


def _figures(metric: str, compared: Comparison, alpha: float) -> str:
    unscored = f", {compared.unscored} unscored" if compared.unscored else ""
    return (
        f"{metric} {compared.baseline_value:.3f} → {compared.candidate_value:.3f} ({_points(compared.difference)} points, "
        f"{100 * (1 - alpha):g} % CI {_points(compared.ci_low)} to {_points(compared.ci_high)}, {compared.test} {_p(compared.p_value)}, "
        f"n = {compared.n}{unscored})"
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"
