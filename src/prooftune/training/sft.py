"""Supervised fine-tuning on this machine with TRL and PEFT: LoRA, QLoRA or all weights, resumable to the bit."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.tokens import encode_examples
from prooftune.errors import DataError, EnvironmentLacks
from prooftune.models.loading import load_tokenizer, load_trainable, pick_device
from prooftune.spec import Method, Task, Tracking
from prooftune.tracking.mlflow_registry import refusals, require_server
from prooftune.training.batches import Schedule, plan_schedule
from prooftune.training.checkpoints import best_checkpoints, newest_intact, read_state, step_of
from prooftune.training.encoding import Encoded
from prooftune.training.overfitting import best_check, overfitting
from prooftune.training.trainer import Setting, build_trainer
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer

DEVICE_TOKENS = {"cpu": 512, "cuda": 16_384}
"""Tokens, padding included, in one forward pass: enough for full speed, little enough for memory."""
FIGURES = "training.json"
"""Written last: where it is, training is done."""


def train(
    train: Path,
    validation: Path,
    model_folder: Path,
    task: Task,
    method: Method,
    out: Path,
    *,
    model_name: str | None = None,
    trust_remote_code: bool = False,
    tracking: Tracking = Tracking(),  # noqa: B008 - frozen
    report: Report = no_report,
    keep: int = 1,
    start: Path | None = None,
) -> dict[str, object]:
    """Train on one split, check the loss on another, and keep the weights of the ``keep`` best checks.

    Writes ``adapter/`` (for ``full``: ``model/``) with tokenizer and chat template for the best check, ``further/STEP/`` with the weights
    alone for the next best ones, ``log.jsonl`` and ``training.json``. After a kill, the same call with the same ``out`` goes on from the
    newest intact checkpoint there and ends, on CPU and with as many threads, with the same bytes as an undisturbed training.
    ``model_name`` is what the adapter calls its base model; null = the folder's name. ``start`` is the folder of an adapter (for ``full``:
    of a whole model) whose weights it goes on from, with a new optimizer and schedule.

    Returns:
        Figures: steps, losses (nats per supervised token), tokens, parameters, device, what was overfitted, ``further_steps`` from better
        to worse; ``tokens_per_second`` of this call, None where all was done before.

    Raises:
        DataError: a split is empty, or the chat template cannot render an example.
        SpecError: the method does not fit the model, or training diverged.
        ModelUnavailable: the model cannot be loaded safely.
        EnvironmentLacks: a tracker's package is missing, or MLflow refuses.
        TransientError: MLflow's server cannot be reached; the same call goes on from the newest checkpoint.
    """
    trackers = _trackers(tracking)
    if (out / FIGURES).is_file():
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # a kill may have come before they were gone
        return {**json.loads((out / FIGURES).read_text()), "tokens_per_second": None}
    if tracking.mlflow is not None:
        require_server(tracking.mlflow)
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    examples = _encode(train, tokenizer, task, method)
    checks = sorted(_encode(validation, tokenizer, task, method), key=lambda row: -len(row.input_ids))
    setting = Setting(out / "checkpoints", pick_device(), trackers, report, keep)
    schedule = _schedule(examples, method, setting.device)
    stream = [examples[index] for index in schedule.order]
    resume = newest_intact(setting.checkpoints, keep)
    done_before = 0 if resume is None else int(read_state(resume)["global_step"])
    report(Progress(done=done_before, total=schedule.steps, unit="steps", text="loading the model"))
    model = load_trainable(model_folder, start, kind=method.kind, device=setting.device, trust_remote_code=trust_remote_code)
    trainer = build_trainer(model, tokenizer, stream, checks, method, schedule, setting)
    started = time.monotonic()
    if resume is None or not _is_end(read_state(resume), schedule):
        with _tracking_to(tracking):
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    seconds = time.monotonic() - started
    last = setting.checkpoints / f"checkpoint-{trainer.state.global_step or done_before}"
    log = _log(read_state(last), stream, method.batch_size, len(examples))
    kept = best_checkpoints(last, keep)
    figures = _figures(log, schedule, trainer, stream, method) | {"further_steps": [step_of(checkpoint) for checkpoint in kept[1:]]}
    _write_outputs(out, kept, tokenizer, method, model_name or model_folder.name, log)
    _finish(out, figures)
    trained_now = sum(len(row.input_ids) for row in stream[done_before * method.batch_size : len(log) * method.batch_size])
    return {**figures, "tokens_per_second": round(trained_now / seconds, 1) if trained_now else None}


def _encode(path: Path, tokenizer: PreTrainedTokenizerBase, task: Task, method: Method) -> list[Encoded]:
    rows = [encoded for _, encoded in encode_examples(path, tokenizer, task, method.max_length)]
    if not any(any(row.supervised) for row in rows):
        raise DataError(
            f"{path.name} has {len(rows)} examples with not one supervised token within max_length {method.max_length}; "
            "bring more data, or raise backend.method.max_length"
        )
    return rows


def _schedule(examples: Sequence[Encoded], method: Method, device: str) -> Schedule:
    return plan_schedule(
        [len(row.input_ids) for row in examples],
        epochs=method.epochs,
        batch_size=method.batch_size,
        checks_per_epoch=method.checks_per_epoch,
        seed=method.seed,
        device_tokens=DEVICE_TOKENS[device],
    )


def _is_end(state: Mapping[str, Any], schedule: Schedule) -> bool:
    # The trainer forgets, when it resumes, that early stopping had ended the training.
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback")
    patience_lost = stopping is not None and (
        stopping["attributes"]["early_stopping_patience_counter"] >= stopping["args"]["early_stopping_patience"]
    )
    return bool(patience_lost or state["global_step"] >= schedule.steps)


def _log(state: Mapping[str, Any], stream: Sequence[Encoded], batch_size: int, examples: int) -> list[dict[str, object]]:
    """Return one row per step; ``tokens`` counts from the start, ``validation_loss`` is None between checks."""
    checks = {row["step"]: row["eval_loss"] for row in state["log_history"] if "eval_loss" in row}
    rows: list[dict[str, object]] = []
    tokens = 0
    for row in (row for row in state["log_history"] if "loss" in row):
        step = row["step"]
        seen = min(step * batch_size, len(stream))
        tokens += sum(len(example.input_ids) for example in stream[(step - 1) * batch_size : seen])
        rows.append(
            {
                "step": step,
                "epoch": round(seen / examples, 6),
                "tokens": tokens,
                "loss": row["loss"],
                "validation_loss": checks.get(step),
                "learning_rate": row["learning_rate"],
            }
        )
    return rows


def _figures(
    log: Sequence[Mapping[str, Any]],
    schedule: Schedule,
    trainer: SFTTrainer,
    stream: Sequence[Encoded],
    method: Method,
) -> dict[str, object]:
    best = best_check(log)
    recent = log[-schedule.check_every :]
    trained = stream[: len(log) * method.batch_size]
    return {
        "steps": len(log),
        "planned_steps": schedule.steps,
        "best_step": best["step"],
        "best_epoch": best["epoch"],
        "stopped_early": len(log) < schedule.steps,
        "train_loss": sum(row["loss"] for row in recent) / len(recent),
        "validation_loss": best["validation_loss"],
        "overfitting": overfitting(log),
        "trained_tokens": log[-1]["tokens"],
        "supervised_tokens": sum(sum(row.supervised) for row in trained),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "per_device_batch_size": schedule.per_device,
        "accumulation": schedule.accumulation,
        "device": trainer.args.device.type,
    }


def _write_outputs(
    out: Path, kept: Sequence[Path], tokenizer: PreTrainedTokenizerBase, method: Method, model_name: str, log: Sequence[Mapping[str, Any]]
) -> None:
    best, further = out / ("model" if method.kind == "full" else "adapter"), out / "further"
    for folder in (best, further):
        shutil.rmtree(folder, ignore_errors=True)  # left by an attempt that was killed while it wrote
    _copy_weights(kept[0], best, model_name)
    tokenizer.save_pretrained(best)
    for checkpoint in kept[1:]:
        _copy_weights(checkpoint, further / str(step_of(checkpoint)), model_name)
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def _copy_weights(checkpoint: Path, folder: Path, model_name: str) -> None:
    """Copy what a candidate is loaded from, without the tokenizer."""
    folder.mkdir(parents=True)
    for path in sorted([*checkpoint.glob("*.safetensors*"), *checkpoint.glob("*config.json")]):
        if path.name != "tokenizer_config.json":
            shutil.copyfile(path, folder / path.name)
    if (settings := folder / "adapter_config.json").is_file():
        _name_base(settings, model_name)


def _name_base(adapter_config: Path, model_name: str) -> None:
    """Name the base model instead of this machine's path to it, and put what is a set in a stable order."""
    config = json.loads(adapter_config.read_text())
    config["base_model_name_or_path"] = model_name
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    adapter_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _finish(out: Path, figures: Mapping[str, object]) -> None:
    unfinished = out / f"{FIGURES}.unfinished"
    unfinished.write_text(json.dumps(figures, indent=1) + "\n")
    unfinished.replace(out / FIGURES)
    shutil.rmtree(out / "checkpoints")


def _trackers(tracking: Tracking) -> tuple[str, ...]:
    wanted = tuple(name for name in ("mlflow", "wandb") if getattr(tracking, name) is not None)
    for name in wanted:
        if find_spec(name) is None:
            raise EnvironmentLacks(
                f"tracking.{name} is set, but the package {name} is not installed; run `pip install {name}`, or set it to null"
            )
    return wanted


@contextmanager
def _tracking_to(tracking: Tracking) -> Iterator[None]:
    """Set, for the time being, the environment variables from which the trackers' integrations take their target."""
    wanted = {"MLFLOW_TRACKING_URI": tracking.mlflow, "WANDB_PROJECT": tracking.wandb}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if value is not None})
    try:
        with nullcontext() if tracking.mlflow is None else refusals(tracking.mlflow):
            yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
