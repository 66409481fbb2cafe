"""Looks whether production's prompts have drifted away from those that the champion was trained on.

Two views of it: the population stability index of plain features, which says what has changed, and the distance between the mean
embeddings, which sees what no feature names. Prompts are only counted and embedded; none is stored or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from prooftune.data import pii
from prooftune.errors import DataError
from prooftune.models.resolve import resolve_model
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.watching.drift import embedding_drift, feature_drift
from prooftune.watching.looks import InUse, Look, Quiet, champion_in_use, in_time, read_log, recent, stamp, trained_on, week_of
from prooftune.watching.signals import Signal


def look_at_inputs(store: ObjectStore, spec: RunSpec, now: datetime) -> Look:
    """Say whether the traffic's prompts have drifted; a drift that lasts is one occurrence a champion and ISO week.

    Personal data are redacted from the traffic where they were from the training data, or they would be the drift.

    Raises:
        StoreUnavailable, TransientError: the store or the traffic cannot be reached.
        NoSuchObject, IntegrityError: the champion's run is gone or damaged.
        ModelUnavailable: ``baseline.embedding`` cannot be loaded.
    """
    source, least = spec.watch.traffic, spec.watch.min_traffic
    if source is None:
        return Quiet(kind="drift", reason="no watch.traffic is kept")
    champion = champion_in_use(store, spec.name)
    if champion is None:
        return Quiet(kind="drift", reason="there is no champion yet")
    try:
        rows, _ = read_log(source)
        training = _training_prompts(champion)
    except DataError as error:
        return Quiet(kind="drift", reason=error.message, trouble=True)
    counted = [row for row in in_time(rows, default=now) if isinstance(row.fields.get("prompt"), str)]
    redacted = champion.spec.data.pii != "allow"
    prompts = [_as_trained(str(row.fields["prompt"]), redacted) for row in recent(counted, now, champion.since, least)]
    figures: dict[str, Any] = {"champion": champion.run_id, "prompts": len(prompts), "training_prompts": len(training)}
    if len(prompts) < least or not training:
        return Quiet(
            kind="drift",
            reason=f"{len(prompts)} prompts since the champion came into use; watch.min_traffic is {least}",
            figures=figures,
        )
    return _said(spec, champion, training, prompts, figures, now)


def _said(spec: RunSpec, champion: InUse, training: Sequence[str], prompts: Sequence[str], figures: dict[str, Any], now: datetime) -> Look:
    embedding = spec.baseline.embedding
    folder = None if embedding is None else resolve_model(embedding, None, False).path
    found = [
        *feature_drift(training, prompts, spec.watch.max_psi),
        embedding_drift(training, prompts, folder, spec.watch.max_embedding_distance, seed=spec.data.split.seed),
    ]
    figures |= {one.name: round(one.value, 4) for one in found} | {f"{one.name}_limit": round(one.limit, 4) for one in found}
    drifted = [one for one in found if one.value > one.limit]
    told = "; ".join(f"{one.text} {one.value:.3f}, allowed {one.limit:.3f}" for one in drifted or found)
    if not drifted:
        return Quiet(kind="drift", reason=f"{len(prompts):,} prompts are like the training's: {told}", figures=figures)
    digest = f"{champion.run_id}-{week_of(now)}"
    reason = f"{len(prompts):,} prompts differ from the training's: {told}"
    return Signal(kind="drift", task=spec.name, digest=digest, reason=reason, at=stamp(now), figures=figures)


def _training_prompts(champion: InUse) -> list[str]:
    """Return what users say in the champion's training examples."""
    examples = trained_on(champion.file("train.openai.jsonl"))
    return ["\n".join(message.content for message in example.prompt if message.role == "user") for example in examples]


def _as_trained(prompt: str, redacted: bool) -> str:
    return pii.redact(prompt)[0] if redacted else prompt
