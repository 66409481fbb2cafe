"""Tuning jobs of Vertex AI's stand-in."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.vertex_rewards import REWARDS, NoReward, read_rewards, references_of
from prooftune.sandbox.vertex_rows import Kind, Unfit, count_tokens, read_examples
from prooftune.sandbox.vertex_storage import Storage
from prooftune.sandbox.work import Phase, Tuning, Works
from prooftune.types import Example

WORDS: Mapping[Phase, str] = {
    "queued": "JOB_STATE_PENDING",
    "validating": "JOB_STATE_PENDING",
    "running": "JOB_STATE_RUNNING",
    "succeeded": "JOB_STATE_SUCCEEDED",
    "failed": "JOB_STATE_FAILED",
    "cancelled": "JOB_STATE_CANCELLED",
}
SPECS: Mapping[str, tuple[Kind, str]] = {
    "supervisedTuningSpec": ("supervised", "supervisedTuningDataStats"),
    "preferenceOptimizationSpec": ("preference", "preferenceOptimizationDataStats"),
    "reinforcementTuningSpec": ("reinforcement", "reinforcementTuningDataStats"),
}
FIELDS = {"baseModel", "tunedModelDisplayName", "description", "labels", *SPECS}
CHOICES: Mapping[Kind, set[str]] = {
    "supervised": {"epochCount", "learningRateMultiplier", "adapterSize"},
    "preference": {"epochCount", "learningRateMultiplier", "adapterSize", "beta"},
    "reinforcement": {
        *("epochCount", "learningRateMultiplier", "adapterSize", "samplesPerPrompt", "batchSize", "evaluateInterval"),
        *("checkpointInterval", "maxOutputTokens", "thinkingLevel"),
    },
}
SIZES = {f"ADAPTER_SIZE_{size}" for size in ("ONE", "TWO", "FOUR", "EIGHT", "SIXTEEN")}
ANSWERS_MAX = 8_192
"""Of a step of a reinforcement tuning."""
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")


class Jobs:
    """The jobs of a stand-in. ``models`` are those that can be tuned."""

    def __init__(self, works: Works, storage: Storage, models: tuple[str, ...]) -> None:
        self.works = works
        self.storage = storage
        self.models = models

    def create(self, request: Request) -> Reply:
        """Create a job and let it run; one whose rows are unfit fails while it runs, as the real one does."""
        body = request.json
        field = self._check(body)
        kind, spec = SPECS[field][0], body[field]
        if kind == "reinforcement":
            spec = body[field] = _rewarded(spec)
        problem, rows, validation = self._read(spec, kind)
        where = f"projects/{request.found['project']}/locations/{request.found['location']}"
        number = str(uuid.uuid4().int % 10**19)
        job = Tuning(
            id=f"{where}/tuningJobs/{number}",
            model=str(body["baseModel"]).rpartition("/")[2],
            tuned=f"{where}/endpoints/{uuid.uuid4().int % 10**19}",
            rows=rows,
            validation=validation,
            epochs=int(spec.get("hyperParameters", {}).get("epochCount", 3)),
            fields={"body": body, "field": field, "model": f"{where}/models/{uuid.uuid4().int % 10**19}@1"},
        )
        self.works.fail_next = problem or self.works.fail_next
        return Reply(self.shown(self.works.start(job), new=True))

    def _check(self, body: dict[str, Any]) -> str:
        """Refuse what the API refuses at once; return the field with what is asked for."""
        if unknown := sorted(body.keys() - FIELDS):
            raise _invalid(f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.')
        if str(body.get("baseModel")).rpartition("/")[2] not in self.models:
            raise _invalid(f"Base model {body.get('baseModel')} is not supported for tuning.")
        if len(given := [name for name in SPECS if name in body]) != 1:
            raise _invalid("Exactly one tuning spec is required.")
        if len(str(body.get("tunedModelDisplayName", ""))) > 128:
            raise _invalid("tuned_model_display_name must be at most 128 characters.")
        labels = body.get("labels", {})
        if len(labels) > 64 or not all(
            _LABEL.fullmatch(value) and re.match("[a-z]", key) and _LABEL.fullmatch(key) for key, value in labels.items()
        ):
            raise _invalid("Invalid resource field value in the request: labels.")
        field = given[0]
        spec = body[field]
        chosen = spec.get("hyperParameters", {})
        if unknown := sorted(chosen.keys() - CHOICES[SPECS[field][0]]):
            raise _invalid(f'Invalid JSON payload received. Unknown name "{unknown[0]}" at "{field}.hyper_parameters": Cannot find field.')
        if chosen.get("adapterSize", "ADAPTER_SIZE_FOUR") not in SIZES:
            raise _invalid(f"Adapter size {chosen['adapterSize']} is not supported for this model.")
        if not spec.get("trainingDatasetUri"):
            raise _invalid("training_dataset_uri is required.")
        for name in ("trainingDatasetUri", "validationDatasetUri"):
            if name in spec and self.storage.read(str(spec[name])) is None:
                raise _invalid(f"Failed to read {spec[name]}: no such object, or the service agent may not read it.")
        return field

    def _read(self, spec: dict[str, Any], kind: Kind) -> tuple[str, list[Example], list[Example]]:
        """Return why the job will fail, if its files are unfit, and their examples."""
        read = {key for name in REWARDS for key in references_of(spec.get(name))}
        try:
            rows = read_examples(self.storage.read(spec["trainingDatasetUri"]) or b"", kind, read)
            held = spec.get("validationDatasetUri")
            return "", rows, read_examples(self.storage.read(held) or b"", kind, read, held=True) if held else []
        except (Unfit, ValueError) as unfit:
            return f"Dataset validation failed. {unfit}", [], []

    def find(self, request: Request) -> Tuning:
        """Return the job of a request. Raises Refused(404)."""
        found = request.found
        name = f"projects/{found['project']}/locations/{found['location']}/tuningJobs/{found['id']}"
        job = self.works.jobs.get(name)
        if job is None:
            raise Refused(404, f"The TuningJob {name} does not exist.", "NOT_FOUND")
        return job

    def list(self, request: Request) -> Reply:
        """Show the jobs, the newest first."""
        jobs = [self.shown(job) for job in reversed(self.works.jobs.values())]
        return Reply(page_of(jobs, request, "tuningJobs"))

    def retrieve(self, request: Request) -> Reply:
        """Show a job."""
        return Reply(self.shown(self.find(request)))

    def cancel(self, request: Request) -> Reply:
        """End a job; the answer is empty."""
        job = self.find(request)
        if job.ended:
            raise Refused(400, f"The TuningJob is in state {WORDS[job.phase]} and cannot be cancelled.", "FAILED_PRECONDITION")
        self.works.cancel(job)
        return Reply({})

    def shown(self, job: Tuning, *, new: bool = False) -> dict[str, Any]:
        """Return a job as the API shows it; one that was created just now has not begun. Numbers of 64 bits are strings."""
        phase: Phase = "queued" if new else job.phase
        done, ended = phase == "succeeded", phase in ("succeeded", "failed", "cancelled")
        error = (
            {"code": 3, "message": job.error} if phase == "failed" else {"code": 1, "message": "CANCELED"} if phase == "cancelled" else None
        )
        shown = {
            "name": job.id,
            **job.fields["body"],
            "createTime": _time(job.created),
            "startTime": _time(job.started) if job.started and not new else None,
            "endTime": _time(job.finished) if job.finished and ended else None,
            "updateTime": _time(job.finished or job.started or job.created),
            "state": WORDS[phase],
            "error": error,
            "tunedModel": self._tuned(job) if done else None,
            "tuningDataStats": self._stats(job) if done else None,
            "gcsMetricsUri": self._metrics(job) if done else None,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _tuned(self, job: Tuning) -> dict[str, Any]:
        saved = list(job.checkpoints)
        checkpoints = [
            {
                "checkpointId": str(number),
                "epoch": str(number),
                "step": str(one.step),
                # The last checkpoint is the tuned model; each of the others has an endpoint of its own.
                "endpoint": job.tuned if number == len(saved) else f"{job.tuned}0{number}",
            }
            for number, one in enumerate(saved, start=1)
        ]
        return {"model": job.fields["model"], "endpoint": job.tuned, "checkpoints": checkpoints}

    def _stats(self, job: Tuning) -> dict[str, Any]:
        counts = {
            "tuningDatasetExampleCount": str(len(job.rows)),
            "totalBillableTokenCount": str(sum(map(count_tokens, job.rows))),
            "tuningStepCount": str(max((saved.step for saved in job.checkpoints), default=0)),
        }
        return {SPECS[job.fields["field"]][1]: counts}

    def _metrics(self, job: Tuning) -> str:
        """Return where the job's metrics are, which are written when they are first asked for."""
        uri = str(job.fields["body"][job.fields["field"]]["trainingDatasetUri"])
        where = f"{uri.rpartition('/')[0]}/tuning-metrics-{job.id.rpartition('/')[2]}/metrics.jsonl"
        if self.storage.read(where) is None:
            rows = (json.dumps(event.metrics) + "\n" for event in job.events if event.metrics)
            self.storage.write(where, "".join(rows).encode())
        return where.rpartition("/")[0]


def _rewarded(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what a reinforcement tuning is asked for, with its reward as the API shows it. Raises Refused."""
    chosen = spec.get("hyperParameters", {})
    if chosen.get("thinkingLevel", "HIGH") not in ("MINIMAL", "HIGH"):
        raise _invalid(f"Thinking level {chosen['thinkingLevel']} is not supported.")
    answers = int(chosen.get("samplesPerPrompt", 16)) * int(chosen.get("batchSize", 32))
    if answers % 16 or answers > ANSWERS_MAX:
        raise _invalid(f"batch_size * samples_per_prompt must be divisible by 16 and at most {ANSWERS_MAX}.")
    try:
        return {**spec, **read_rewards(spec)}
    except NoReward as reason:
        raise _invalid(str(reason)) from None


def page_of(found: list[dict[str, Any]], request: Request, name: str) -> dict[str, Any]:
    """Return a page of a list: ``pageSize`` objects from ``pageToken`` on."""
    start, size = int(request.first("pageToken", "0")), min(int(request.first("pageSize", "100")), 100)
    page: dict[str, Any] = {name: found[start : start + size]}
    return page | ({"nextPageToken": str(start + size)} if len(found) > start + size else {})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _invalid(message: str) -> Refused:
    return Refused(400, message, "INVALID_ARGUMENT")
