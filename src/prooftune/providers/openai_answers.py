"""What is read of the answers of OpenAI's fine-tuning API, and of Azure's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from prooftune.providers.tuning import Event, Job, Status, status_of

RUN_KEY = "run_key"
"""Name of the run key in a job's metadata."""
PAGE = 100
"""Objects that are asked for at once."""
Item = TypeVar("Item", bound="Object")


class Object(BaseModel):
    """Whatever has an id."""

    id: str


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    data: list[Item]
    has_more: bool = False


class FileAnswer(Object):
    """A file."""

    filename: str = ""
    bytes: int = 0
    status: str | None = None
    status_details: str | None = None


class Why(BaseModel):
    """Why a job failed. Of a job that did not, some answers hold the object all the same, empty."""

    code: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part)


class JobAnswer(Object):
    """A job."""

    status: str
    created_at: int
    training_file: str
    metadata: dict[str, str] | None = None
    user_provided_suffix: str | None = None
    """Not in OpenAI's document, and in its answers and Azure's all the same."""
    seed: int | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    estimated_finish: int | None = None
    error: Why | None = None
    result_files: list[str] = []

    @property
    def key(self) -> str | None:
        """The run key that the job shows."""
        return (self.metadata or {}).get(RUN_KEY)

    def told(self, statuses: Mapping[str, Status]) -> Job:
        """Return the job in our words."""
        return Job(
            id=self.id,
            status=status_of(self.status, statuses),
            told=self.status,
            key=self.key,
            model=self.fine_tuned_model or None,
            billed_tokens=self.trained_tokens,
            error=str(self.error or ""),
            created_at=_time(self.created_at),
            finishes_at=None if self.estimated_finish is None else _time(self.estimated_finish),
        )


class EventAnswer(Object):
    """An event of a job."""

    created_at: int
    message: str
    data: dict[str, Any] | None = None

    def told(self) -> Event:
        """Return the event in our words."""
        return Event(id=self.id, at=_time(self.created_at), text=self.message, metrics=numbers(self.data))


class CheckpointAnswer(Object):
    """A checkpoint of a job."""

    step_number: int
    fine_tuned_model_checkpoint: str
    metrics: dict[str, float | None] = {}


class ModelAnswer(Object):
    """A model."""

    shutdown_date: date | None = None


def page_of(listing: Callable[..., Any], kind: type[Page[Item]], after: dict[str, str]) -> Page[Item]:
    """Return the page of a list that comes after an object. ``listing`` is the SDK's, with its raw response."""
    return kind.model_validate_json(listing(limit=PAGE, **after).text)


def numbers(data: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what is a number."""
    return {name: float(value) for name, value in (data or {}).items() if isinstance(value, int | float) and not isinstance(value, bool)}


def plain(data: bytes) -> bytes:
    """Return a table as text: OpenAI sends some of them in base64, whose alphabet has no comma."""
    try:
        return base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        return data


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
