"""Model customization jobs of Bedrock's stand-in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prooftune.sandbox.bedrock_models import CHOICES, ROWS, VALIDATION_ROWS, Foundation, of_prefix, tunable
from prooftune.sandbox.bedrock_rows import REWARDED, Unfit, read_examples
from prooftune.sandbox.bedrock_s3 import Storage
from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.work import Phase, Tuning, Works
from prooftune.types import Example

WORDS: Mapping[Phase, str] = {
    "queued": "InProgress",
    "validating": "InProgress",
    "running": "InProgress",
    "succeeded": "Completed",
    "failed": "Failed",
    "cancelled": "Stopped",
}
REQUIRED = ("jobName", "customModelName", "roleArn", "baseModelIdentifier", "trainingDataConfig", "outputDataConfig")
PATTERNS = {
    "jobName": re.compile(r"(?=.{1,63}$)[a-zA-Z0-9](-*[a-zA-Z0-9+.-])*"),
    "customModelName": re.compile(r"(?=.{1,63}$)([0-9a-zA-Z][_-]?)+"),
    "roleArn": re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+"),
    "clientRequestToken": re.compile(r"(?=.{1,256}$)[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?"),
}
PAGE = 10
"""Entries of a page that asks for no number."""


class Jobs:
    """The jobs of a stand-in."""

    def __init__(self, works: Works, storage: Storage) -> None:
        self.works = works
        self.storage = storage
        self._by_token: dict[str, Tuning] = {}

    def create(self, request: Request) -> Reply:
        """Create a job and let it run. A token that was seen makes no other; a job whose rows are unfit fails while it runs."""
        body = request.json
        model = self._check(body)
        token = str(body.get("clientRequestToken") or uuid.uuid4())
        if (earlier := self._by_token.get(token)) is not None:
            if earlier.fields["body"] != body:
                raise Refused(400, "The client request token was used with other parameters.", "ConflictException")
            return Reply({"jobArn": earlier.id}, 201)
        taken = next((job for job in self.works.jobs.values() if job.fields["body"]["jobName"] == body["jobName"]), None)
        if taken is not None:
            raise Refused(400, f"The provided job name is currently in use by job {taken.id}.", "ConflictException")
        if any(job.fields["body"]["customModelName"] == body["customModelName"] for job in self.works.jobs.values()):
            raise Refused(400, "The provided custom model name is currently in use.", "ConflictException")
        problem, rows, validation = self._read(body, model)
        account = str(body["roleArn"]).split(":")[4]
        where, number = f"arn:aws:bedrock:{region_of(request)}:{account}", uuid.uuid4().hex[:12]
        chosen = body.get("hyperParameters") or body.get("customizationConfig", {}).get("rftConfig", {}).get("hyperParameters", {})
        job = Tuning(
            id=f"{where}:model-customization-job/{model.id}/{number}",
            model=model.id,
            tuned=f"{where}:custom-model/{model.id}/{uuid.uuid4().hex[:12]}",
            rows=rows,
            validation=validation,
            epochs=int(chosen.get("epochCount", 2)),
            fields={"body": body, "unfit": bool(problem), "region": region_of(request), "token": token},
        )
        self.works.fail_next = problem or self.works.fail_next
        self._by_token[token] = self.works.start(job)
        return Reply({"jobArn": job.id}, 201)

    def _check(self, body: dict[str, Any]) -> Foundation:
        for name in REQUIRED:
            if not body.get(name):
                raise invalid(f"Value at '{name}' failed to satisfy constraint: Member must not be null")
        for name, pattern in PATTERNS.items():
            if name in body and not pattern.fullmatch(str(body[name])):
                raise invalid(f"Value at '{name}' failed to satisfy constraint: Member must satisfy regular expression pattern")
        model = tunable(str(body["baseModelIdentifier"]))
        kind = body.get("customizationType", "FINE_TUNING")
        if kind == "FINE_TUNING":
            self._check_choices(model.id, body.get("hyperParameters", {}))
        elif kind != "REINFORCEMENT_FINE_TUNING" or not model.id.startswith("amazon.nova-2-lite"):
            raise invalid(f"The customization type {kind} is not supported for this model.")
        elif not body.get("customizationConfig", {}).get("rftConfig", {}).get("graderConfig", {}).get("lambdaGrader", {}).get("lambdaArn"):
            raise invalid("A grader is required for REINFORCEMENT_FINE_TUNING.")
        for uri in (body["trainingDataConfig"]["s3Uri"], *_validators(body)):
            if self.storage.read(uri) is None:
                raise invalid(f"Could not access the S3 object {uri}. Check that it exists and that the role may read it.")
        return model

    def _check_choices(self, model: str, chosen: dict[str, Any]) -> None:
        bounds = of_prefix(CHOICES, model)
        for name, value in chosen.items():
            if name not in bounds:
                raise invalid(f"The hyperparameter {name} is not supported for this model.")
            try:
                number = float(value) if isinstance(value, str) else float("nan")
            except ValueError:
                number = float("nan")
            least, most = bounds[name]
            if not least <= number <= most:
                raise invalid(f"The value of the hyperparameter {name} must be between {least} and {most}.")

    def _read(self, body: dict[str, Any], model: Foundation) -> tuple[str, list[Example], list[Example]]:
        """Return why the job will fail, if its files are unfit, and their examples."""
        kind = body.get("customizationType", "FINE_TUNING")
        least, most = of_prefix(ROWS, model.id)
        least = REWARDED if kind == "REINFORCEMENT_FINE_TUNING" else least
        try:
            rows = read_examples(self.storage.read(body["trainingDataConfig"]["s3Uri"]) or b"", model.id, kind, least, most)
            held: list[Example] = []
            for uri in _validators(body):
                held += read_examples(self.storage.read(uri) or b"", model.id, kind, 1, of_prefix(VALIDATION_ROWS, model.id))
            return "", rows, held
        except (Unfit, ValueError, KeyError, TypeError) as unfit:
            return f"The dataset is invalid: {unfit}", [], []

    def find(self, request: Request) -> Tuning:
        """Return the job of a request, by ARN or name. Raises Refused(404)."""
        name = request.found["id"]
        for job in self.works.jobs.values():
            if name in (job.id, job.fields["body"]["jobName"]):
                return job
        raise Refused(404, f"The model customization job {name} is not found.", "ResourceNotFoundException")

    def retrieve(self, request: Request) -> Reply:
        """Show a job."""
        return Reply(self.shown(self.find(request)))

    def list(self, request: Request) -> Reply:
        """Show the jobs, the newest first."""
        named, status = request.first("nameContains"), request.first("statusEquals")
        jobs = [self._summary(job) for job in self.works.jobs.values()]
        jobs = [one for one in jobs if named in one["jobName"] and status in ("", one["status"])]
        return Reply(page_of(jobs, request, "modelCustomizationJobSummaries"))

    def stop(self, request: Request) -> Reply:
        """End a job."""
        job = self.find(request)
        if job.ended:
            raise Refused(400, f"The job is in status {WORDS[job.phase]} and cannot be stopped.", "ConflictException")
        self.works.cancel(job)
        return Reply({})

    def _summary(self, job: Tuning) -> dict[str, Any]:
        shown = self.shown(job)
        names = ("jobArn", "baseModelArn", "jobName", "status", "statusDetails", "lastModifiedTime", "creationTime", "endTime")
        summary = {name: shown[name] for name in (*names, "customizationType") if name in shown}
        if "outputModelArn" in shown:
            summary |= {"customModelArn": shown["outputModelArn"], "customModelName": shown["outputModelName"]}
        return summary

    def shown(self, job: Tuning) -> dict[str, Any]:
        """Return a job as the API shows it."""
        body, phase = job.fields["body"], job.phase
        done, ended = phase == "succeeded", phase in ("succeeded", "failed", "cancelled")
        shown = {
            "jobArn": job.id,
            "jobName": body["jobName"],
            "outputModelName": body["customModelName"],
            "outputModelArn": job.tuned if done else None,
            "clientRequestToken": job.fields["token"],
            "roleArn": body["roleArn"],
            "status": WORDS[phase],
            "statusDetails": self._phases(job, phase),
            "failureMessage": job.error if phase == "failed" else None,
            "creationTime": time_of(job.created),
            "lastModifiedTime": time_of(job.finished or job.started or job.created),
            "endTime": time_of(job.finished) if ended and job.finished else None,
            "baseModelArn": f"arn:aws:bedrock:{job.fields['region']}::foundation-model/{job.model}",
            "hyperParameters": body.get("hyperParameters"),
            "trainingDataConfig": body["trainingDataConfig"],
            "validationDataConfig": body.get("validationDataConfig", {"validators": []}),
            "outputDataConfig": body["outputDataConfig"],
            "customizationType": body.get("customizationType", "FINE_TUNING"),
            "customizationConfig": body.get("customizationConfig"),
        }
        if done:
            self._write_losses(job)
            losses = {name: _last(job, name) for name in ("train_loss", "valid_loss")}
            shown["trainingMetrics"] = {"trainingLoss": losses["train_loss"]} if losses["train_loss"] is not None else None
            if _validators(body) and losses["valid_loss"] is not None:
                shown["validationMetrics"] = [{"validationLoss": losses["valid_loss"]}]
        return {name: value for name, value in shown.items() if value is not None}

    def _phases(self, job: Tuning, phase: Phase) -> dict[str, Any]:
        """Return how far the three phases are: what is unfit fails in the first, everything else in the last."""
        reached = 0 if job.fields["unfit"] or job.started is None else 2
        current = {"succeeded": "Completed", "failed": "Failed", "cancelled": "Stopped"}.get(phase, "InProgress")
        began = job.started or job.created
        found = {}
        for number, name in enumerate(("validationDetails", "dataProcessingDetails", "trainingDetails")):
            if number > reached:
                found[name] = {"status": "NotStarted"}
                continue
            ended = began if number < reached else (job.finished or began)
            found[name] = {
                "status": "Completed" if number < reached else current,
                "creationTime": time_of(job.created if number == 0 else began),
                "lastModifiedTime": time_of(ended),
            }
        return found

    def _write_losses(self, job: Tuning) -> None:
        """Leave the losses in the bucket, once."""
        body = job.fields["body"]
        where = f"{body['outputDataConfig']['s3Uri'].rstrip('/')}/model-customization-job-{job.id.rpartition('/')[2]}"
        places = {"train_loss": f"{where}/training_artifacts/step_wise_training_metrics.csv"}
        if _validators(body):
            places["valid_loss"] = f"{where}/validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv"
        for loss, place in places.items():
            if self.storage.read(place) is None:
                name = "training_loss" if loss == "train_loss" else "validation_loss"
                told = [event.metrics for event in job.events if loss in event.metrics]
                # Steps are counted from 0, and an epoch's number is not told to the stand-in: its share of the steps is.
                rows = [f"{int(one['step']) - 1},{(number * job.epochs) // len(told)},{one[loss]}" for number, one in enumerate(told)]
                self.storage.write(place, "\n".join([f"step_number,epoch_number,{name}", *rows, ""]).encode())


def _last(job: Tuning, name: str) -> float | None:
    return next((event.metrics[name] for event in reversed(job.events) if name in event.metrics), None)


def _validators(body: dict[str, Any]) -> list[str]:
    return [one["s3Uri"] for one in body.get("validationDataConfig", {}).get("validators", [])]


def page_of(oldest_first: list[dict[str, Any]], request: Request, name: str) -> dict[str, Any]:
    """Return a page of a list, the newest first: ``maxResults`` entries from ``nextToken`` on."""
    found = oldest_first if request.first("sortOrder") == "Ascending" else oldest_first[::-1]
    start, size = int(request.first("nextToken", "0")), int(request.first("maxResults", str(PAGE)))
    if not 1 <= size <= 1000:
        raise invalid("Value at 'maxResults' failed to satisfy constraint: Member must be between 1 and 1000")
    page: dict[str, Any] = {name: found[start : start + size]}
    return page | ({"nextToken": str(start + size)} if len(found) > start + size else {})


def region_of(request: Request) -> str:
    """Return the region that a request was signed for."""
    return request.headers["authorization"].partition("Credential=")[2].split("/")[2]


def time_of(seconds: float) -> str:
    """Return a time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def invalid(message: str) -> Refused:
    """Return the refusal of a request that is none."""
    return Refused(400, message, "ValidationException")
