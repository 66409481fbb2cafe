"""Fine-tuning at Together's stand-in: limits, prices, jobs, what they report, and the weights that come of them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import uuid
from collections.abc import Mapping
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.together_files import FileStore, StoredFile, examples_of
from prooftune.sandbox.together_shown import NANODOLLARS_PER_TOKEN, billed, events, listed, metrics, moment, object_id, whole
from prooftune.sandbox.work import Tuning, Works, tokens_of
from prooftune.types import Example

ACCOUNT = "acme"
MODEL = "Qwen/Qwen3.5-9B"
BASE_MODELS: Mapping[str, Mapping[str, int]] = {MODEL: {"max_seq_length_dpo": 16_384}, "google/gemma-3-4b-it": {"max_seq_length_dpo": 0}}
"""Models that can be tuned; the second by supervised fine-tuning alone."""
SUFFIX_MAX = 40
_DATA = {"training_file", "validation_file", "model", "from_checkpoint", "from_hf_model", "hf_model_revision", "hf_api_token"}
_SETTINGS = {
    "n_epochs",
    "n_evals",
    "n_checkpoints",
    "batch_size",
    "gradient_accumulation_steps",
    "max_seq_length",
    "packing",
    "random_seed",
}
_OPTIMIZER = {"learning_rate", "lr_scheduler", "warmup_ratio", "max_grad_norm", "weight_decay", "training_type", "training_method"}
_OTHERS = {"suffix", "hf_output_repo_name", "multimodal_params", "train_on_inputs", "early_stopping_enabled"}
PARAMETERS = _DATA | _SETTINGS | _OPTIMIZER | _OTHERS


class Jobs:
    """The jobs of the account."""

    def __init__(self, brain: Brain, files: FileStore, pace_s: float) -> None:
        self.works = Works(brain, tokens_of(brain), pace_s)
        self._files = files

    def routes(self) -> list[Route]:
        """Return the paths of fine-tuning."""
        one = "/v1/fine-tunes/(?P<id>ft-[^/]+)"
        return [
            Route("GET", "/v1/fine-tunes/models/limits", "probe", self._limits),
            Route("POST", "/v1/fine-tunes/estimate-price", "estimate", self._estimate),
            Route("POST", "/v1/fine-tunes", "create_job", self._create),
            Route("GET", "/v1/fine-tunes", "list_jobs", self._list),
            Route("GET", one, "get_job", lambda request: Reply(whole(self.job(request)))),
            Route("POST", f"{one}/cancel", "cancel_job", self._cancel),
            Route("GET", f"{one}/events", "list_events", lambda request: Reply({"data": events(self.job(request))})),
            Route("GET", f"{one}/metrics", "list_metrics", lambda request: Reply({"metrics": metrics(self.job(request))})),
            Route("GET", f"{one}/checkpoints", "list_checkpoints", self._checkpoints),
            Route("GET", "/v1/finetune/download", "result_file", self._download),
        ]

    @property
    def billed_tokens(self) -> int:
        """What all jobs are billed for."""
        return sum(map(billed, self.works.jobs.values()))

    def job(self, request: Request) -> Tuning:
        """Return the job that a path or a query names. Raises Refused(404)."""
        name = request.found.get("id") or request.first("ft_id")
        if name not in self.works.jobs:
            raise Refused(404, f"Fine-tune job {name} not found", "not_found")
        return self.works.jobs[name]

    def _limits(self, request: Request) -> Reply:
        model = request.first("model_name")
        if model not in BASE_MODELS:
            raise Refused(404, f"Model {model} is not available for fine-tuning", "not_found")
        batch = {"min_batch_size": 8, "max_batch_size": 64, "max_batch_size_dpo": 32 if BASE_MODELS[model]["max_seq_length_dpo"] else 0}
        return Reply(
            {
                "model_name": model,
                "default_gradient_accumulation_steps": 1,
                "lora_training": {**batch, "default_rank": 16, "max_rank": 64, "target_modules": ["q_proj", "k_proj", "v_proj"]},
                "full_training": batch,
                "max_learning_rate": 0.01,
                "min_learning_rate": 1e-8,
                "max_num_checkpoints": 10,
                "max_num_epochs": 20,
                "max_num_evals": 100,
                "max_seq_length_sft": 32_768,
                "max_seq_length_dpo": BASE_MODELS[model]["max_seq_length_dpo"],
                "min_max_seq_length": 1024,
                "merge_output_lora": True,
                "supports_full_training": True,
                "supports_reasoning": False,
                "supports_tools": True,
                "supports_vision": False,
            }
        )

    def _estimate(self, request: Request) -> Reply:
        body = request.json
        file = self._files.get(str(body.get("training_file")))
        if file.status != "COMPLETED":
            reason = "train_file_invalid" if file.error else "train_file_not_validated"
            return Reply({"estimation_available": False, "unavailable_reason": reason})
        trained = sum(map(self.works.count, examples_of(file.content, file.dataset))) * int(body.get("n_epochs") or 1)
        looked = self._files.get(str(body["validation_file"])) if body.get("validation_file") else None
        seen = sum(map(self.works.count, examples_of(looked.content, looked.dataset))) * int(body.get("n_evals") or 0) if looked else 0
        usd = (trained + seen) * NANODOLLARS_PER_TOKEN / 1e9
        return Reply(
            {
                "estimation_available": True,
                "allowed_to_proceed": usd <= self.credit_usd,
                "estimated_train_token_count": float(trained),
                "estimated_eval_token_count": float(seen),
                "estimated_total_price": usd,
                "user_limit": self.credit_usd,
            }
        )

    credit_usd = 100.0
    """What the account may spend. A job that costs more is created all the same, as at the real one."""

    def _create(self, request: Request) -> Reply:
        body = request.json
        self._require_trainable(body)
        rows = self._rows(body, "training_file")
        validation = self._rows(body, "validation_file") if body.get("validation_file") else []
        number = str(uuid.uuid4())
        suffix = f":{body['suffix']}" if body.get("suffix") else ""
        tuned = f"{ACCOUNT}/{str(body['model']).rpartition('/')[2]}{suffix}:{number.partition('-')[0]}"
        job = Tuning(f"ft-{number}", str(body["model"]), tuned, rows, validation, int(body["n_epochs"]), body)
        shown = listed(job)
        self.works.start(job)
        return Reply(shown)

    def _rows(self, body: Mapping[str, Any], name: str) -> list[Example]:
        file: StoredFile = self._files.ready(str(body[name]), "fine-tune")
        wanted = "PREFERENCE_OPENAI" if _method(body) == "dpo" else "CONVERSATION"
        if file.dataset != wanted:
            raise Refused(400, f"{name} has the format {file.dataset}; {_method(body)} training takes {wanted}", "invalid_file", name)
        return examples_of(file.content, file.dataset)

    def _require_trainable(self, body: Mapping[str, Any]) -> None:
        if unknown := sorted(body.keys() - PARAMETERS):
            raise Refused(400, f"unknown field {unknown[0]}", "invalid_request", unknown[0])
        if body.get("model") not in BASE_MODELS:
            raise Refused(404, f"Model {body.get('model')} is not available for fine-tuning", "not_found", "model")
        adapter, batch = body.get("training_type") or {}, body.get("batch_size", "max")
        checks = {
            "training_file": isinstance(body.get("training_file"), str),
            "n_epochs": _within(body.get("n_epochs"), 1, 20),
            "n_evals": _within(body.get("n_evals", 0), 0, 100),
            "n_checkpoints": _within(body.get("n_checkpoints", 1), 1, 10),
            "batch_size": batch == "max" or _within(batch, 8, 32 if _method(body) == "dpo" else 64),
            "learning_rate": isinstance(body.get("learning_rate"), float) and 1e-8 <= body["learning_rate"] <= 0.01,
            "suffix": len(body.get("suffix") or "") <= SUFFIX_MAX,
            "training_type": not adapter or (adapter.get("type") == "Lora" and _within(adapter.get("lora_r"), 1, 64)),
            "training_method": _method(body) == "sft" or BASE_MODELS[body["model"]]["max_seq_length_dpo"] > 0,
            "validation_file": bool(body.get("validation_file")) or not body.get("n_evals"),
        }
        if wrong := [name for name, good in checks.items() if not good]:
            raise Refused(400, f"{wrong[0]} is missing or out of range", "invalid_request", wrong[0])

    def _list(self, request: Request) -> Reply:
        return Reply({"data": [listed(job) for job in reversed(self.works.jobs.values())]})

    def _cancel(self, request: Request) -> Reply:
        job = self.job(request)
        if job.ended:
            raise Refused(400, f"Fine-tune job {job.id} has ended and cannot be cancelled", "invalid_request")
        self.works.cancel(job)
        return Reply(listed(job))

    def _checkpoints(self, request: Request) -> Reply:
        job = self.job(request)
        shown = []
        if job.phase == "succeeded":
            saved = job.checkpoints[-1]
            for kind in ("model", "adapter"):
                checkpoint = {"checkpoint": kind, "checkpoint_type": f"Final ({kind})", "step": saved.step, "created_at": moment(saved.at)}
                shown.append({**checkpoint, "path": f"s3://finetune/{job.id}/{kind}", "object_id": object_id(job, kind)})
        return Reply({"data": shown})

    def _download(self, request: Request) -> Reply:
        """Give the weights: a tar with what the API's archives hold, and a pickle that nobody should read."""
        job = self.job(request)
        if job.phase != "succeeded" or request.first("checkpoint") not in ("adapter", "merged"):
            raise Refused(400, "Training job is not downloadable", "invalid_request")
        header = json.dumps({"__metadata__": {"format": "pt", "of": job.tuned}}).encode()
        files = {
            "adapter_config.json": json.dumps({"base_model_name_or_path": job.model, "peft_type": "LORA"}).encode(),
            "adapter_model.safetensors": struct.pack("<Q", len(header)) + header,
            "training_args.bin": b"\x80\x04N.",
        }
        return Reply(archive_of(files), headers={"content-type": "application/x-tar"})


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of files, packed with gzip, all of them below one folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"checkpoint/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def _within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _method(body: Mapping[str, Any]) -> str:
    return str((body.get("training_method") or {"method": "sft"}).get("method"))
