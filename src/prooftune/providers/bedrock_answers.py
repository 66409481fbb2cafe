"""What we read of Bedrock's answers, and what it is in our words."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from prooftune.providers.tuning import MARK, Deployment, Event, Job, Status, status_of

STATUSES: Mapping[str, Status] = {
    "InProgress": "running",
    "Stopping": "running",
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "cancelled",
}
"""All that botocore's shape ``ModelCustomizationJobStatus`` knows."""
PHASE_ENDED = ("Completed", "Failed", "Stopped")
_LOSSES = {"training_loss": "train_loss", "validation_loss": "valid_loss"}
Moment = Annotated[datetime, AfterValidator(lambda at: at.astimezone(UTC))]
"""A time. The SDK reads it in this machine's time zone, where a day may begin on another date."""


class _Answer(BaseModel):
    """Fields by their names in the API: ``job_arn`` is its ``jobArn``."""

    model_config = ConfigDict(alias_generator=to_camel)


class Created(_Answer):
    """What Bedrock says of a new job. An answer that does not name it is none."""

    job_arn: str = Field(min_length=1)


class _Phase(_Answer):
    status: str = "NotStarted"
    creation_time: Moment | None = None
    last_modified_time: Moment | None = None


class _Phases(_Answer):
    validation_details: _Phase = _Phase()
    data_processing_details: _Phase = _Phase()
    training_details: _Phase = _Phase()


class _Place(_Answer):
    s3_uri: str


class _TrainingMetrics(_Answer):
    training_loss: float | None = None


class _ValidationMetrics(_Answer):
    validation_loss: float | None = None


class JobAnswer(_Answer):
    """A model customization job."""

    job_arn: str
    job_name: str
    status: str
    status_details: _Phases = _Phases()
    output_model_arn: str | None = None
    failure_message: str = ""
    creation_time: Moment
    end_time: Moment | None = None
    output_data_config: _Place
    training_metrics: _TrainingMetrics = _TrainingMetrics()
    validation_metrics: list[_ValidationMetrics] = []

    @property
    def metrics(self) -> dict[str, float]:
        """The losses at the end, as far as they are told."""
        validation = self.validation_metrics[0].validation_loss if self.validation_metrics else None
        found = {"train_loss": self.training_metrics.training_loss, "valid_loss": validation}
        return {name: value for name, value in found.items() if value is not None}

    def told(self) -> Job:
        """Return the job in our words. Bedrock does not say how many tokens it bills."""
        return Job(
            id=self.job_arn,
            status=status_of(self.status, STATUSES),
            told=self.status,
            key=self.job_name if self.job_name.startswith(f"{MARK}-") else None,
            model=self.output_model_arn,
            error=self.failure_message,
            created_at=self.creation_time,
        )

    def events(self, steps: list[Event]) -> list[Event]:
        """Return what is known to have happened, oldest first. Bedrock keeps no events of a job: its phases tell, and ``steps``.

        An event keeps its id and place for good, and later looks only add to the end: a phase begins and ends once, and steps are known
        with the job's end.
        """
        found = [Event(id="created", at=self.creation_time, text="the job was created")]
        for name, phase in (
            ("validation", self.status_details.validation_details),
            ("data processing", self.status_details.data_processing_details),
            ("training", self.status_details.training_details),
        ):
            if phase.status == "NotStarted":
                break
            ident = name.replace(" ", "-")
            found.append(Event(id=f"{ident}-began", at=phase.creation_time, text=f"{name} began"))
            if phase.status not in PHASE_ENDED:
                break
            found.append(Event(id=f"{ident}-ended", at=phase.last_modified_time, text=f"{name} ended: {phase.status}"))
        if status_of(self.status, STATUSES) in ("succeeded", "failed", "cancelled"):
            text = f"the job ended: {self.status}" + (f" ({self.failure_message})" if self.failure_message else "")
            found += [*steps, Event(id="ended", at=self.end_time, text=text, metrics=self.metrics)]
        return found


def read_steps(files: Mapping[str, bytes], at: datetime | None) -> list[Event]:
    """Return the losses in a job's metric files as events, by step.

    Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-analyze.html.
    """
    found: dict[tuple[int, str], Event] = {}
    for name, data in sorted(files.items()):
        if name.endswith("metrics.csv"):
            for step, loss, metrics in _rows(data):
                ident = f"step-{step}" if loss == "train_loss" else f"validation-step-{step}"
                text = f"step {step}: {'training' if loss == 'train_loss' else 'validation'} loss {metrics[loss]:.4f}"
                found[step, loss] = Event(id=ident, at=at, text=text, metrics=metrics)
    return [found[place] for place in sorted(found)]


def _rows(data: bytes) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield step, name of the loss and metrics of each row that has both."""
    for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace"))):
        step = _number(row.get("step_number"))
        for column, loss in _LOSSES.items():
            value = _number(row.get(column))
            if step is not None and value is not None:
                others = {"epoch": _number(row.get("epoch_number")), "perplexity": _number(row.get("perplexity"))}
                metrics = {"step": step, loss: value} | {name: other for name, other in others.items() if other is not None}
                yield int(step), loss, metrics


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text.strip()) else None


class _Life(_Answer):
    status: str = "ACTIVE"
    end_of_life_time: Moment | None = None
    legacy_time: Moment | None = None


class ModelAnswer(_Answer):
    """A foundation model."""

    model_id: str
    customizations_supported: list[str] = []
    model_lifecycle: _Life = _Life()

    @property
    def shutdown(self) -> date | None:
        """The day on which the model, and what was tuned from it, ends."""
        end = self.model_lifecycle.end_of_life_time
        return end.date() if end else None

    @property
    def legacy(self) -> date | None:
        """The day from which no throughput can be bought for it."""
        since = self.model_lifecycle.legacy_time
        return since.date() if since else None


class OnDemand(_Answer):
    """A custom model deployment: paid for by the token."""

    arn: str = Field(alias="customModelDeploymentArn")
    name: str = Field(alias="customModelDeploymentName")
    model: str = Field(alias="modelArn")
    status: str
    created: Moment = Field(alias="createdAt")

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.status == "Active"


class Provisioned(_Answer):
    """Provisioned throughput: paid for by the hour."""

    arn: str = Field(alias="provisionedModelArn")
    name: str = Field(alias="provisionedModelName")
    model: str = Field(alias="modelArn")
    status: str
    created: Moment = Field(alias="creationTime")

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.status in ("InService", "Updating")


def shown(found: OnDemand | Provisioned) -> Deployment:
    """Return a deployment in our words."""
    return Deployment(
        name=found.name,
        model=found.model,
        ready=found.ready,
        told=found.status,
        chat=found.arn,
        created_at=found.created,
        failed=found.status == "Failed",
    )


class _Block(_Answer):
    text: str = ""


class _Message(_Answer):
    content: list[_Block] = []


class _Output(_Answer):
    message: _Message


class _Usage(_Answer):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0


class Converse(_Answer):
    """What we read of an answer. One without a count of tokens is of no use here: costs rest on them."""

    output: _Output
    stop_reason: str
    usage: _Usage

    @property
    def text(self) -> str:
        """The answer, without what the model thought."""
        return "".join(block.text for block in self.output.message.content)

    @property
    def refused(self) -> bool:
        """Whether a filter cut it off."""
        return self.stop_reason in ("guardrail_intervened", "content_filtered")


class BatchAnswer(_Answer):
    """A batch inference job."""

    job_arn: str = Field(min_length=1)
    job_name: str = ""
    status: str = "Submitted"
    message: str = ""
    output_data_config: dict[str, Any] = {}
    processed_record_count: int = 0
