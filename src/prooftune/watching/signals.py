"""A signal: something happened that may be worth a retraining."""

from __future__ import annotations

from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from prooftune.spec.fields import Name
from prooftune.types import Frozen

Kind = Literal["data", "quality", "drift", "sunset", "request", "schedule"]
EVENTS: dict[Kind, str] = {
    "data": "prooftune.data.changed",
    "quality": "prooftune.quality.dropped",
    "drift": "prooftune.inputs.drifted",
    "sunset": "prooftune.model.retiring",
    "request": "prooftune.retrain.requested",
    "schedule": "prooftune.retrain.due",
}
"""Name of the Prefect event of each kind."""


class Signal(Frozen):
    """What was seen. Two signals of the same task, kind and digest are one occurrence, however often it is seen."""

    kind: Kind
    task: Name
    digest: str
    """Of what was seen: the data's digest, a week, the id that a webhook gave."""
    reason: str
    """A sentence for people."""
    at: str
    """When it was seen first, UTC, ISO 8601."""
    figures: dict[str, Any] = {}
    """What was measured, JSON-able."""

    @property
    def event(self) -> str:
        """Name of its Prefect event."""
        return EVENTS[self.kind]

    @property
    def resource(self) -> dict[str, str]:
        """The resource that its Prefect event is about: the task."""
        return resource_of(self.task) | {"prooftune.digest": self.digest}

    @property
    def id(self) -> UUID:
        """Id of the occurrence: the same for every replay."""
        return uuid5(NAMESPACE_URL, f"prooftune:{self.kind}:{self.task}:{self.digest}")


def resource_of(task: str) -> dict[str, str]:
    """Return the resource that a Prefect event about a task has."""
    return {"prefect.resource.id": f"prooftune.task.{task}", "prefect.resource.name": task}
