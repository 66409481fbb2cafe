"""What we read of Vertex AI's answers, and what it is in our words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from prooftune.providers.listing import Unreadable
from prooftune.providers.tuning import Checkpoint, Event, Job, Status, status_of

STATUSES: Mapping[str, Status] = {
    "JOB_STATE_UNSPECIFIED": "unknown",
    "JOB_STATE_QUEUED": "waiting",
    "JOB_STATE_PENDING": "waiting",
    "JOB_STATE_RUNNING": "running",
    "JOB_STATE_UPDATING": "running",
    "JOB_STATE_CANCELLING": "running",
    "JOB_STATE_PAUSED": "paused",
    "JOB_STATE_SUCCEEDED": "succeeded",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "succeeded",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
}
"""All that the SDK's enum ``JobState`` knows."""
RUN_KEY = "run_key"
"""The label with the run key."""


class _Saved(BaseModel):
    checkpoint_id: str
    step: int = 0
    epoch: int | None = None
    endpoint: str | None = None


class _Tuned(BaseModel):
    model: str | None = None
    endpoint: str | None = None
    checkpoints: list[_Saved] = []


class _Error(BaseModel):
    message: str = ""


class _Chosen(BaseModel):
    epoch_count: int | None = None


class _Spec(BaseModel):
    hyper_parameters: _Chosen = _Chosen()
    training_dataset_uri: str | None = None


class JobAnswer(BaseModel):
    """A tuning job. One without a name is none: it cannot be found again."""

    name: str
    state: str = "JOB_STATE_UNSPECIFIED"
    labels: dict[str, str] = {}
    tuned_model_display_name: str | None = None
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: _Error = _Error()
    tuned_model: _Tuned = _Tuned()
    supervised_tuning_spec: _Spec | None = None
    preference_optimization_spec: _Spec | None = None
    reinforcement_tuning_spec: _Spec | None = None
    tuning_data_stats: dict[str, dict[str, Any]] = {}
    gcs_metrics_uri: str | None = None

    @property
    def spec(self) -> _Spec:
        """What was asked for, whatever the method."""
        return self.supervised_tuning_spec or self.preference_optimization_spec or self.reinforcement_tuning_spec or _Spec()

    @property
    def figures(self) -> dict[str, int | float]:
        """The counts of the training file. The API also shows samples of it, which are not kept: results are published."""
        counts = {name: value for stats in self.tuning_data_stats.values() for name, value in stats.items()}
        return {name: value for name, value in counts.items() if isinstance(value, int | float) and not isinstance(value, bool)}

    def told(self) -> Job:
        """Return the job in our words. The tokens of the file are billed once an epoch; what a reinforcement is billed by is not told."""
        tokens, epochs = self.figures.get("total_billable_token_count"), self.spec.hyper_parameters.epoch_count
        if self.reinforcement_tuning_spec is not None:
            tokens = None
        return Job(
            id=self.name,
            status=status_of(self.state, STATUSES),
            told=self.state,
            key=self.labels.get(RUN_KEY),
            model=self.tuned_model.endpoint,
            billed_tokens=int(tokens) * epochs if tokens is not None and epochs is not None else None,
            error=self.error.message,
            created_at=self.create_time,
        )

    def events(self) -> list[Event]:
        """Return what is known to have happened, oldest first. Vertex AI keeps no events of a job: its times and checkpoints tell."""
        found = [
            Event(id=name, at=at, text=text)
            for name, at, text in (
                ("created", self.create_time, "the job was created"),
                ("started", self.start_time, "the job began to run"),
            )
            if at is not None
        ]
        found += [
            Event(id=f"checkpoint-{saved.step}", at=None, text=f"a checkpoint was saved at step {saved.step}")
            for saved in self.checkpoints()
        ]
        if self.end_time is not None:
            text = f"the job ended: {self.state}" + (f" ({self.error.message})" if self.error.message else "")
            found.append(Event(id="ended", at=self.end_time, text=text))
        return found

    def checkpoints(self) -> list[Checkpoint]:
        """Return what was saved, by step; a checkpoint answers at an endpoint of its own."""
        found = [
            Checkpoint(
                id=saved.endpoint or saved.checkpoint_id,
                step=saved.step,
                metrics={} if saved.epoch is None else {"epoch": float(saved.epoch)},
            )
            for saved in self.tuned_model.checkpoints
        ]
        return sorted(found, key=lambda checkpoint: checkpoint.step)


def read_job(job: Any) -> JobAnswer:
    """Return what we read of a ``types.TuningJob``. Raises pydantic.ValidationError for one that is none."""
    return JobAnswer.model_validate(job.model_dump(mode="json", exclude_none=True, exclude={"sdk_http_response"}))


def read_listed(job: Any) -> JobAnswer | Unreadable:
    """Return what we read of a ``types.TuningJob`` of a list, in which one that cannot be read is not the end of the others."""
    try:
        return read_job(job)
    except ValidationError:
        return Unreadable(id=job.name, labels=job.labels, tuned_model_display_name=job.tuned_model_display_name)


class _Counts(BaseModel):
    successful_count: int = 0
    failed_count: int = 0


class _Output(BaseModel):
    gcs_output_directory: str | None = None


class BatchAnswer(BaseModel):
    """A batch inference job."""

    name: str
    display_name: str = ""
    state: str = "JOB_STATE_UNSPECIFIED"
    error: _Error = _Error()
    completion_stats: _Counts = _Counts()
    output_info: _Output = _Output()


def read_batch(batch: Any) -> BatchAnswer:
    """Return what we read of a ``types.BatchJob``. Raises pydantic.ValidationError for one that is none."""
    return BatchAnswer.model_validate(batch.model_dump(mode="json", exclude_none=True))
