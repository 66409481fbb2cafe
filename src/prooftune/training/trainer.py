"""The TRL trainer with our loss, our checks and our progress; its classes are built in functions, because importing TRL takes seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.errors import Problem, SpecError
from prooftune.spec import Method
from prooftune.training.batches import Schedule
from prooftune.training.checkpoints import prune, write_manifest
from prooftune.training.encoding import Encoded
from prooftune.types import Progress, Report

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer

IGNORED = -100
"""Label of a token whose loss does not count; the value is PyTorch's."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how a training runs, apart from the method."""

    checkpoints: Path
    device: str
    """``cpu`` or ``cuda``."""
    trackers: tuple[str, ...]
    """``mlflow``, ``wandb`` or none."""
    report: Report
    keep: int = 1
    """Checkpoints to keep, the best by validation loss, beside those for resuming."""


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stream: Sequence[Encoded],
    checks: Sequence[Encoded],
    method: Method,
    schedule: Schedule,
    setting: Setting,
) -> SFTTrainer:
    """Return a trainer that takes ``stream`` in the order given and checks the loss on ``checks``.

    Raises:
        SpecError: the method wants adapters on more layers than the model has.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback

    callbacks = [_watch(setting)]
    if method.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=method.early_stopping))
    trainer = _trainer_class(checks)(
        model=model,
        args=_arguments(method, schedule, setting),
        train_dataset=dataset(stream),
        eval_dataset=dataset(checks),
        processing_class=tokenizer,
        peft_config=None if method.kind == "full" or hasattr(model, "peft_config") else adapter_config(model, method),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # stdout belongs to the command line
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL casts the adapters of a quantized model to bf16, which swallows updates below 1/256
            parameter.data = parameter.data.float()
    return trainer


def dataset(rows: Sequence[Encoded]) -> Dataset:
    """Return the rows as TRL takes them when the loss mask is already made: ``input_ids`` and ``labels``, used as they are."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [_labels(row) for row in rows]})


def adapter_config(model: PreTrainedModel, method: Method) -> LoraConfig:
    """Return LoRA on all linear layers but the head (Hu et al., 2021, https://arxiv.org/abs/2106.09685), or on those of the last blocks.

    Raises:
        SpecError: ``method.layers`` exceeds the model's layers.
    """
    from peft import LoraConfig

    layers: list[int] | None = None
    targets: str | list[str] = "all-linear"
    if method.layers is not None:
        count = model.config.get_text_config().num_hidden_layers
        if method.layers > count:
            reason = f"adapters on the last {method.layers} layers, but the model has {count}; set it to at most {count}, or to null"
            raise SpecError("the method does not fit the model:", (Problem("backend.method.layers", reason),))
        layers, targets = list(range(count - method.layers, count)), _linear_names(model)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets,
        layers_to_transform=layers,
    )


def supervised_nll(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed negative log-likelihood (nats) of the supervised tokens, projecting onto the vocabulary only where they are.

    Equal to the masked loss over all positions; in a small model that projection is a fifth of the work.

    Args:
        model: a causal language model.
        inputs: ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, seq)``; labels are -100 where unsupervised.
    """
    from torch.nn import functional

    targets = functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # position t predicts token t + 1
    positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=positions).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), targets[:, positions].flatten(), ignore_index=IGNORED, reduction="sum")


def _trainer_class(checks: Sequence[Encoded]) -> type[SFTTrainer]:
    from trl import SFTTrainer

    tokens_per_example = sum(sum(row.supervised) for row in checks) / len(checks)

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose losses are means over supervised tokens, whatever the batch size."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """Return the batch's share of the mean loss (nats per supervised token)."""
            if not model.training:
                # The evaluation loop averages over examples: in units of the mean example, that is the mean over tokens.
                num_items_in_batch = len(inputs["labels"]) * tokens_per_example
            if self.args.device.type == "cpu":
                # TRL's own head scores every position on CPU, and twice; on CUDA it already does what is done here.
                return supervised_nll(model, inputs) / num_items_in_batch
            return super().compute_loss(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Write none: ours is made from the evaluation."""

    return Trainer


def _arguments(method: Method, schedule: Schedule, setting: Setting) -> SFTConfig:
    import torch
    from trl import SFTConfig

    cuda = setting.device == "cuda"
    ampere = cuda and torch.cuda.get_device_capability() >= (8, 0)  # what is older has no TF32, and transformers refuses it
    return SFTConfig(
        output_dir=str(setting.checkpoints),
        # The stream already holds all epochs in order, so the trainer sees a single one.
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        per_device_train_batch_size=schedule.per_device,
        per_device_eval_batch_size=schedule.per_device,
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=method.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(0.05 * schedule.steps),
        optim="adamw_torch",
        use_cpu=not cuda,
        bf16=cuda,
        tf32=True if ampere else None,
        activation_checkpointing=cuda and method.kind == "qlora",  # recomputing buys memory with time
        seed=method.seed,
        data_seed=method.seed,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=schedule.check_every,
        save_steps=schedule.check_every,
        restore_callback_states_from_checkpoint=True,  # early stopping's count of checks without a gain
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must show
        disable_tqdm=True,
        report_to=list(setting.trackers) or "none",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        dataloader_pin_memory=cuda,
    )


def _watch(setting: Setting) -> TrainerCallback:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Reports every step, stops at a loss that is no number, seals each checkpoint with its manifest and removes old ones."""

        validation = ""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            logs = logs or {}
            if not math.isfinite(loss := logs.get("loss", logs.get("eval_loss", 0.0))):
                reason = f"the loss is {loss} after step {state.global_step} with a peak learning rate of {args.learning_rate}; lower it"
                raise SpecError("training diverged:", (Problem("backend.method.learning_rate", reason, code="diverged"),))
            if "eval_loss" in logs:
                self.validation = f", validation {logs['eval_loss']:.3f}"
                logger.info("step %d of %d%s", state.global_step, state.max_steps, self.validation)
            if "loss" in logs:
                text = f"loss {loss:.3f}{self.validation}"
                setting.report(Progress(done=state.global_step, total=state.max_steps, unit="steps", text=text))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            write_manifest(setting.checkpoints / f"checkpoint-{state.global_step}")
            prune(setting.checkpoints, setting.keep)

    return Watch()


def _linear_names(model: PreTrainedModel) -> list[str]:
    from torch import nn

    head = model.get_output_embeddings()
    return sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}
    )


def _labels(row: Encoded) -> list[int]:
    return [token if supervised else IGNORED for token, supervised in zip(row.input_ids, row.supervised, strict=True)]
