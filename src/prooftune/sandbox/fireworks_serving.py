"""Inference at Fireworks' stand-in: chat, deployments with the adapters on them, and batch inference jobs."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from prooftune.sandbox.fireworks_store import ACCOUNT, ID, Store, moment, now, page_of, require_fields, require_id, text_of
from prooftune.sandbox.fireworks_tuning import BASE_MODELS, Jobs
from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.models import Answered, Brain
from prooftune.types import Message

_DEPLOYMENT = frozenset(
    {"baseModel", "displayName", "description", "enableAddons", "minReplicaCount", "maxReplicaCount", "autoscalingPolicy"}
    | {"acceleratorType", "acceleratorCount", "precision", "deploymentShape", "maxContextLength", "placement"}
)
_RESULTS, _ERRORS = "BIJOutputSet.jsonl", "error-data"


class Serving:
    """What answers, of all accounts."""

    def __init__(self, brain: Brain, store: Store, jobs: Jobs, pace_s: float) -> None:
        self.deployments: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._adapters: dict[str, dict[str, Any]] = {}
        self._brain, self._store, self._jobs, self._pace_s = brain, store, jobs, pace_s
        self._since: dict[str, float] = {}
        """When each resource was made: it is ready ``pace_s`` seconds later."""

    def routes(self) -> list[Route]:
        """Return the paths of inference."""
        deployment, adapter, batch = (f"{ACCOUNT}/{kind}/{ID}" for kind in ("deployments", "deployedModels", "batchInferenceJobs"))
        return [
            Route("POST", "/inference/v1/chat/completions", "chat", self._chat),
            Route("POST", f"{ACCOUNT}/deployments", "create_deployment", self._create),
            Route("GET", f"{ACCOUNT}/deployments", "list_deployments", self._list),
            Route("GET", deployment, "get_deployment", lambda request: Reply(self._deployment(request))),
            Route("DELETE", deployment, "delete_deployment", self._delete),
            Route("POST", f"{deployment}:undelete", "create_deployment", self._undelete),
            Route("POST", f"{ACCOUNT}/deployedModels", "load_adapter", self._load),
            Route("GET", f"{ACCOUNT}/deployedModels", "list_adapters", self._list_adapters),
            Route("DELETE", adapter, "unload_adapter", self._unload),
            Route("POST", f"{ACCOUNT}/batchInferenceJobs", "create_batch", self._create_batch),
            Route("GET", batch, "get_batch", self._get_batch),
        ]

    def _chat(self, request: Request) -> Reply:
        body = request.json
        name, _, deployment = str(body.get("model") or "").partition("#")
        if name not in BASE_MODELS and not self._loaded(name, deployment):
            raise Refused(404, f"Model not found, inaccessible, and/or not deployed: {name}", "NOT_FOUND")
        return Reply(self._completion(name, body))

    def _completion(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            prompt = [Message(role=message["role"], content=message["content"]) for message in body["messages"]]
        except (KeyError, TypeError, ValidationError):
            raise Refused(400, "messages must be a list of messages, each with a role and a content") from None
        answered = self._brain.answer(model, prompt, int(body.get("max_tokens") or body.get("max_completion_tokens") or 2048))
        return _completion(model, answered)

    def _loaded(self, model: str, deployment: str) -> bool:
        found = self.deployments.get(deployment)
        if found is None or _settled(found, self._since, self._pace_s)["state"] != "READY":
            return False
        return any(one["model"] == model and one["deployment"] == deployment for one in self._adapters.values())

    def _create(self, request: Request) -> Reply:
        body = request.json
        require_fields(body, _DEPLOYMENT)
        name = f"accounts/{request.found['account']}/deployments/{require_id(request.first('deploymentId'), 'deployment')}"
        if name in self.deployments:
            raise Refused(409, f"deployment {name} already exists")
        if body.get("baseModel") not in BASE_MODELS:
            raise Refused(404, f"model {body.get('baseModel')} not found")
        self._since[name] = time.monotonic()
        self.deployments[name] = {
            **body,
            "name": name,
            "createTime": now(),
            "updateTime": now(),
            "state": "CREATING",
            "status": {"code": "OK", "message": ""},
        }
        return Reply(dict(self.deployments[name]))

    def _deployment(self, request: Request) -> dict[str, Any]:
        name = f"accounts/{request.found['account']}/deployments/{request.found['id']}"
        if name not in self.deployments:
            raise Refused(404, f"deployment {name} not found")
        return _settled(self.deployments[name], self._since, self._pace_s)

    def _list(self, request: Request) -> Reply:
        prefix = f"accounts/{request.found['account']}/"
        shown = [_settled(one, self._since, self._pace_s) for name, one in self.deployments.items() if name.startswith(prefix)]
        deleted = request.first("showDeleted") == "true"
        return page_of(request, "deployments", [one for one in shown if deleted or one["state"] != "DELETED"])

    def _delete(self, request: Request) -> Reply:
        found = self._deployment(request)
        if found["state"] == "DELETED":
            raise Refused(404, f"deployment {found['name']} not found")
        loaded = [name for name, one in self._adapters.items() if one["deployment"] == found["name"]]
        if loaded and request.first("ignoreChecks") != "true":
            raise Refused(400, f"deployment {found['name']} is in use", "FAILED_PRECONDITION")
        for name in loaded:
            del self._adapters[name]
        found |= {"state": "DELETED", "deleteTime": now()}
        return Reply()

    def _undelete(self, request: Request) -> Reply:
        found = self._deployment(request)
        if found["state"] != "DELETED":
            raise Refused(400, f"deployment {found['name']} is not deleted", "FAILED_PRECONDITION")
        found["state"] = "CREATING"
        del found["deleteTime"]
        self._since[found["name"]] = time.monotonic()
        return Reply(dict(found))

    def _load(self, request: Request) -> Reply:
        body, account = request.json, request.found["account"]
        require_fields(body, frozenset({"model", "deployment", "default", "description", "displayName", "public", "serverless"}))
        model, deployment = str(body.get("model")), self.deployments.get(str(body.get("deployment")))
        job = self._jobs.models().get(model)
        if job is None or deployment is None:
            raise Refused(404, f"no model {model}, or no deployment {body.get('deployment')}")
        if _settled(deployment, self._since, self._pace_s)["state"] != "READY" or not deployment.get("enableAddons"):
            raise Refused(400, f"deployment {deployment['name']} is not ready, or takes no addons", "FAILED_PRECONDITION")
        if deployment["baseModel"] != job.model:
            raise Refused(400, f"{model} is no addon of {deployment['baseModel']}")
        if self._loaded(model, deployment["name"]):
            raise Refused(409, f"{model} is already deployed to {deployment['name']}")
        name = f"accounts/{account}/deployedModels/{model.rpartition('/')[2]}-{secrets.token_hex(3)}"
        self._since[name] = time.monotonic()
        shown = {"name": name, "model": model, "deployment": deployment["name"], "createTime": now(), "updateTime": now()}
        self._adapters[name] = shown | {"state": "DEPLOYING", "default": True, "status": {"code": "OK", "message": ""}}
        return Reply(dict(self._adapters[name]))

    def _list_adapters(self, request: Request) -> Reply:
        prefix = f"accounts/{request.found['account']}/"
        shown = [_settled(one, self._since, self._pace_s) for name, one in self._adapters.items() if name.startswith(prefix)]
        return page_of(request, "deployedModels", shown)

    def _unload(self, request: Request) -> Reply:
        name = f"accounts/{request.found['account']}/deployedModels/{request.found['id']}"
        if self._adapters.pop(name, None) is None:
            raise Refused(404, f"{name} not found")
        return Reply()

    def _create_batch(self, request: Request) -> Reply:
        body, account = request.json, request.found["account"]
        require_fields(body, frozenset(["model", "inputDatasetId", "outputDatasetId", "displayName", "inferenceParameters", "precision"]))
        job = require_id(request.first("batchInferenceJobId"), "job")
        name = f"accounts/{account}/batchInferenceJobs/{job}"
        if name in self.batches:
            raise Refused(409, f"{name} already exists")
        model = str(body.get("model"))
        if model not in BASE_MODELS and model not in self._jobs.models():
            raise Refused(404, f"model {model} not found")
        rows = self._store.ready(str(body.get("inputDatasetId")), account).rows
        output = body.get("outputDatasetId") or f"accounts/{account}/datasets/{job}-out"
        self.batches[name] = {**body, "name": name, "createTime": moment(time.time()), "outputDatasetId": output}
        self.batches[name] |= {"state": "JOB_STATE_VALIDATING", "status": {"code": "OK", "message": ""}}
        self._since[name] = time.monotonic()
        shown = dict(self.batches[name])
        self._answer(self.batches[name], model, rows)
        return Reply(shown)

    def _answer(self, batch: dict[str, Any], model: str, rows: Sequence[bytes]) -> None:
        """Answer every row, or fail the batch for one that is none."""
        lines: list[str] = []
        for number, line in enumerate(rows, start=1):
            row = text_of(line) or {}
            try:
                lines.append(json.dumps({"custom_id": str(row["custom_id"]), "response": self._completion(model, row["body"])}) + "\n")
            except (KeyError, TypeError, AttributeError, Refused):
                why = f"Dataset has a syntax error: chat dataset validation failed on line {number}"
                batch |= {"state": "JOB_STATE_FAILED", "status": {"code": "INVALID_ARGUMENT", "message": why}}
                return
        # Reordered, as the real ones come.
        self._store.add(batch["outputDatasetId"], len(lines), {_RESULTS: "".join(reversed(lines)).encode(), _ERRORS: b""})
        done = {"totalInputRequests": len(rows), "totalProcessedRequests": len(rows), "successfullyProcessedRequests": len(rows)}
        batch |= {"state": "JOB_STATE_COMPLETED", "jobProgress": {"percent": 100, "outputRows": len(rows), "failedRequests": 0, **done}}

    def _get_batch(self, request: Request) -> Reply:
        name = f"accounts/{request.found['account']}/batchInferenceJobs/{request.found['id']}"
        if name not in self.batches:
            raise Refused(404, f"{name} not found")
        if time.monotonic() - self._since[name] < self._pace_s:
            return Reply({**self.batches[name], "state": "JOB_STATE_RUNNING"})
        return Reply(dict(self.batches[name]))


def _settled(found: dict[str, Any], since: dict[str, float], pace_s: float) -> dict[str, Any]:
    """Return a resource as it is by now."""
    after = {"CREATING": "READY", "DEPLOYING": "DEPLOYED"}
    if found["state"] in after and time.monotonic() - since[found["name"]] >= pace_s:
        found["state"] = after[found["state"]]
    return found


def _completion(model: str, answered: Answered) -> dict[str, Any]:
    prompt, answer = answered.prompt_tokens, answered.answer_tokens
    message = {"role": "assistant", "content": answered.text}
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop" if answered.finished else "length"}],
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt + answer, "completion_tokens": answer},
    }
