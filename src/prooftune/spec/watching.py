"""The spec's blocks ``watch`` and ``retrain``: what is looked at while a champion is in use, and what a retraining may do."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prooftune.spec.fields import Address
from prooftune.types import Frozen


class Watch(Frozen):
    """What the sensors look at, and from when on they speak."""

    min_new_examples: Annotated[int, Field(ge=1)] = 50
    """Valid examples that the champion was not made from, before new data are worth a retraining."""
    quiet_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Data that were changed less long ago than this may still be changing, and are looked at later (debounce)."""
    feedback: Address | None = None
    """Scored production answers, as JSONL of ``score`` (0 to 1, on the scale of ``task.metric``) and ``at`` (ISO 8601): a file, a folder or
    ``s3://``; null = none are kept."""
    min_feedback: Annotated[int, Field(ge=1)] = 50
    """Fewer scored answers than this say nothing."""
    traffic: Address | None = None
    """Production prompts (JSONL of ``prompt``): file, folder or ``s3://``; null = none are kept."""
    min_traffic: Annotated[int, Field(ge=1)] = 200
    """Fewer prompts than this say nothing."""
    max_psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index between the training prompts and production's; above 0.25 a shift is commonly called major (Siddiqi,
    2006)."""
    max_embedding_distance: Annotated[float, Field(gt=0, le=2)] | None = None
    """Cosine distance between the mean embeddings of both; null = what two halves of the training prompts differ by, in 99 of 100 draws."""
    sunset_days: Annotated[int, Field(ge=1)] = 90
    """How long before a base model's shutdown date a successor is to be trained."""


class Retrain(Frozen):
    """What a retraining may do without being asked."""

    keep_old: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the examples that the champion was trained on to train on again, beside all new ones."""
    warm_start: bool = False
    """Go on from the champion's weights instead of the base model's."""
    cool_down_hours: Annotated[float, Field(ge=0)] = 24.0
    """From the start of one retraining of the task to the next."""
    monthly_usd: Annotated[float, Field(ge=0)] | None = None
    """Of all retrainings of the task in a calendar month (UTC); null = ``budget.monthly_usd`` alone."""
