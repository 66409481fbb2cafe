"""What is read of the answers of OpenAI's fine-tuning API, and of Azure's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field, model_validator

from prooftune.providers.listing import Unreadable
from prooftune.providers.tuning import Event, Job, Status, status_of

RUN_KEY = "run_key"
"""Name of the run key in a job's metadata."""
PAGE = 100
"""Objects that are asked for at once."""
Item = TypeVar("Item", bound="Object")


class Answer(BaseModel):
    """An answer, or a part of one. What is null is taken for not there: Azure shows every field, also of a job that has no value for it."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Object(Answer):
    """Whatever has an id."""

    id: str


class Page(Answer, Generic[Item]):
    """A part of a list."""

    data: list[Annotated[Item | Unreadable, Field(union_mode="left_to_right")]]
    has_more: bool = False


class FileAnswer(Object):
    """A file."""

    filename: str = ""
    bytes: int = 0
    status: str | None = None
    status_details: str | None = None


class UploadAnswer(Answer):
    """An upload in parts that was completed."""

    file: FileAnswer


class Why(Answer):
    """Why a job failed. Of a job that did not, some answers hold the object all the same, empty."""

    code: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part)


class JobAnswer(Object):
    """A job."""

    status: str
    created_at: int | None = None
    training_file: str
    metadata: dict[str, str | None] = {}
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
        return self.metadata.get(RUN_KEY)

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
            finishes_at=_time(self.estimated_finish),
        )


class EventAnswer(Object):
    """An event of a job."""

    created_at: int | None = None
    message: str = ""
    data: dict[str, Any] = {}

    def told(self) -> Event:
        """Return the event in our words."""
        return Event(id=self.id, at=_time(self.created_at), text=self.message, metrics=numbers(self.data))


class CheckpointAnswer(Object):
    """A checkpoint of a job."""

    step_number: int
    fine_tuned_model_checkpoint: str | None = None
    metrics: dict[str, float | None] = {}


class ModelAnswer(Object):
    """A model."""

    shutdown_date: date | None = None


def listed(
    listing: Callable[..., Any], kind: type[Page[Item]], call: Callable[[Callable[[], Page[Item]]], Page[Item]]
) -> Iterator[Item | Unreadable]:
    """Yield the objects of a list, through all its pages. ``listing`` is the SDK's, with its raw response; ``call`` makes a request."""
    after: dict[str, str] = {}
    while True:
        page = call(partial(_page, listing, kind, after))
        yield from page.data
        if not page.has_more or not page.data:
            return
        after = {"after": page.data[-1].id}


def readable(listing: Callable[..., Any], kind: type[Page[Item]], call: Callable[[Callable[[], Page[Item]]], Page[Item]]) -> Iterator[Item]:
    """Yield the objects of a list that can be read: of what is told, not of what is decided upon."""
    for found in listed(listing, kind, call):
        if not isinstance(found, Unreadable):
            yield found


def _page(listing: Callable[..., Any], kind: type[Page[Item]], after: dict[str, str]) -> Page[Item]:
    return kind.model_validate_json(listing(limit=PAGE, **after).text)


def numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number."""
    return {name: float(value) for name, value in data.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def plain(data: bytes) -> bytes:
    """Return a table as text: OpenAI sends some of them in base64, whose alphabet has no comma."""
    try:
        return base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        return data


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
