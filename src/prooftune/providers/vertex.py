"""Google's Vertex AI (Gemini Enterprise Agent Platform): tuning of Gemini models.

A tuned model gets an endpoint from Vertex AI itself, which costs nothing while it is idle and answers under the same name for good. So
nothing is deployed here, and nothing taken down: that would end the tuned model.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/reference/models/tuning, and the SDK's own types.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prooftune.errors import Problem, SpecError
from prooftune.providers import vertex_rows
from prooftune.providers.calls import NotFoundError
from prooftune.providers.chat import ChatModel
from prooftune.providers.listing import Unreadable, surely
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order
from prooftune.providers.vertex_answers import RUN_KEY, STATUSES, JobAnswer, read_job, read_listed
from prooftune.providers.vertex_chat import VertexChat
from prooftune.providers.vertex_connection import connect, pages
from prooftune.providers.vertex_files import Bucket
from prooftune.providers.vertex_models import LIVES, READ_ON, short_name
from prooftune.spec import Objective, Provider

__all__ = ["STATUSES", "VertexTuner"]
NAME_MAX = 128
"""Characters of a tuned model's display name."""
PAGE = 100
PREVIEW = (
    "its reinforcement tuning is a preview, whose terms forbid confidential data and use in production: whether they allow yours is "
    "for you to say"
)
"""Source: the warning at the head of https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/tuning/reinforcement-tuning."""


class VertexTuner:
    """Tuning in one Google Cloud project and region."""

    provider = "vertex"
    creates_once = False

    def __init__(self, options: Provider) -> None:
        self.options = options
        if options.bucket is None or options.project is None:
            raise SpecError("vertex needs provider.project and provider.bucket (gs://bucket/prefix), where it reads training files")
        self._connection = connect(options)
        self.address = self._connection.address
        self.call, self._types = self._connection.call, self._connection.types
        self._tunings = self._connection.client.tunings
        self._bucket = Bucket(options.bucket, options.project, self._connection.access)

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask for the model, and look up whether Vertex AI tunes it, and until when."""
        life, name = LIVES.get(short_name(model)), short_name(model)
        dates: dict[str, Any] = {"last_job": life.last_job, "shutdown": life.shutdown} if life else {}
        try:
            self.call(lambda: self._connection.client.models.get(model=model))
        except NotFoundError as error:
            return Capability(tunable=False, why=f"{error}; {name} is not there", **dates)
        if life is None:
            why = f"the model exists, and was not among those that Google documents tuning for on {READ_ON}: {', '.join(LIVES)}"
            return Capability(tunable=False, why=why, objectives=())
        why = "the model exists, and Google documents tuning for it"
        return Capability(
            tunable=True,
            why=f"{why}; {PREVIEW}" if objective == "reinforcement" else why,
            objectives=tuple(vertex_rows.METHODS),
            limits={
                "rows_max": vertex_rows.ROWS_MAX[objective],
                "validation_rows_max": vertex_rows.VALIDATION_ROWS_MAX[objective],
                "file_bytes": vertex_rows.FILE_BYTES,
                "tokens_per_example": vertex_rows.TOKENS_PER_EXAMPLE[objective],
                "adapter_rank_max": max(vertex_rows.ADAPTER_SIZES),
            },
            **dates,
        )

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write our examples in Gemini's form, one line an example, in their order."""
        vertex_rows.write_rows(examples, system, objective, out)

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what Vertex AI would refuse in rows of its own form.

        Raises:
            SpecError: it would refuse the order's hyperparameters or grader.
        """
        self._config(order)
        return vertex_rows.check_rows(path, order, role)

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Put rows into the bucket, unless they are there, and return their URI."""
        return self._bucket.put(path, f"{key}-{role}.jsonl")

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return nothing: Vertex AI does not say."""
        return None

    def create(self, order: Order, files: Files) -> Job:
        """Create the job with one request; the run key is its label and begins the tuned model's name."""
        types, config = self._types, self._config(order)
        if files.validation is not None:
            config.validation_dataset = types.TuningValidationDataset(gcs_uri=files.validation)
        request = partial(
            self._tunings.tune, base_model=order.model, training_dataset=types.TuningDataset(gcs_uri=files.train), config=config
        )
        return self.call.create(lambda: _quietly(request)).told()

    def _config(self, order: Order) -> Any:
        """Return what is asked for as the SDK's type: a dict loses fields without a word.

        Raises:
            SpecError: a hyperparameter or the grader is none that Vertex AI takes; the type has no such field or word.
        """
        chosen = vertex_rows.settings(order)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # so the type tells of a word that is in none of its lists
                return self._types.CreateTuningJobConfig(
                    tuned_model_display_name=_display_name(order), labels={RUN_KEY: order.key}, **chosen
                )
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False))
            raise SpecError(f"provider.grader is no reward of Vertex AI's: {reasons}") from None
        except UserWarning as warning:
            raise SpecError(f"provider.grader is no reward of Vertex AI's: {warning}") from None

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return every job that carries the order's run key, or, where a job shows no labels, its name and training file.

        Raises:
            TransientError: there is none, and one that cannot be read may be the order's.
        """
        jobs = self._jobs()
        found = [job.told() for job in jobs if not isinstance(job, Unreadable) and self._is_of(job, order, files)]
        hidden = [job for job in jobs if isinstance(job, Unreadable) and _may_be_of(job, order)]
        return surely(found, hidden, order)

    def _is_of(self, job: JobAnswer, order: Order, files: Files) -> bool:
        if key := job.labels.get(RUN_KEY):
            return key == order.key
        return (job.tuned_model_display_name, job.spec.training_dataset_uri) == (_display_name(order), files.train)

    def _jobs(self) -> list[JobAnswer | Unreadable]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK warns of states it does not know
            found = list(pages(self.call, lambda: self._tunings.list(config=self._types.ListTuningJobsConfig(page_size=PAGE))))
        return [read_listed(job) for job in found if job.name]

    def job(self, job: str) -> Job:
        """Return the job as it is now."""
        return self._job(job).told()

    def _job(self, job: str) -> JobAnswer:
        return self.call(lambda: _quietly(partial(self._tunings.get, name=job)))

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return what is known to have happened after an event, oldest first; Vertex AI keeps no events, and shows no losses here."""
        found = self._job(job).events()
        ids = [event.id for event in found]
        return found[ids.index(after) + 1 :] if after in ids else found

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return what was saved so far, by step."""
        return self._job(job).checkpoints()

    def download(self, job: str, out: Path) -> list[str]:
        """Write the counts of the training file, and the metrics that Vertex AI left in Cloud Storage; it keeps the weights."""
        found = self._job(job)
        files = self._bucket.fetch(found.gcs_metrics_uri) if found.gcs_metrics_uri else {}
        files = {re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "metrics": data for name, data in files.items()}
        if found.figures:
            files["tuning_data_stats.json"] = (json.dumps(found.figures, indent=1, sort_keys=True) + "\n").encode()
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            part = out / f"{name}.part"
            part.write_bytes(data)
            part.replace(out / name)
        return sorted(files)

    def cancel(self, job: str) -> Job:
        """Ask to end the job. Vertex AI refuses that for one that has ended, which is fine."""
        try:
            self.call(lambda: self._tunings.cancel(name=job))
        except SpecError:
            if (found := self.job(job)).ended:
                return found
            raise
        return self.job(job)

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Make nothing: Vertex AI made the tuned model's endpoint."""
        return None

    def deployments(self) -> list[Deployment]:
        """Return nothing: an endpoint of a tuned Gemini model costs nothing while it is idle, and is no deployment of ours."""
        return []

    def take_down(self, name: str) -> None:
        """End nothing."""

    def chat(self, model: str) -> ChatModel:
        """Return the client that prompts a base model, or a tuned one at its endpoint."""
        return VertexChat(model, self._connection, self._bucket, self._model_at)

    def _model_at(self, endpoint: str) -> str:
        """Return the tuned model that answers at an endpoint: batch inference takes the model, not the endpoint.

        Raises:
            NotFoundError: no tuning job of the project made it.
        """
        for job in (job for job in self._jobs() if not isinstance(job, Unreadable)):
            if endpoint in (job.tuned_model.endpoint, *(saved.endpoint for saved in job.tuned_model.checkpoints)) and job.tuned_model.model:
                return job.tuned_model.model
        raise NotFoundError(
            f"no tuning job of {self.address} made the endpoint {endpoint}; set provider.batch: false to prompt it directly"
        )


def _display_name(order: Order) -> str:
    """Return the tuned model's name: the run key first, so that it is found by eye as well."""
    return f"{order.key}-{order.name}"[:NAME_MAX]


def _may_be_of(job: Unreadable, order: Order) -> bool:
    labels = job.field("labels")
    key = labels.get(RUN_KEY) if isinstance(labels, dict) else None
    return key == order.key if key else job.may_be(tuned_model_display_name=_display_name(order))


def _quietly(request: Callable[[], Any]) -> JobAnswer:
    """Return the job that a request answers with. The SDK's warnings, of experiments and states it does not know, are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_job(request())
