"""What we read of Together's answers, and its statuses in our words.

Source: https://docs.together.ai/reference, and the types of the SDK ``together`` 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from prooftune.providers.listing import Unreadable
from prooftune.providers.tuning import Job, Status, status_of

STATUSES: Mapping[str, Status] = {
    "pending": "waiting",
    "queued": "waiting",
    "running": "running",
    "compressing": "running",
    "uploading": "running",
    "cancel_requested": "running",
    "completed": "succeeded",
    "error": "failed",
    "user_error": "failed",
    "cancelled": "cancelled",
}
"""All that the SDK knows. ``user_error`` is in its older types alone."""
NANODOLLARS = 1_000_000_000
"""In a dollar: the unit of a job's price, as the SDK's command line reads it."""


class JobAnswer(BaseModel):
    """A fine-tuning job. Suffix and seed stand in lists and in the answer to a request that creates, not where one job is asked for."""

    id: str
    status: str
    created_at: datetime | None = None
    model: str | None = None
    suffix: str | None = None
    random_seed: int | None = None
    training_file: str | None = None
    model_output_name: str | None = None
    model_object_id: str | None = None
    """Of the tuned model in Together's registry, where the adapter was merged into its base model."""
    adapter_object_id: str | None = None
    token_count: int | None = None
    total_price: int | None = None

    def job(self, error: str = "") -> Job:
        """Return it in our words."""
        status = status_of(self.status, STATUSES)
        done = status in ("succeeded", "failed", "cancelled")
        return Job(
            id=self.id,
            status=status,
            told=self.status,
            model=(self.model_output_name or None) if status == "succeeded" else None,
            billed_tokens=self.token_count if done else None,
            billed_usd=self.total_price / NANODOLLARS if done and self.total_price is not None else None,
            error=error,
            created_at=self.created_at,
        )


class JobList(BaseModel):
    """All jobs: the list has no pages."""

    data: list[Annotated[JobAnswer | Unreadable, Field(union_mode="left_to_right")]]


class CheckpointAnswer(BaseModel):
    """A checkpoint of a job."""

    step: int


class CheckpointList(BaseModel):
    """All checkpoints of a job: of one step there may be the adapter and the merged model."""

    data: list[CheckpointAnswer]


class LoraLimits(BaseModel):
    """Limits of LoRA."""

    max_batch_size: int
    max_batch_size_dpo: int
    max_rank: int
    min_batch_size: int


class Limits(BaseModel):
    """What Together says of tuning a model."""

    lora_training: LoraLimits
    max_learning_rate: float
    min_learning_rate: float
    max_num_epochs: int
    max_seq_length_dpo: int
    max_seq_length_sft: int


class Price(BaseModel):
    """What Together estimates that a job costs."""

    estimation_available: bool
    unavailable_reason: str | None = None
    allowed_to_proceed: bool | None = None
    estimated_total_price: float | None = None
    """USD."""
    user_limit: float | None = None
    """USD that the account may spend."""


class FileReport(BaseModel):
    """What Together found in a file."""

    error: str | None = None


class FileAnswer(BaseModel):
    """An uploaded file."""

    id: str
    filename: str = ""
    purpose: str = ""
    processing_status: str | None = None
    validation_report: FileReport | None = None


class FileList(BaseModel):
    """All files: the list has no pages."""

    data: list[FileAnswer]


class Resource(BaseModel):
    """What stands in the API's second version, whose fields have other names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Project(BaseModel):
    """A project of the account."""

    id: str


class Who(BaseModel):
    """Whose key it is. A key of the whole organization names no project."""

    project: Project | None = None


class DeploymentSummary(Resource):
    """A deployment, as its endpoint shows it."""

    id: str
    name: str
    state: str
    model: str
    created_at: datetime | None = None


class EndpointAnswer(Resource):
    """An endpoint: a name that inference knows, with deployments behind it."""

    id: str
    name: str
    created_at: datetime | None = None
    deployments: list[DeploymentSummary] = []


class EndpointPage(BaseModel):
    """A part of the list of endpoints."""

    data: list[EndpointAnswer]
    next_cursor: str | None = None


class State(BaseModel):
    """How a deployment is."""

    state: str
    message: str = ""


class DeploymentAnswer(Resource):
    """A deployment."""

    id: str
    status: State


class ModelAnswer(Resource):
    """A model of the project."""

    base_model: str | None = None


class Selector(BaseModel):
    """What a configuration asks for."""

    key: str
    value: str


class ConfigAnswer(Resource):
    """A way to run a model: hardware and engine."""

    id: str
    project_id: str
    selectors: list[Selector] = []

    def chosen(self, key: str) -> str:
        """Return what it asks for; empty = nothing."""
        return next((one.value for one in self.selectors if one.key == key), "")


class ConfigPage(BaseModel):
    """A part of the list of configurations."""

    data: list[ConfigAnswer]
    next_cursor: str | None = None


class Hardware(Resource):
    """Something that can be rented."""

    name: str
    price_cents_per_hour: int


class HardwareList(BaseModel):
    """All that can be rented."""

    data: list[Hardware]
