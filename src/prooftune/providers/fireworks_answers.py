"""What we read of Fireworks' answers, and its states in our words.

Source: https://docs.fireworks.ai/api-reference, and the types of the SDK ``fireworks-ai`` 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from prooftune.providers.tuning import MARK, Job, Status, status_of

STATUSES: Mapping[str, Status] = {
    "JOB_STATE_UNSPECIFIED": "unknown",
    "JOB_STATE_CREATING": "waiting",
    "JOB_STATE_PENDING": "waiting",
    "JOB_STATE_VALIDATING": "waiting",
    "JOB_STATE_CREATING_INPUT_DATASET": "waiting",
    "JOB_STATE_RE_QUEUEING": "waiting",
    "JOB_STATE_IDLE": "waiting",
    "JOB_STATE_RUNNING": "running",
    "JOB_STATE_WRITING_RESULTS": "running",
    "JOB_STATE_CANCELLING": "running",
    "JOB_STATE_PAUSED": "paused",
    "JOB_STATE_COMPLETED": "succeeded",
    "JOB_STATE_EARLY_STOPPED": "succeeded",  # the validation loss rose: there is a model, trained for fewer steps
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_DELETING": "cancelled",  # somebody removes the job: no model comes of it any more
    "JOB_STATE_DELETING_CLEANING_UP": "cancelled",
    "JOB_STATE_DELETED": "cancelled",  # in the API's reference, not in the SDK
}


class Read(BaseModel):
    """What we read of an answer; what else it holds is not ours to judge."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


Answer = TypeVar("Answer", bound=Read)


class Note(Read):
    """How the last operation on a resource went."""

    code: str | None = None
    message: str | None = None


class Resource(Read):
    """A dataset, a deployment, or an adapter on one."""

    name: str
    state: str = "STATE_UNSPECIFIED"
    status: Note | None = None
    create_time: datetime | None = None
    example_count: str | None = None
    """Of a dataset, as it was declared."""
    description: str = ""
    """Of a deployment: the tuned model that we made it for."""
    deployment: str | None = None
    """Of a loaded adapter: where."""
    model: str | None = None
    """Of a loaded adapter: which."""

    @property
    def id(self) -> str:
        """The last part of the name."""
        return last(self.name)

    @property
    def failed(self) -> bool:
        """Whether the last operation on it failed."""
        return self.status is not None and self.status.code not in (None, "OK")

    @property
    def told(self) -> str:
        """The provider's message, or else the state."""
        return (self.status and self.status.message) or self.state


class Page(Read):
    """One page of a list."""

    datasets: list[Resource] = []
    deployments: list[Resource] = []
    deployed_models: list[Resource] = []
    next_page_token: str | None = None


class Links(Read):
    """Signed links to files, by name."""

    filename_to_signed_urls: dict[str, str] = {}


class Link(Read):
    """One signed link."""

    signed_url: str | None = None


class _Day(Read):
    year: int
    month: int
    day: int


class _Peft(Read):
    base_model: str


class Model(Read):
    """A base model or an adapter."""

    name: str
    kind: str = "KIND_UNSPECIFIED"
    tunable: bool = False
    rl_tunable: bool = False
    context_length: int | None = None
    training_context_length: int | None = None
    deprecation_date: _Day | None = None
    peft_details: _Peft | None = None

    @property
    def serverless_until(self) -> date | None:
        """Day on which the provider takes its own deployment of the model down."""
        day = self.deprecation_date
        return date(day.year, day.month, day.day) if day else None


class _Cost(Read):
    currency_code: str = ""
    units: int = 0
    nanos: int = 0


class _Progress(Read):
    input_tokens: int | None = None
    total_processed_requests: int = 0


class _Training(Read):
    output_model: str | None = None


class JobAnswer(Read):
    """A job of any kind."""

    name: str
    state: str = "JOB_STATE_UNSPECIFIED"
    status: Note | None = None
    output_model: str | None = None
    training_config: _Training | None = None
    create_time: datetime | None = None
    estimated_cost: _Cost | None = None
    job_progress: _Progress | None = None
    metrics_file_signed_url: str | None = None

    @property
    def tuned(self) -> str | None:
        """Name of the model that comes of the job."""
        return self.output_model or (self.training_config.output_model if self.training_config else None)

    def job(self) -> Job:
        """Return the job in our words.

        It shows no bill: once it has succeeded, the tokens it processed and the provider's own estimate of its cost stand for one.
        """
        status = status_of(self.state, STATUSES)
        done = status == "succeeded"
        cost, progress, key = self.estimated_cost, self.job_progress, last(self.name)
        return Job(
            id=self.name,
            status=status,
            told=self.state,
            key=key if key.startswith(f"{MARK}-") else None,
            model=self.tuned if done else None,
            billed_tokens=progress.input_tokens if done and progress else None,
            billed_usd=cost.units + cost.nanos / 1e9 if done and cost and cost.currency_code == "USD" else None,
            error="" if done or self.status is None else self.status.message or "",
            created_at=self.create_time,
        )


class BatchAnswer(Read):
    """A batch inference job."""

    name: str
    state: str = "JOB_STATE_UNSPECIFIED"
    status: Note | None = None
    output_dataset_id: str | None = None
    job_progress: _Progress | None = None

    @property
    def told(self) -> str:
        """The provider's message, or else the state."""
        return (self.status and self.status.message) or self.state


class CheckpointAnswer(Read):
    """A checkpoint of a job."""

    name: str
    promotable: bool = False
    """Whether a model can be made of it; the others only resume the job."""


class CheckpointPage(Read):
    """One page of a job's checkpoints."""

    checkpoints: list[CheckpointAnswer] = []
    next_page_token: str | None = None


def last(name: str) -> str:
    """Return the id at the end of a resource's name."""
    return name.rpartition("/")[2]
