"""Fine-tuning jobs of OpenAI's stand-in."""

from __future__ import annotations

import base64
import csv
import io
import math
import random
import uuid
from collections.abc import Sequence
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.openai_files import FileStore, is_name, new_id, page_of
from prooftune.sandbox.openai_rows import Kind, Unfit, read_examples
from prooftune.sandbox.work import Phase, Saved, Told, Tuning, Works
from prooftune.types import Example

WORDS: dict[Phase, str] = {
    "queued": "validating_files",
    "validating": "queued",
    "running": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""The phases of a stand-in's job in OpenAI's words; its files are checked before it is queued."""
ORGANISATION = "org-prooftune-sandbox"
FIELDS = {"model", "training_file", "validation_file", "hyperparameters", "method", "seed", "suffix", "metadata", "integrations"}
KINDS: tuple[Kind, ...] = ("supervised", "dpo", "reinforcement")
BOUNDS: dict[str, tuple[float, float]] = {
    "n_epochs": (1, 50),
    "batch_size": (1, 256),
    "learning_rate_multiplier": (1e-9, math.inf),
    "beta": (1e-9, 2),
}
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


class FineTuning:
    """The jobs of a stand-in and what is told of them. ``models`` maps each name that can be tuned to that of its version."""

    fields = FIELDS
    stores_metadata = True
    suffix_max = 64

    def __init__(self, works: Works, files: FileStore, models: dict[str, str]) -> None:
        self.works = works
        self.files = files
        self.models = models

    def create(self, request: Request) -> Reply:
        """Create a job and let it run; one whose files are unfit fails while it runs, as the real one does."""
        body = request.json
        self.check(body)
        kind, chosen = self._method(body)
        problem, rows, validation = self._read(body, kind)
        model = self.started_from(body["model"])
        epochs = chosen.get("n_epochs", "auto")
        job = Tuning(
            id=new_id("ftjob-"),
            model=model,
            tuned=self.tuned_name(self._root(model), body.get("suffix") or ""),
            rows=rows,
            validation=validation,
            epochs=3 if epochs == "auto" else int(epochs),
            fields={"kind": kind, "chosen": chosen, **{name: body.get(name) for name in self.fields}},
        )
        job.fields["seed"] = random.randrange(2**31) if body.get("seed") is None else body["seed"]  # noqa: S311 - no secret
        self.works.fail_next = problem or self.works.fail_next
        return Reply(self.shown(self.works.start(job), new=True))

    def check(self, body: dict[str, Any]) -> None:
        """Refuse what the API refuses at once."""
        if unknown := sorted(body.keys() - self.fields):
            raise Refused(400, f"Unrecognized request argument supplied: {unknown[0]}", "unknown_parameter", unknown[0])
        if not self.started_from(str(body.get("model"))):
            told = f"Model {body.get('model')} is not available for fine-tuning or does not exist."
            raise Refused(400, told, "model_not_available", "model")
        for name in ("training_file", "validation_file"):
            if name == "validation_file" and body.get(name) is None:
                continue
            file = self.files.files.get(str(body.get(name)))
            if file is None or file.purpose != "fine-tune":
                raise Refused(400, f"invalid {name}: {body.get(name)}", f"invalid_{name}", name)
        suffix, metadata, seed = body.get("suffix"), body.get("metadata"), body.get("seed")
        if suffix is not None and not is_name(suffix, self.suffix_max):
            raise Refused(400, f"Invalid suffix: up to {self.suffix_max} letters, digits, dots and dashes.", "invalid_value", "suffix")
        if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**31):
            raise Refused(400, f"Invalid seed: {seed}", "invalid_value", "seed")
        if metadata is not None and not (
            len(metadata) <= 16 and all(isinstance(v, str) and len(k) <= 64 and len(v) <= 512 for k, v in metadata.items())
        ):
            raise Refused(400, "Invalid metadata: up to 16 pairs, keys of 64 and values of 512 characters.", "invalid_value", "metadata")

    def started_from(self, name: str) -> str:
        """Return what a job of this model starts from: a base model's version, or a tuned model, which is gone on from; "" = neither."""
        tuned = any(job.tuned == name and job.phase == "succeeded" for job in self.works.jobs.values())
        return name if tuned else self.models.get(name, "")

    def _root(self, model: str) -> str:
        """Return the base model's version behind a tuned model, however often it was tuned."""
        before = next((job for job in self.works.jobs.values() if job.tuned == model), None)
        return model if before is None else self._root(before.model)

    def _method(self, body: dict[str, Any]) -> tuple[Kind, dict[str, Any]]:
        method = body.get("method") or {"type": "supervised", "supervised": {"hyperparameters": body.get("hyperparameters") or {}}}
        kind = method.get("type")
        if kind not in KINDS:
            raise Refused(400, f"Invalid method type: {kind}", "invalid_value", "method.type")
        settings = method.get(kind) or {}
        chosen: dict[str, Any] = settings.get("hyperparameters") or {}
        for name, value in chosen.items():
            low, high = BOUNDS.get(name, (0, math.inf))
            if name not in BOUNDS or (name == "beta") > (kind == "dpo"):
                raise Refused(400, f"Unrecognized hyperparameter: {name}", "unknown_parameter", f"method.{kind}.hyperparameters.{name}")
            if value != "auto" and not (isinstance(value, int | float) and low <= value <= high):
                raise Refused(400, f"Invalid {name}: {value}", "invalid_value", f"method.{kind}.hyperparameters.{name}")
        if kind == "reinforcement" and (not settings.get("grader") or body.get("validation_file") is None):
            missing = "method.reinforcement.grader" if not settings.get("grader") else "validation_file"
            raise Refused(400, f"Missing required parameter: '{missing}'.", "missing_required_parameter", missing)
        return kind, chosen

    def _read(self, body: dict[str, Any], kind: Kind) -> tuple[str, Sequence[Example], Sequence[Example]]:
        """Return why the job will fail, if its files are unfit, and their examples."""
        try:
            rows = read_examples(self.files.get(body["training_file"]).content(), kind)
            held = body.get("validation_file")
            return "", rows, read_examples(self.files.get(held).content(), kind, 1) if held else []
        except Unfit as unfit:
            return f"The job failed due to an invalid training file. {unfit}", [], []

    def tuned_name(self, model: str, suffix: str) -> str:
        """Return the name of the model that a job makes."""
        return f"ft:{model}:{ORGANISATION.removeprefix('org-')}:{suffix}:{uuid.uuid4().hex[:8]}"

    def find(self, request: Request) -> Tuning:
        """Return the job of a request. Raises Refused(404)."""
        job = self.works.jobs.get(request.found["id"])
        if job is None:
            raise Refused(404, f"Could not find fine tune: {request.found['id']}", "fine_tune_not_found", "fine_tuning_job_id")
        return job

    def shown(self, job: Tuning, *, new: bool = False) -> dict[str, Any]:
        """Return a job as the API shows it; one that was created just now has not begun."""
        paused = job.fields.get("paused") and not new
        phase: Phase = "queued" if new else "running" if paused else job.phase
        done, ended = phase == "succeeded", phase in ("succeeded", "failed", "cancelled")
        chosen = {"n_epochs": job.epochs, "batch_size": "auto", "learning_rate_multiplier": "auto", **job.fields["chosen"]}
        kind = job.fields["kind"]
        settings = dict((job.fields.get("method") or {}).get(kind) or {}) | {"hyperparameters": chosen}
        return {
            "object": "fine_tuning.job",
            "id": job.id,
            "model": job.model,
            "created_at": int(job.created),
            "finished_at": int(job.finished) if ended and job.finished else None,
            "fine_tuned_model": job.tuned if done else None,
            "organization_id": ORGANISATION,
            "result_files": [self._result(job)] if done else [],
            "status": "paused" if paused else WORDS[phase],
            "validation_file": job.fields.get("validation_file"),
            "training_file": job.fields["training_file"],
            "hyperparameters": {name: chosen[name] for name in ("n_epochs", "batch_size", "learning_rate_multiplier")},
            "trained_tokens": job.billed_tokens if done else None,
            "error": {"code": "invalid_training_file", "param": "training_file", "message": job.error} if phase == "failed" else None,
            "seed": job.fields["seed"],
            "estimated_finish": int(job.started) + 60 if phase == "running" and job.started else None,
            "integrations": [],
            "method": {"type": kind, kind: settings},
            **({"metadata": job.fields.get("metadata")} if self.stores_metadata else {}),
            "user_provided_suffix": job.fields.get("suffix"),
        }

    def _result(self, job: Tuning) -> str:
        """Return the id of the job's result file, which is written when it is first asked for."""
        if "result" not in job.fields:
            job.fields["result"] = self.files.add("step_metrics.csv", "fine-tune-results", self.encoded(self._table(job))).id
        return str(job.fields["result"])

    def encoded(self, table: bytes) -> bytes:
        """Return a result file as it is sent: OpenAI encodes it."""
        return base64.b64encode(table)

    def _table(self, job: Tuning) -> bytes:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(event.metrics for event in job.events if event.metrics)
        return text.getvalue().encode()

    def list(self, request: Request) -> Reply:
        """Show the jobs, the newest first; the query ``metadata[KEY]=VALUE`` narrows them."""
        wanted = {name[len("metadata[") : -1]: values[0] for name, values in request.query.items() if name.startswith("metadata[")}
        found = [
            self.shown(job)
            for job in reversed(self.works.jobs.values())
            if not self.stores_metadata or wanted.items() <= (job.fields.get("metadata") or {}).items()
        ]
        page = page_of(found, request, 20)
        return Reply({name: page[name] for name in ("object", "data", "has_more")})

    def retrieve(self, request: Request) -> Reply:
        """Show a job."""
        return Reply(self.shown(self.find(request)))

    def cancel(self, request: Request) -> Reply:
        """End a job."""
        job = self.find(request)
        if job.ended:
            raise Refused(400, f"Job has already completed: {WORDS[job.phase]}", "invalid_state", "fine_tuning_job_id")
        self.works.cancel(job)
        return Reply(self.shown(job))

    def pause(self, request: Request) -> Reply:
        """Show a job as paused until it is resumed."""
        job = self.find(request)
        if job.phase != "running":
            raise Refused(400, f"Only a running job can be paused; this one is {WORDS[job.phase]}", "invalid_state", "fine_tuning_job_id")
        job.fields["paused"] = True
        return Reply(self.shown(job))

    def resume(self, request: Request) -> Reply:
        """Show a job as it is again."""
        job = self.find(request)
        job.fields["paused"] = False
        return Reply(self.shown(job))

    def events(self, request: Request) -> Reply:
        """Show a job's events, the newest first."""
        job = self.find(request)
        page = page_of([_event(job, told) for told in reversed(list(job.events))], request, 20)
        return Reply({name: page[name] for name in ("object", "data", "has_more")})

    def checkpoints(self, request: Request) -> Reply:
        """Show a job's checkpoints, the newest first."""
        job = self.find(request)
        return Reply(page_of([self.checkpoint(job, saved) for saved in reversed(list(job.checkpoints))], request, 10))

    def checkpoint(self, job: Tuning, saved: Saved) -> dict[str, Any]:
        """Return a checkpoint as the API shows it."""
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt_{job.id.removeprefix('ftjob-')}_{saved.step}",
            "created_at": int(saved.at),
            "fine_tuned_model_checkpoint": f"{job.tuned}:ckpt-step-{saved.step}",
            "step_number": saved.step,
            "metrics": saved.metrics,
            "fine_tuning_job_id": job.id,
        }


def _event(job: Tuning, told: Told) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{job.id.removeprefix('ftjob-')}-{told.number}",
        "created_at": int(told.at),
        "level": "error" if "failed" in told.text else "info",
        "message": told.text,
        "type": "metrics" if told.metrics else "message",
        "data": dict(told.metrics),
    }
