"""Looks whether the champion does worse than its published evaluation says: by production's feedback, and by asking the holdout again.

Both are measured against the lower end of the champion's published interval, so that the error of that evaluation is allowed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from prooftune.errors import DataError
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.types import Metric
from prooftune.watching.looks import (
    WEEK,
    InUse,
    Logged,
    Look,
    Quiet,
    champion_in_use,
    in_time,
    published_metric,
    read_log,
    recent,
    stamp,
    week_of,
)
from prooftune.watching.nightly import newest_evaluation
from prooftune.watching.signals import Signal

UNREAD = "feedback_cannot_be_read"
"""Figure of a look that could not look at the feedback."""


def look_at_quality(store: ObjectStore, spec: RunSpec, now: datetime) -> Look:
    """Say whether feedback, or the holdout asked again, shows that the champion has dropped below its interval.

    A drop that lasts is one occurrence a champion and ISO week.

    Raises:
        StoreUnavailable, TransientError: the store or the feedback cannot be reached.
        NoSuchObject, IntegrityError: the champion's run is gone or damaged.
    """
    champion = champion_in_use(store, spec.name)
    if champion is None:
        return Quiet(kind="quality", reason="there is no champion yet")
    published = published_metric(store, champion.run_id, spec.task.metric)
    if published is None:
        return Quiet(kind="quality", reason=f"the champion {champion.run_id} was never evaluated by {spec.task.metric}")
    told = [_by_feedback(spec, champion, published, now), _by_holdout(store, spec, champion, published, now)]
    figures: dict[str, Any] = {"champion": champion.run_id, "published": published.value, "ci_low": published.ci_low}
    figures |= {name: value for _, _, found in told for name, value in found.items()}
    drops = [text for dropped, text, _ in told if dropped]
    if not drops:
        trouble = any(UNREAD in found for _, _, found in told)
        return Quiet(kind="quality", reason="; ".join(text for _, text, _ in told), figures=figures, trouble=trouble)
    digest = f"{champion.run_id}-{week_of(now)}"
    return Signal(kind="quality", task=spec.name, digest=digest, reason="; ".join(drops), at=stamp(now), figures=figures)


def drop_p(scores: Sequence[float], least: float) -> float:
    """Return the p-value that the mean of scores in [0, 1] is at least ``least``, valid however often one looks while they come in.

    A gambler bets on each score being below ``least``, a stake that depends on the earlier scores alone. If the mean is not below it, no
    way of staking makes the capital grow on average, and it ever reaches ``1 / alpha`` with chance at most alpha (Ville, 1939): p is one
    over the largest capital reached. No distribution is assumed, and three bad answers prove nothing. Stakes: approximate GRAPA.
    Source: Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting, https://doi.org/10.1093/jrsssb/qkad009.
    """
    boldest = 0.5 / max(1 - least, 0.01)  # one score can take half of the capital
    capital = largest = 1.0
    total, spread = 0.5, 0.25  # the paper's prior: one score of 1/2 with variance 1/4
    for seen, score in enumerate(scores, start=1):
        mean, variance = total / seen, spread / seen
        stake = (least - mean) / (variance + (least - mean) ** 2)
        capital *= 1 + min(max(stake, 0.0), boldest) * (least - score)
        largest = max(largest, capital)
        total += score
        spread += (score - total / (seen + 1)) ** 2
    return 1 / largest


def scores_of(rows: Sequence[Logged]) -> list[float]:
    """Return the scores between 0 and 1 among the rows, in their order."""
    values = [row.fields.get("score") for row in rows]
    return [float(value) for value in values if isinstance(value, int | float) and 0 <= value <= 1]


def _by_feedback(spec: RunSpec, champion: InUse, published: Metric, now: datetime) -> tuple[bool, str, dict[str, Any]]:
    """Return whether feedback shows a drop, what it says, and the figures."""
    source, least = spec.watch.feedback, spec.watch.min_feedback
    if source is None:
        return False, "no watch.feedback is kept", {}
    try:
        rows, unreadable = read_log(source)
    except DataError as error:
        return False, f"no feedback can be read: {error.message}", {UNREAD: True}
    timed = list(in_time(rows))
    counted = [row for row in timed if scores_of([row])]
    unreadable += len(rows) - len(counted)
    scores = scores_of(recent(counted, now, champion.since, least))
    figures: dict[str, Any] = {"feedback": len(scores), "feedback_unreadable": unreadable}
    if len(scores) < least:
        return False, f"{len(scores)} scored answers since the champion came into use; watch.min_feedback is {least}", figures
    mean, p = fmean(scores), drop_p(scores, published.ci_low)
    figures |= {"feedback_mean": mean, "feedback_p": p}
    text = (
        f"feedback on {len(scores):,} answers averages {mean:.3f}; the champion's {spec.task.metric} is {published.value:.3f}, at least "
        f"{published.ci_low:.3f} (p = {p:.3g})"
    )
    return mean < published.ci_low and p <= spec.gate.alpha, text, figures


def _by_holdout(store: ObjectStore, spec: RunSpec, champion: InUse, published: Metric, now: datetime) -> tuple[bool, str, dict[str, Any]]:
    """Return whether the newest nightly evaluation of the week shows a drop, what it says, and the figures."""
    found = newest_evaluation(store, spec.name, champion.run_id)
    if found is None or now - found.at > WEEK:
        return False, "the holdout was not asked again in the last 7 days", {}
    figures = {"holdout_value": found.value, "holdout_p": found.p_value, "holdout_n": found.n, "holdout_at": stamp(found.at)}
    text = (
        f"asked again on {found.at:%Y-%m-%d}, the holdout gives {found.metric} {found.value:.3f} instead of {found.published.value:.3f} "
        f"(n = {found.n}, p = {found.p_value:.3g})"
    )
    dropped = found.metric == published.name and found.value < published.ci_low and found.p_value <= spec.gate.alpha
    return dropped, text, figures
