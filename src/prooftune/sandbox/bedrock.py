"""The stand-in for Amazon Bedrock, its runtime, and the part of S3 that it needs, all at one address.

Held against botocore's own service models by ``tests/contracts/test_bedrock_model.py``.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prooftune.sandbox import bedrock_s3
from prooftune.sandbox.bedrock_batches import Batches
from prooftune.sandbox.bedrock_jobs import Jobs, invalid, region_of
from prooftune.sandbox.bedrock_models import MODELS, list_models
from prooftune.sandbox.bedrock_rows import Unfit, prompt_of
from prooftune.sandbox.bedrock_s3 import Storage
from prooftune.sandbox.bedrock_serving import Serving
from prooftune.sandbox.faults import Fault
from prooftune.sandbox.http import Api, Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.work import Tuning, Works, tokens_of

ACCESS_KEY = "sandbox"
LONGEST_ANSWER = 10_000
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/[a-z0-9-]+/(?P<service>[a-z0-9-]+)/aws4_request, .*Signature=.+")
_ARNS = ("jobArn", "customModelDeploymentArn", "provisionedModelArn")


class _Asked(threading.local):
    """Which service the request of this thread is for: an error has the form of its own."""

    service = "bedrock"


class BedrockApi(Api):
    """Bedrock's API for any account and region, and S3's for any bucket."""

    provider = "bedrock"
    parallel = frozenset({"chat"})

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        super().__init__()
        self.brain = brain
        self.access_keys = {ACCESS_KEY}
        """Ids of the access keys that are known. Signatures are not computed: a stand-in keeps no secret."""
        self.without_temperature: set[str] = set()
        """Models that refuse the parameter."""
        self.works = Works(brain, tokens_of(brain), pace_s)
        self.storage = Storage(folder / "objects")
        self.jobs = Jobs(self.works, self.storage)
        self.serving = Serving(self._job_of, pace_s)
        self.batches = Batches(self.storage, self.converse, pace_s)
        self._asked = _Asked()

    def routes(self) -> Sequence[Route]:
        """Return every path; S3's come last, since a bucket may be called anything."""
        one = "(?P<id>[^/]+)"
        jobs, deployments = "/model-customization-jobs", "/model-customization/custom-model-deployments"
        throughput, batch = "/provisioned-model-throughput", "/model-invocation-job"
        table = [
            ("GET", "/foundation-models", "probe", lambda request: list_models(request, region_of(request))),
            ("POST", jobs, "create_job", self.jobs.create),
            ("GET", jobs, "list_jobs", self.jobs.list),
            ("GET", f"{jobs}/{one}", "get_job", self.jobs.retrieve),
            ("POST", f"{jobs}/{one}/stop", "cancel_job", self.jobs.stop),
            ("POST", deployments, "create_deployment", self.serving.create_deployment),
            ("GET", deployments, "list_deployments", self.serving.list_deployments),
            ("GET", f"{deployments}/{one}", "get_deployment", self.serving.get_deployment),
            ("DELETE", f"{deployments}/{one}", "delete_deployment", self.serving.delete_deployment),
            ("POST", throughput, "create_deployment", self.serving.create_throughput),
            ("GET", f"{throughput}s", "list_deployments", self.serving.list_throughputs),
            ("GET", f"{throughput}/{one}", "get_deployment", self.serving.get_throughput),
            ("DELETE", f"{throughput}/{one}", "delete_deployment", self.serving.delete_throughput),
            ("POST", batch, "create_batch", self.batches.create),
            ("GET", f"{batch}s", "list_batches", self.batches.list),
            ("GET", f"{batch}/{one}", "get_batch", self.batches.retrieve),
            ("POST", f"/model/{one}/converse", "chat", self._chat),
            ("PUT", "/(?P<bucket>[a-z0-9.-]+)/(?P<key>.+)", "upload_file", self.storage.put),
            ("HEAD", "/(?P<bucket>[a-z0-9.-]+)/(?P<key>.+)", "get_file", self.storage.get),
            ("GET", "/(?P<bucket>[a-z0-9.-]+)/(?P<key>.+)", "result_file", self.storage.get),
            ("GET", "/(?P<bucket>[a-z0-9.-]+)/?", "list_files", self.storage.list),
            ("HEAD", "/(?P<bucket>[a-z0-9.-]+)/?", "get_bucket", lambda request: self.storage.head(request, region_of(request))),
        ]
        return [Route(method, path, name, operation) for method, path, name, operation in table]

    def error(self, refused: Refused) -> Reply:
        """Return a refusal in the form of the service that was asked."""
        if self._asked.service == "s3":
            return bedrock_s3.error(refused)
        headers = {"x-amzn-errortype": refused.code or "UnknownOperationException", "x-amzn-requestid": str(uuid.uuid4())}
        return Reply({"message": refused.message}, refused.status, {**headers, **refused.headers})

    def authorise(self, request: Request) -> None:
        """Refuse a request that is not signed with a known access key."""
        signed = _SIGNED.fullmatch(request.headers.get("authorization", ""))
        self._asked.service = signed["service"] if signed else "bedrock"
        if signed is None:
            raise Refused(403, "Missing Authentication Token", "MissingAuthenticationTokenException")
        if signed["key"] not in self.access_keys:
            s3 = signed["service"] == "s3"
            code = "InvalidAccessKeyId" if s3 else "UnrecognizedClientException"
            raise Refused(403, "The security token included in the request is invalid.", code)

    def stale(self, reply: Reply) -> Reply:
        """Return a list of jobs, batches or deployments as it was before its newest object."""
        if not isinstance(reply.body, dict):
            return reply
        shorter = {name: value[1:] for name, value in reply.body.items() if name.endswith("Summaries")}
        return Reply(reply.body | shorter, reply.status, reply.headers)

    def without_id(self, reply: Reply) -> Reply:
        """Return an answer that does not name what was made."""
        if not isinstance(reply.body, dict):
            return reply
        return Reply({name: value for name, value in reply.body.items() if name not in _ARNS}, reply.status, reply.headers)

    def refusal_of(self, fault: Fault) -> Refused:
        """Return the refusal that a fault means, in the words of the service that was asked."""
        s3 = self._asked.service == "s3"
        if fault.kind == "rate_limit":
            headers = {"retry-after": fault.value or "1"}
            if s3:
                return Refused(503, "Please reduce your request rate.", "SlowDown", headers=headers)
            return Refused(429, "Too many requests, please wait before trying again.", "ThrottlingException", headers=headers)
        if fault.kind == "quota":
            if s3:
                return Refused(403, "Access Denied", "AccessDenied")
            return Refused(400, "You have reached the quota of jobs for this account.", "ServiceQuotaExceededException")
        if fault.kind == "refuse":
            return Refused(400, fault.value or "The request is not valid.", "InvalidRequest" if s3 else "ValidationException")
        if fault.kind == "duplicate":
            if s3:
                return Refused(412, "At least one of the pre-conditions you specified did not hold", "PreconditionFailed")
            return Refused(400, fault.value or "The provided job name is currently in use.", "ConflictException")
        return Refused(500, "We encountered an internal error. Please try again.", "InternalError" if s3 else "InternalServerException")

    def state(self) -> dict[str, Any]:
        """Return how many jobs, deployments, objects and batches there are, and the training tokens that are billed."""
        return {
            "jobs": len(self.works.jobs),
            "billed_tokens": self.works.billed_tokens,
            "deployments": len(self.serving.served),
            "files": self.storage.uploads,
            "batches": len(self.batches.batches),
        }

    def _job_of(self, model: str) -> Tuning | None:
        return next((job for job in self.works.jobs.values() if job.tuned == model and job.phase == "succeeded"), None)

    def _chat(self, request: Request) -> Reply:
        return Reply(self.converse(request.found["id"], request.json))

    def converse(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one request to a model, by its id or by the ARN of what serves it. Raises Refused."""
        chosen = body.get("inferenceConfig", {})
        limit = int(chosen.get("maxTokens", LONGEST_ANSWER))
        if not 1 <= limit <= LONGEST_ANSWER:
            raise invalid(f"The maximum tokens you requested exceeds the model limit of {LONGEST_ANSWER}.")
        if model in self.without_temperature and "temperature" in chosen:
            raise invalid("The model returned the following errors: `temperature` is deprecated for this model.")
        try:
            answered = self.brain.answer(self._answering(model), prompt_of(body), limit)
        except Unfit as unfit:
            raise invalid(str(unfit)) from None
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": answered.text}]}},
            "stopReason": "end_turn" if answered.finished else "max_tokens",
            "usage": {
                "inputTokens": answered.prompt_tokens,
                "outputTokens": answered.answer_tokens,
                "totalTokens": answered.prompt_tokens + answered.answer_tokens,
            },
            "metrics": {"latencyMs": 1},
        }

    def _answering(self, model: str) -> str:
        """Return what the brain calls a model. Raises Refused."""
        foundation = MODELS.get(model.rpartition("foundation-model/")[2])
        if foundation is not None and foundation.on_demand:
            return foundation.id
        if foundation is not None or ":custom-model/" in model:
            raise invalid(f"Invocation of model ID {model} with on-demand throughput isn't supported.")
        served = self.serving.served.get(model)
        if served is None:
            raise invalid("The provided model identifier is invalid.")
        if not served.ready:
            raise Refused(429, "The model is not ready for inference.", "ModelNotReadyException")
        return served.model
