"""Fine-tuning jobs as Together's stand-in shows them: in lists, alone, and by what they report and cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prooftune.sandbox.work import Phase, Tuning

NANODOLLARS_PER_TOKEN = 480
STATUSES: Mapping[Phase, str] = {
    "queued": "pending",
    "validating": "queued",
    "running": "running",
    "succeeded": "completed",
    "failed": "error",
    "cancelled": "cancelled",
}
_SHOWN = frozenset(
    {"model", "training_file", "validation_file", "batch_size", "learning_rate", "lr_scheduler", "max_grad_norm"}
    | {"n_checkpoints", "n_epochs", "n_evals", "training_method", "warmup_ratio", "weight_decay"}
)
"""Fields of a request that a job shows as they came."""
_TYPES = {
    "Created": "job_pending",
    "Validating": "training_data_downloading",
    "Fine-tuning": "training_start",
    "Step": "epoch_complete",
    "New": "model_upload_complete",
    "The job has": "job_complete",
    "The job failed": "job_error",
    "The job was": "job_stopped",
}
"""Type of an event, by how it begins."""


def billed(job: Tuning) -> int:
    """Return the tokens of a job that succeeded: training rows by epochs, and validation rows by evaluations."""
    looks = int(job.fields.get("n_evals") or 0)
    return job.billed_tokens + looks * sum(map(job.count, job.validation)) if job.phase == "succeeded" else 0


def object_id(job: Tuning, kind: str) -> str:
    """Return the id in the registry of what came of a job: ``model`` or ``adapter``."""
    return f"ml_{kind}_{job.id.removeprefix('ft-')}"


def moment(at: float) -> str:
    """Return a time as the API writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def listed(job: Tuning) -> dict[str, Any]:
    """Return a job as lists and answers to requests that change it show it."""
    body = job.fields
    shown = _common(job)
    batch = shown.pop("batch_size", None)
    return {
        **shown,
        **({"batch_size": batch} if isinstance(batch, int) else {}),
        "packing": True,
        "owner_address": "0xacme",
        **{name: body[name] for name in ("random_seed", "suffix") if body.get(name) is not None},
    }


def whole(job: Tuning) -> dict[str, Any]:
    """Return a job as it is shown where it alone is asked for: without suffix and seed, with what stands in the registry."""
    shown = _common(job) | {"job_id": job.id}
    if job.phase == "succeeded":
        shown |= {f"{kind}_object_id": object_id(job, kind) for kind in ("model", "adapter")}
    return shown


def _common(job: Tuning) -> dict[str, Any]:
    body, tokens = job.fields, billed(job)
    adapter = body.get("training_type") or {"type": "Lora", "lora_r": 16, "lora_alpha": 32}
    return {
        "id": job.id,
        "status": STATUSES[job.phase],
        "user_id": "user-acme",
        "created_at": moment(job.created),
        "updated_at": moment(job.finished or job.started or job.created),
        "model_output_name": job.tuned,
        "token_count": tokens,
        "total_price": tokens * NANODOLLARS_PER_TOKEN,
        "events": events(job),
        "training_type": adapter,
        **({"started_at": moment(job.started)} if job.started else {}),
        **{name: body[name] for name in _SHOWN if body.get(name) is not None},
    }


def events(job: Tuning) -> list[dict[str, Any]]:
    """Return what a job told."""
    return [
        {
            "object": "fine-tune-event",
            "created_at": moment(event.at),
            "level": "error" if event.text.startswith("The job failed") else "info",
            "message": event.text,
            "type": next((kind for start, kind in _TYPES.items() if event.text.startswith(start)), "warning"),
            **({"step": int(event.metrics["step"])} if "step" in event.metrics else {}),
        }
        for event in job.events
    ]


def metrics(job: Tuning) -> list[dict[str, float]]:
    """Return what a job measured: a row a step, and a row an evaluation."""
    rows: list[dict[str, float]] = []
    for event in job.events:
        at = int(event.at * 1e6) * 1000
        for kind, name in (("train", "train_loss"), ("eval", "valid_loss")):
            if name in event.metrics and (kind == "train" or job.validation):
                rows.append({"timestamp": at, f"{kind}/global_step": int(event.metrics["step"]), f"{kind}/loss": event.metrics[name]})
    return rows
