"""Looks when the champion's base model is shut down by its provider, or tuned there no more."""

from __future__ import annotations

from datetime import date, datetime

from prooftune.providers.tuning import open_tuner
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.watching.looks import Look, Quiet, champion_in_use, stamp
from prooftune.watching.signals import Signal


def look_at_models(store: ObjectStore, spec: RunSpec, now: datetime) -> Look:
    """Say whether a managed champion's base model ends within ``watch.sunset_days``; without a champion, that of the spec.

    Raises:
        StoreUnavailable, TransientError: the store or the provider cannot be reached.
        EnvironmentLacks: the provider's key or SDK is not there.
    """
    champion = champion_in_use(store, spec.name)
    made_with = champion.spec if champion else spec
    backend, whose = made_with.backend, champion.run_id if champion else "the spec"
    figures: dict[str, object] = {"of": whose, "provider": backend.provider, "model": backend.model}
    if not backend.managed:
        return Quiet(kind="sunset", reason=f"{backend.model} lies on this machine: nobody shuts it down", figures=figures)
    found = open_tuner(backend.provider, made_with.provider).probe(backend.model, backend.objective)
    ends = {"is shut down": found.shutdown, "takes no new tuning job": found.last_job}
    figures |= {"shutdown": _iso(found.shutdown), "last_job": _iso(found.last_job), "told": found.why}
    dated = sorted((day, what) for what, day in ends.items() if day is not None)
    named = f"{backend.provider} {backend.model}, base model of {whose},"
    if not dated:
        return Quiet(kind="sunset", reason=f"{backend.provider} names no last day of {backend.model}", figures=figures)
    day, what = dated[0]
    left = (day - now.date()).days
    if left > spec.watch.sunset_days:
        return Quiet(kind="sunset", reason=f"{named} {what} on {day}, in {left} days", figures=figures)
    when = f"on {day}, in {left} days" if left >= 0 else f"since {day}"
    reason = f"{named} {what} {when}; watch.sunset_days is {spec.watch.sunset_days}"
    digest = f"{backend.provider}:{backend.model}:{day}"
    successor = (spec.backend.provider, spec.backend.model)
    if successor != (backend.provider, backend.model):  # a retraining before it was named replaced nothing, and is not the same occurrence
        digest += f":{':'.join(successor)}"
    return Signal(kind="sunset", task=spec.name, digest=digest, reason=reason, at=stamp(now), figures=figures)


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None
