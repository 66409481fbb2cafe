"""Amazon Bedrock: tuning of Claude, Nova and Llama by model customization jobs.

A job is created under the run key, as its name and as ``clientRequestToken``: creating it again makes no second one. Its rows and its
results lie in the user's S3 bucket. A tuned model answers once it is deployed; the weights stay with AWS.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/custom-models.html, and botocore's own service model.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError, TransientError
from prooftune.providers import bedrock_rows
from prooftune.providers.bedrock_answers import STATUSES, Created, JobAnswer, ModelAnswer, read_steps
from prooftune.providers.bedrock_chat import BedrockChat
from prooftune.providers.bedrock_connection import connect, pages
from prooftune.providers.bedrock_files import Bucket
from prooftune.providers.bedrock_models import (
    REINFORCED_ROWS,
    REINFORCEMENT,
    Family,
    asked_as,
    base_of,
    family_of,
    objectives_of,
    require_family,
    settings,
    tokens_per_example,
)
from prooftune.providers.bedrock_serving import Deployments
from prooftune.providers.calls import NotFoundError
from prooftune.providers.chat import ChatModel
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order, status_of
from prooftune.spec import Objective, Provider

__all__ = ["STATUSES", "BedrockTuner"]
PAGE = 100
TAG = "prooftune-run-key"
CUSTOM_NAME_MAX = 63


class BedrockTuner:
    """Tuning in one AWS account and region."""

    provider = "bedrock"
    creates_once = True

    def __init__(self, options: Provider) -> None:
        self.options = options
        self._connection = connect(options)
        self.address = self._connection.address
        self.call, self._bedrock = self._connection.call, self._connection.bedrock
        self._bucket = Bucket(str(options.bucket))
        self._deployments = Deployments(self._connection)

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask which models this account may tune here, and until when."""
        answer = self.call(lambda: self._bedrock.list_foundation_models(byCustomizationType="FINE_TUNING"))
        tunable = [ModelAnswer.model_validate(one) for one in answer.get("modelSummaries", [])]
        found = next((one for one in tunable if one.model_id == base_of(model)), None)
        if found is None:
            variants = ", ".join(one.model_id for one in tunable if asked_as(one.model_id) == base_of(model))
            why = f"bedrock lists no {model} among the {len(tunable)} models that it tunes in {self.options.region}"
            return Capability(tunable=False, why=f"{why}; of this model it tunes {variants}" if variants else why, objectives=())
        family = family_of(model)
        if family is None:
            return Capability(tunable=False, why=f"bedrock tunes {model}, and not from text", objectives=(), shutdown=found.shutdown)
        return _capability(found, family, model, objective)

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write our examples in the form of the model's family, one line an example, in their order.

        ``model`` is the base model; None = one that takes ``bedrock-conversation-2024``. ``check_rows`` refuses the form where it does not.
        """
        form = "conversation" if model is None else require_family(model).form
        bedrock_rows.write_rows(examples, system, bedrock_rows.row_form(form, objective), out)

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what Bedrock would refuse in rows of its own form.

        Raises:
            SpecError: it would refuse the order's model, objective or hyperparameters.
        """
        settings(order)
        return bedrock_rows.check_rows(path, order, role)

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Put rows into the bucket, unless they are there, and return their URI."""
        return self._bucket.put(path, f"{key}-{role}.jsonl")

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return nothing: Bedrock does not say."""
        return None

    def create(self, order: Order, files: Files) -> Job:
        """Create the job with one request; the run key is its token, its name and its tag."""
        tags = [{"key": TAG, "value": order.key}]
        request: dict[str, Any] = {
            "jobName": order.key,
            "customModelName": _custom_name(order),
            "roleArn": self._connection.role,
            "clientRequestToken": order.key,
            "baseModelIdentifier": order.model,
            "trainingDataConfig": {"s3Uri": files.train},
            "outputDataConfig": {"s3Uri": f"{self._bucket.uri}{order.key}-results/"},
            "jobTags": tags,
            "customModelTags": tags,
            **settings(order),
        }
        if files.validation is not None:
            request["validationDataConfig"] = {"validators": [{"s3Uri": files.validation}]}
        made = self.call.create(lambda: Created.model_validate(self._bedrock.create_model_customization_job(**request)))
        # The answer names the job and says no more; a job begins in this state.
        return Job(id=made.job_arn, status=status_of("InProgress", STATUSES), told="InProgress", key=order.key)

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return every job of the order: the one that has its name, and those that the list shows."""
        request, named = self._bedrock.list_model_customization_jobs, {"nameContains": order.key, "maxResults": PAGE}
        listed = pages(self.call, request, "modelCustomizationJobSummaries", **named)
        names = dict.fromkeys([order.key, *(one["jobArn"] for one in listed if one.get("jobName") == order.key)])
        found: dict[str, Job] = {}
        for name in names:
            if name not in found:
                try:
                    job = self.job(name)
                except NotFoundError:
                    continue
                found[job.id] = job
        return list(found.values())

    def job(self, job: str) -> Job:
        """Return the job as it is now."""
        return self._job(job).told()

    def _job(self, job: str) -> JobAnswer:
        return self.call(lambda: JobAnswer.model_validate(self._bedrock.get_model_customization_job(jobIdentifier=job)))

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return what is known to have happened after an event, oldest first; losses by step are there when the job has ended."""
        answer = self._job(job)
        steps = read_steps(self._results(answer), answer.end_time) if answer.told().ended else []
        found = answer.events(steps)
        ids = [event.id for event in found]
        return found[ids.index(after) + 1 :] if after in ids else found

    def _results(self, answer: JobAnswer) -> dict[str, bytes]:
        """Return the files with losses. Others may hold text of examples, and what is downloaded is published."""
        return self._bucket.fetch(answer.output_data_config.s3_uri, ending="metrics.csv")

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return nothing: Bedrock keeps the last model alone."""
        return []

    def download(self, job: str, out: Path) -> list[str]:
        """Write the losses that the job left in the bucket, and those at its end; AWS keeps the weights."""
        answer = self._job(job)
        files = {_file_name(name): data for name, data in self._results(answer).items()}
        if answer.metrics:
            files["metrics.json"] = (json.dumps(answer.metrics, indent=1, sort_keys=True) + "\n").encode()
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            part = out / f"{name}.part"
            part.write_bytes(data)
            part.replace(out / name)
        return sorted(files)

    def cancel(self, job: str) -> Job:
        """Ask to stop the job. Bedrock refuses that for one that has ended, which is fine."""
        found = self._job(job)
        if found.told().ended or found.status == "Stopping":
            return found.told()
        try:
            self.call(partial(self._bedrock.stop_model_customization_job, jobIdentifier=job))
        except (SpecError, TransientError):
            if (ended := self.job(job)).ended:
                return ended
            raise
        return self.job(job)

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Make what the tuned model answers from: a deployment on demand for Nova, provisioned throughput for Claude and Llama."""
        return self._deployments.ensure(model, name)

    def deployments(self) -> list[Deployment]:
        """Return what runs under names of ours, of both kinds."""
        return self._deployments.running()

    def take_down(self, name: str) -> None:
        """End a deployment, of whichever kind; one that is gone is fine."""
        self._deployments.delete(name)

    def chat(self, model: str) -> ChatModel:
        """Return the client that prompts a base model by its id, or a tuned one by its deployment's ARN."""
        return BedrockChat(model, self._connection, self._bucket)


def _capability(found: ModelAnswer, family: Family, model: str, objective: Objective) -> Capability:
    """Return what is known of a model that Bedrock lists as tunable."""
    legacy = found.model_lifecycle.status == "LEGACY"
    rows, takes = (REINFORCED_ROWS, REINFORCEMENT) if objective == "reinforcement" else (family.rows, family.takes)
    bounds = {f"{name}_{end}": bound for name, (_, *both) in takes.items() for end, bound in zip(("min", "max"), both, strict=True)}
    why = f"bedrock lists it as tunable, {found.model_lifecycle.status.lower()}"
    if unusable := legacy and not family.on_demand:
        why += ": no throughput can be bought for a legacy model, and what is tuned from it would answer nobody"
    return Capability(
        tunable=not unusable,
        why=why,
        objectives=objectives_of(model),
        # From then on nothing would serve the tuned model.
        last_job=None if family.on_demand else found.legacy,
        shutdown=found.shutdown,
        limits={
            "rows_min": rows[0],
            "rows_max": rows[1],
            "validation_rows_max": family.validation_rows_max,
            "file_bytes": bedrock_rows.FILE_BYTES,
            "tokens_per_example": tokens_per_example(model),
            **bounds,
        },
    )


def _custom_name(order: Order) -> str:
    """Return the tuned model's name: the run key first, so that it is found by eye as well."""
    return re.sub("-+", "-", f"{order.key}-{order.name}")[:CUSTOM_NAME_MAX].rstrip("-")


def _file_name(path: str) -> str:
    """Return the name that a file of the bucket gets here: its path below the job's folder, in one name."""
    inside = path.partition("/")[2] or path
    return re.sub(r"[^A-Za-z0-9._-]", "-", inside).lstrip(".-")
