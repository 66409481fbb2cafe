"""Every sensor, by the kind of its signals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.watching.data import look_at_data
from prooftune.watching.inputs import look_at_inputs
from prooftune.watching.looks import Look
from prooftune.watching.models import look_at_models
from prooftune.watching.quality import look_at_quality
from prooftune.watching.requests import look_at_requests
from prooftune.watching.signals import Kind

SENSORS: dict[Kind, Callable[[ObjectStore, RunSpec, datetime], Look]] = {
    "data": look_at_data,
    "quality": look_at_quality,
    "drift": look_at_inputs,
    "sunset": look_at_models,
    "request": look_at_requests,
}
