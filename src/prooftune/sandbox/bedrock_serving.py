"""What serves tuned models at Bedrock's stand-in: custom model deployments and provisioned throughput."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from prooftune.sandbox.bedrock_jobs import invalid, page_of, region_of, time_of
from prooftune.sandbox.bedrock_models import MODELS
from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.work import Tuning

Kind = Literal["on demand", "provisioned"]
NAME = re.compile(r"(?=.{1,63}$)([0-9a-zA-Z][_-]?)+")


@dataclass
class Served:
    """Something that serves a tuned model."""

    kind: Kind
    arn: str
    name: str
    model: str
    """ARN of the tuned model."""
    base: str
    created: float
    ready_at: float
    failed: str = ""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return not self.failed and time.time() >= self.ready_at

    @property
    def status(self) -> str:
        """The API's word."""
        ready = "Active" if self.kind == "on demand" else "InService"
        return "Failed" if self.failed else ready if self.ready else "Creating"


class Serving:
    """The deployments of a stand-in; ``tuned`` finds the job that made a model, by the model's ARN."""

    def __init__(self, tuned: Callable[[str], Tuning | None], pace_s: float) -> None:
        self.served: dict[str, Served] = {}
        self.fail_next = ""
        """Why the next one does not come up; empty = it does."""
        self._tuned = tuned
        self._pace_s = pace_s
        self._by_token: dict[str, str] = {}
        """What a token made, also after it is gone."""

    def create_deployment(self, request: Request) -> Reply:
        """Serve a Nova model on demand."""
        body = request.json
        made = self._create("on demand", str(body.get("modelDeploymentName")), str(body.get("modelArn")), body, request)
        return Reply({"customModelDeploymentArn": made}, 202)

    def create_throughput(self, request: Request) -> Reply:
        """Serve a model on throughput of its own."""
        body = request.json
        if body.get("modelUnits") != 1:
            raise Refused(400, "You have reached the quota of model units for this model.", "ServiceQuotaExceededException")
        made = self._create("provisioned", str(body.get("provisionedModelName")), str(body.get("modelId")), body, request)
        return Reply({"provisionedModelArn": made}, 201)

    def _create(self, kind: Kind, name: str, model: str, body: dict[str, Any], request: Request) -> str:
        token = str(body.get("clientRequestToken") or uuid.uuid4())
        if token in self._by_token:
            return self._by_token[token]
        job = self._tuned(model)
        if job is None:
            raise Refused(404, f"The custom model {model} is not found.", "ResourceNotFoundException")
        if not NAME.fullmatch(name):
            raise invalid("The name failed to satisfy constraint: Member must satisfy regular expression pattern")
        if any(one.name == name and one.kind == kind for one in self.served.values()):
            raise invalid(f"The name {name} is already in use.")
        if kind == "on demand" and not job.model.startswith("amazon.nova-"):
            raise invalid("On-demand inference is not supported for models customized from this base model.")
        if kind == "provisioned" and MODELS[job.model].legacy:
            raise invalid("Provisioned Throughput cannot be created for a model in the Legacy state.")
        noun = "custom-model-deployment" if kind == "on demand" else "provisioned-model"
        arn = f"arn:aws:bedrock:{region_of(request)}:{model.split(':')[4]}:{noun}/{uuid.uuid4().hex[:12]}"
        now = time.time()
        self.served[arn] = Served(kind, arn, name, model, job.model, now, now + self._pace_s, self.fail_next)
        self.fail_next = ""
        self._by_token[token] = arn
        return arn

    def _find(self, kind: Kind, request: Request) -> Served:
        wanted = request.found["id"]
        for one in self.served.values():
            if one.kind == kind and wanted in (one.arn, one.name):
                return one
        raise Refused(404, f"The resource {wanted} is not found.", "ResourceNotFoundException")

    def get_deployment(self, request: Request) -> Reply:
        """Show one that serves on demand."""
        shown = _on_demand(self._find("on demand", request))
        return Reply({"modelDeploymentName": shown.pop("customModelDeploymentName"), **shown})  # named otherwise than in a list

    def get_throughput(self, request: Request) -> Reply:
        """Show one with throughput of its own."""
        return Reply(_provisioned(self._find("provisioned", request)))

    def list_deployments(self, request: Request) -> Reply:
        """List those that serve on demand."""
        return Reply(page_of(self._named("on demand", _on_demand, request), request, "modelDeploymentSummaries"))

    def list_throughputs(self, request: Request) -> Reply:
        """List those with throughput of their own."""
        return Reply(page_of(self._named("provisioned", _provisioned, request), request, "provisionedModelSummaries"))

    def _named(self, kind: Kind, show: Callable[[Served], dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        named = request.first("nameContains")
        return [show(one) for one in self.served.values() if one.kind == kind and named in one.name]

    def delete_deployment(self, request: Request) -> Reply:
        """Delete one that serves on demand."""
        del self.served[self._find("on demand", request).arn]
        return Reply({})

    def delete_throughput(self, request: Request) -> Reply:
        """Delete one with throughput of its own."""
        del self.served[self._find("provisioned", request).arn]
        return Reply({})


def _on_demand(one: Served) -> dict[str, Any]:
    shown = {
        "customModelDeploymentArn": one.arn,
        "customModelDeploymentName": one.name,
        "modelArn": one.model,
        "createdAt": time_of(one.created),
        "status": one.status,
        "lastUpdatedAt": time_of(min(time.time(), one.ready_at)),
    }
    return shown | ({"failureMessage": one.failed} if one.failed else {})


def _provisioned(one: Served) -> dict[str, Any]:
    return {
        "provisionedModelName": one.name,
        "provisionedModelArn": one.arn,
        "modelArn": one.model,
        "desiredModelArn": one.model,
        "foundationModelArn": f"arn:aws:bedrock:{one.arn.split(':')[3]}::foundation-model/{one.base}",
        "modelUnits": 1,
        "desiredModelUnits": 1,
        "status": one.status,
        "creationTime": time_of(one.created),
        "lastModifiedTime": time_of(min(time.time(), one.ready_at)),
    }
