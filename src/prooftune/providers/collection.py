"""What a finished managed job leaves in a run: the tuned model's name, the training's log, checkpoints and result files."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prooftune.errors import DataError, JobFailed, NeedsReconciliation
from prooftune.providers.ledger import Entry
from prooftune.providers.tuning import Capability, Checkpoint, Event, Job, Tuner
from prooftune.training.overfitting import overfitting
from prooftune.types import Frozen

MANAGED = "managed.json"
LOG = "log.jsonl"
JOB = "job.json"


class ManagedModel(Frozen):
    """``model/managed.json``: a tuned model that lives at its provider. It stands where the weights of a local one would."""

    provider: str
    address: str
    base_model: str
    model: str
    """As the provider's inference takes it."""
    job: str
    key: str
    """Run key."""
    shutdown: str | None
    """Day until which it answers, ISO 8601; None = no end is known."""
    owns_weights: bool


class Step(Frozen):
    """A line of a job's history; who stands behind it is in the ledger, and not published."""

    at: str
    """UTC, ISO 8601."""
    what: str


class JobFile(Frozen):
    """``job.json``: a job as it ended, how it came to that by the ledger, and what its provider reported."""

    job: Job
    history: tuple[Step, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    events: tuple[Event, ...] = ()


def collect(tuner: Tuner, entry: Entry, capability: Capability, examples: int, out: Path) -> dict[str, Any]:
    """Write what an ended job left and return the training stage's figures.

    Writes ``model/managed.json``, ``log.jsonl`` (a row per reported step), ``job.json`` (with history, checkpoints and events) and the
    provider's result files below ``result/``.

    Args:
        tuner: The provider's adapter.
        entry: The ledger's entry, its job ended.
        capability: What the provider said of the base model.
        examples: How many training examples there were.
        out: The stage's folder.

    Raises:
        JobFailed: the job ended without a model.
        NeedsReconciliation: it succeeded, and the provider names no model.
    """
    job, order = entry.job, entry.order
    if job is None or job.status != "succeeded" or job.model is None:
        raise failed(entry)
    events = tuner.events(job.id, None)
    log = training_log(events, order.hyperparameters.epochs)
    (out / LOG).write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    history = tuple(Step(at=note.at, what=note.what) for note in entry.history)
    told = JobFile(job=job, history=history, checkpoints=tuple(tuner.checkpoints(job.id)), events=tuple(events))
    (out / JOB).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
    results, model = out / "result", out / "model"
    for folder in (results, model):
        folder.mkdir(exist_ok=True)
    names = tuner.download(job.id, results)
    managed = ManagedModel(
        provider=order.provider,
        address=order.address,
        base_model=order.model,
        model=job.model,
        job=job.id,
        key=entry.key,
        shutdown=capability.shutdown.isoformat() if capability.shutdown else None,
        owns_weights=capability.owns_weights,
    )
    (model / MANAGED).write_text(managed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return {**_figures(log, order.hyperparameters.epochs), "provider": order.provider, "job": job.id, "tuned_model": job.model} | {
        "trained_tokens": job.billed_tokens,
        "billed_usd": job.billed_usd,
        "job_seconds": job_seconds(job, events),
        "checkpoints": len(told.checkpoints),
        "result_files": names,
        "examples": examples,
        "further_steps": [],
    }


def read_managed(file: Path) -> ManagedModel:
    """Return which model it is that a managed training handed on.

    Raises:
        DataError: the file is of another version.
    """
    try:
        return ManagedModel.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file.name} names no model of a provider that this version knows ({error.error_count()} problems)") from None


def training_log(events: list[Event], epochs: int) -> list[dict[str, int | float | None]]:
    """Return a row for each step that events tell a loss of, in the form of a local training's log; what is not told is None."""
    rows: dict[int, dict[str, int | float | None]] = {}
    for event in events:
        if "step" not in event.metrics or not {"train_loss", "valid_loss", "full_valid_loss"} & event.metrics.keys():
            continue
        step = int(event.metrics["step"])
        row = rows.setdefault(
            step, {"step": step, "epoch": None, "tokens": None, "loss": None, "validation_loss": None, "learning_rate": None}
        )
        for name, told in (("loss", "train_loss"), ("validation_loss", "valid_loss"), ("validation_loss", "full_valid_loss")):
            if told in event.metrics:
                row[name] = event.metrics[told]
    last = max(rows, default=0) or 1
    for step, row in rows.items():
        row["epoch"] = round(epochs * step / last, 6)
    return [rows[step] for step in sorted(rows)]


def job_seconds(job: Job, events: list[Event]) -> float | None:
    """Return the seconds from when the job was made to its last event, its wait in a queue included; None = the provider does not say."""
    told = [at for at in (job.created_at, *(event.at for event in events)) if at is not None]
    times = [at if at.tzinfo else at.replace(tzinfo=UTC) for at in told]
    return (max(times) - min(times)).total_seconds() or None if times else None


def failed(entry: Entry) -> JobFailed | NeedsReconciliation:
    """Return the error for a job that ended without a model, or whose model nobody names."""
    job, order = entry.job, entry.order
    if job is not None and job.nameless:
        return NeedsReconciliation(
            f"{order.provider} says that {job.id} succeeded, and names no model that it made. Look into its console: the next run of this "
            f"spec asks again; if there is no model, `prooftune jobs again {entry.key} --reason …` lets it submit the job once more"
        )
    told = f"{job.id} is {job.told}: {job.error or 'no reason given'}" if job else "there is no job"
    return JobFailed(
        f"{order.provider} made no model of {order.model} ({told}). Put right what it says; then `prooftune jobs again {entry.key} "
        "--reason …` lets the next run of this spec submit it once more"
    )


def _figures(log: list[dict[str, Any]], epochs: int) -> dict[str, Any]:
    checks = [row for row in log if row["validation_loss"] is not None]
    best = min(checks, key=lambda row: row["validation_loss"]) if checks else None
    losses = [row["loss"] for row in log if row["loss"] is not None]
    return {
        "steps": log[-1]["step"] if log else None,
        "epochs": epochs,
        "best_step": best["step"] if best else None,
        "train_loss": losses[-1] if losses else None,
        "validation_loss": best["validation_loss"] if best else None,
        "overfitting": overfitting(log) if checks else None,
    }
