"""Fine-tuning at Fireworks' stand-in: jobs of three kinds, their metrics and checkpoints, and the models that come of them."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prooftune.sandbox.fireworks_store import ACCOUNT, ID, Dataset, Store, moment, now, page_of, require_fields, require_id, text_of
from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.work import Phase, Tuning, Works, tokens_of
from prooftune.types import Example, Message

MODEL = "accounts/fireworks/models/llama-v3p1-8b-instruct"
_SHARED = {"kind": "HF_BASE_MODEL", "state": "READY", "public": True, "supportsLora": True, "contextLength": 131_072}
BASE_MODELS: Mapping[str, Mapping[str, Any]] = {
    MODEL: _SHARED | {"tunable": True, "rlTunable": True, "trainingContextLength": 65_536, "supportsServerless": True},
    "accounts/fireworks/models/qwen3-8b": _SHARED
    | {"tunable": True, "rlTunable": False, "supportsServerless": True, "deprecationDate": {"year": 2027, "month": 6, "day": 30}},
    "accounts/fireworks/models/kimi-k2-instruct": _SHARED | {"tunable": False, "rlTunable": False, "supportsServerless": True},
}
USD_PER_MILLION = 0.5
"""Of training tokens, for models up to 16 billion parameters."""
STATES: Mapping[Phase, str] = {
    "queued": "JOB_STATE_PENDING",
    "validating": "JOB_STATE_VALIDATING",
    "running": "JOB_STATE_RUNNING",
    "succeeded": "JOB_STATE_COMPLETED",
    "failed": "JOB_STATE_FAILED",
    "cancelled": "JOB_STATE_CANCELLED",
}
_TRAINING = frozenset(
    {
        "baseModel",
        "outputModel",
        "warmStartFrom",
        "jinjaTemplate",
        "epochs",
        "learningRate",
        "learningRateWarmupSteps",
        "loraRank",
        "region",
    }
    | {"batchSize", "batchSizeSamples", "gradientAccumulationSteps", "maxContextLength", "optimizerWeightDecay"}
    | {"samplerCheckpointSaveIntervalSteps"}
)
_COMMON = frozenset({"dataset", "displayName", "wandbConfig"})
_EVALUATED = frozenset({"evaluationDataset", "evalAutoCarveout"})
_FIELDS: Mapping[str, frozenset[str]] = {
    "supervisedFineTuningJobs": _COMMON | _EVALUATED | _TRAINING | {"earlyStop", "isTurbo", "nodes"},
    "dpoJobs": _COMMON | {"lossConfig", "trainingConfig"},
    "reinforcementFineTuningJobs": _COMMON | _EVALUATED | {"evaluator", "trainingConfig", "lossConfig", "inferenceParameters"},
}
_METRICS = {"step": "step", "train_loss": "train/loss", "valid_loss": "eval/loss"}


class Jobs:
    """The jobs of all accounts."""

    def __init__(self, brain: Brain, store: Store, pace_s: float) -> None:
        self.works = Works(brain, tokens_of(brain), pace_s)
        self._store = store

    def routes(self) -> list[Route]:
        """Return the paths of jobs and models."""
        found = [
            Route("GET", f"{ACCOUNT}/models/{ID}", "probe", self._model),
            Route("GET", f"{ACCOUNT}/models/{ID}:getDownloadEndpoint", "result_file", self._weights),
            Route("GET", f"{ACCOUNT}/dpoJobs/{ID}:getMetricsFileEndpoint", "list_events", self._metrics_link),
        ]
        for kind in _FIELDS:
            one = f"{ACCOUNT}/(?P<kind>{kind})/{ID}"
            found += [
                Route("POST", f"{ACCOUNT}/(?P<kind>{kind})", "create_job", self._create),
                Route("GET", f"{ACCOUNT}/(?P<kind>{kind})", "list_jobs", self._list),
                Route("GET", one, "get_job", lambda request: Reply(self._shown(request, self._job(request)))),
                Route("POST", f"{one}:cancel", "cancel_job", self._cancel),
                Route("GET", f"{one}/checkpoints", "list_checkpoints", self._checkpoints),
            ]
        return found

    def models(self) -> dict[str, Tuning]:
        """Return the adapters that jobs have made, by name."""
        return {job.tuned: job for job in self.works.jobs.values() if job.phase == "succeeded"}

    def _create(self, request: Request) -> Reply:
        kind, account, body = request.found["kind"], request.found["account"], request.json
        require_fields(body, _FIELDS[kind])
        training = body if kind == "supervisedFineTuningJobs" else body.get("trainingConfig") or {}
        require_fields(training, _FIELDS[kind] if training is body else _TRAINING)
        id_name = f"{kind.removesuffix('s')}Id"
        job = f"accounts/{account}/{kind}/{require_id(request.first(id_name), 'job')}"
        if job in self.works.jobs:
            raise Refused(409, f"{job} already exists")
        base = str(training.get("baseModel") or "")
        _require_trainable(base, training, body, kind)
        rows, wrong = _examples(self._store.ready(str(body.get("dataset") or ""), account), kind)
        evaluated = body.get("evaluationDataset")
        validation, wrong_too = _examples(self._store.ready(str(evaluated), account), kind) if evaluated else ([], "")
        tuned = str(training.get("outputModel") or job.rpartition("/")[2])
        tuned = tuned if "/" in tuned else f"accounts/{account}/models/{tuned}"
        if tuned in BASE_MODELS or any(other.tuned == tuned for other in self.works.jobs.values() if other.phase != "failed"):
            raise Refused(409, f"model {tuned} already exists")
        self.works.fail_next = wrong or wrong_too or self.works.fail_next
        fields = {"body": body, "training": training | {"outputModel": tuned}, "flat": training is body}
        made = Tuning(job, base, tuned, rows, validation, int(training.get("epochs") or 1), fields)
        return Reply(self._shown(request, self.works.start(made)))

    def _list(self, request: Request) -> Reply:
        kind, prefix = request.found["kind"], f"accounts/{request.found['account']}/{request.found['kind']}/"
        jobs = [self._shown(request, job) for name, job in sorted(self.works.jobs.items()) if name.startswith(prefix)]
        return page_of(request, kind, jobs)

    def _job(self, request: Request) -> Tuning:
        name = f"accounts/{request.found['account']}/{request.found.get('kind', 'dpoJobs')}/{request.found['id']}"
        if name not in self.works.jobs:
            raise Refused(404, f"{name} not found")
        return self.works.jobs[name]

    def _shown(self, request: Request, job: Tuning) -> dict[str, Any]:
        """Return a job as the API shows it: what was ordered, where it is, what it made."""
        training, flat = job.fields["training"], bool(job.fields["flat"])
        tokens = sum(map(job.count, job.rows)) * job.epochs
        shown: dict[str, Any] = {
            **job.fields["body"],
            "name": job.id,
            "createTime": moment(job.created),
            "state": STATES[job.phase],
            "status": {"code": "INVALID_ARGUMENT" if job.error else "OK", "message": job.error},
        }
        shown |= training if flat else {"trainingConfig": training}
        if job.finished is not None:
            shown["completedTime"] = moment(job.finished)
        if job.id.split("/")[2] != "dpoJobs":
            told = [event.metrics["step"] for event in job.events if "step" in event.metrics]
            shown["jobProgress"] = {
                "percent": 100 if job.phase == "succeeded" else min(99, 10 * len(told)),
                "inputTokens": job.billed_tokens,
            }
        if flat:
            nanos = round(tokens * USD_PER_MILLION * 1000)
            shown["estimatedCost"] = {"currencyCode": "USD", "units": str(nanos // 10**9), "nanos": nanos % 10**9}
            if job.started is not None:
                shown["metricsFileSignedUrl"] = self._store.link(request, "metrics.jsonl", partial(_metrics, job))
        return shown

    def _cancel(self, request: Request) -> Reply:
        job = self._job(request)
        if job.ended:
            raise Refused(400, f"{job.id} is in a terminal state and cannot be cancelled", "FAILED_PRECONDITION")
        self.works.cancel(job)
        return Reply()

    def _metrics_link(self, request: Request) -> Reply:
        job = self._job(request)
        if job.started is None:
            raise Refused(404, f"{job.id} has no metrics yet")
        return Reply({"signedUrl": self._store.link(request, "metrics.jsonl", partial(_metrics, job))})

    def _checkpoints(self, request: Request) -> Reply:
        job = self._job(request)
        kept = int(job.fields["training"].get("samplerCheckpointSaveIntervalSteps") or 0)
        shown = [
            {
                "name": f"{job.id}/checkpoints/{name}-{saved.step}",
                "createTime": moment(saved.at),
                "updateTime": moment(saved.at),
                "checkpointType": kind,
                "promotable": promotable,
            }
            for saved in job.checkpoints
            for name, kind, promotable in (
                ("state", "CHECKPOINT_TYPE_TRAINING_LORA", False),
                ("sampler-step", "CHECKPOINT_TYPE_INFERENCE_LORA", True),
            )
            if not promotable or (kept and saved.step % kept == 0)
        ]
        return page_of(request, "checkpoints", shown)

    def _model(self, request: Request) -> Reply:
        name = f"accounts/{request.found['account']}/models/{request.found['id']}"
        if name in BASE_MODELS:
            return Reply({"name": name, "status": {"code": "OK", "message": ""}, **BASE_MODELS[name]})
        job = self._tuned(name)
        peft = {"baseModel": job.model, "r": int(job.fields["training"].get("loraRank") or 8), "targetModules": ["q_proj", "v_proj"]}
        made = {"createTime": moment(job.finished or time.time()), "updateTime": now(), "fineTuningJob": job.id}
        return Reply(
            {"name": name, "kind": "HF_PEFT_ADDON", "state": "READY", "public": False, "tunable": False, "peftDetails": peft, **made}
        )

    def _tuned(self, name: str) -> Tuning:
        if name not in self.models():
            raise Refused(404, f"model {name} not found")
        return self.models()[name]

    def _weights(self, request: Request) -> Reply:
        job = self._tuned(f"accounts/{request.found['account']}/models/{request.found['id']}")
        header = json.dumps({"__metadata__": {"format": "pt", "of": job.tuned}}).encode()
        files = {
            "adapter_config.json": json.dumps({"base_model_name_or_path": job.model, "peft_type": "LORA"}).encode(),
            "adapter_model.safetensors": struct.pack("<Q", len(header)) + header,
        }
        links = {name: self._store.link(request, name, partial(bytes, content)) for name, content in files.items()}
        return Reply({"filenameToSignedUrls": links})


def _require_trainable(base: str, training: Mapping[str, Any], body: Mapping[str, Any], kind: str) -> None:
    if base not in BASE_MODELS:
        raise Refused(404, f"model {base} not found")
    if not BASE_MODELS[base]["tunable" if kind != "reinforcementFineTuningJobs" else "rlTunable"]:
        raise Refused(400, f"model {base} is not tunable")
    if training.get("loraRank", 8) not in (1, 2, 4, 8, 16, 32, 64):
        raise Refused(400, "lora_rank must be a power of 2 up to 64")
    beta = ((body.get("lossConfig") or {}).get("dpo") or {}).get("beta", 0.1)
    if not 0 < beta < 0.5:
        raise Refused(400, "dpo.beta must be greater than 0 and less than 0.5")
    if kind == "reinforcementFineTuningJobs" and not re.fullmatch(r"accounts/[^/]+/evaluators/[^/]+", str(body.get("evaluator") or "")):
        raise Refused(400, "evaluator is required")


def _metrics(job: Tuning) -> bytes:
    told = [event.metrics for event in list(job.events) if event.metrics]
    rows = [{theirs: metrics[ours] for ours, theirs in _METRICS.items() if ours in metrics} for metrics in told]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _examples(dataset: Dataset, kind: str) -> tuple[Sequence[Example], str]:
    """Return a dataset's rows, and what the job fails with where one of them is none."""
    build = _BUILDERS[kind]
    found: list[Example] = []
    for number, line in enumerate(dataset.rows, start=1):
        try:
            messages, rejected = build(text_of(line) or {})
            turns = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
        except (KeyError, TypeError, ValueError) as error:
            return [], f"Dataset has a syntax error: chat dataset validation failed on line {number}: {type(error).__name__}"
        if any(turn.role == "system" for turn in turns[1:]) or turns[-1].role != "assistant":
            return [], f"Dataset has a syntax error: chat dataset validation failed on line {number}: invalid order of roles"
        found.append(Example(id=f"{number:016x}", source=f"dataset:{number}", messages=turns, rejected=rejected))
    return found, "" if len(found) >= 3 else f"Dataset has {len(found)} examples; at least 3 are required"


def _pair(row: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    return [*row["input"]["messages"], *row["preferred_output"]], row["non_preferred_output"][0]["content"]


def _graded(row: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    return [*row["messages"], {"role": "assistant", "content": row["ground_truth"]}], None


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], tuple[list[Any], str | None]]] = {
    "supervisedFineTuningJobs": lambda row: (row["messages"], None),
    "dpoJobs": _pair,
    "reinforcementFineTuningJobs": _graded,
}
