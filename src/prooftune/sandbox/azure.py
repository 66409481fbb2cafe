"""The stand-in for Azure OpenAI: OpenAI's API below a resource's address, and the management API's models and deployments.

It is stricter than OpenAI's where Azure is: files begin with a byte-order mark and are processed before a job may use them, jobs have a
training type, nothing answers without a deployment, and batches take one of their own kind, which no tuned model can have. Its lists of
jobs know no metadata, which is the harder case for a client.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prooftune.sandbox.azure_batches import SKU, AzureBatches
from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.openai import VERSIONS, OpenAIApi
from prooftune.sandbox.openai_files import FileStore
from prooftune.sandbox.openai_jobs import FIELDS, FineTuning
from prooftune.sandbox.work import Saved, Tuning

TRAINING_TYPES = ("Standard", "GlobalStandard", "developerTier")
SKUS = ("standard", "globalstandard", "developertier", SKU)
"""In lower case: Azure takes either."""
ACCOUNT = r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.CognitiveServices/accounts/(?P<account>[^/]+)"
RESOURCE = "/subscriptions/0000/resourceGroups/sandbox/providers/Microsoft.CognitiveServices/accounts/sandbox"
"""An id that the stand-in takes; it takes any."""
DEVELOPER_LIVES_S = 24 * 3600
ELSEWHERE = ("probe", "create_upload", "upload_part", "complete_upload", "cancel_upload")
"""Operations of OpenAI's: the management API lists the models, and a file for fine-tuning comes in one request."""
LAST_JOB, SHUTDOWN = "2027-04-30T00:00:00Z", "2027-10-14T00:00:00Z"


@dataclass
class _Deployment:
    name: str
    sku: dict[str, Any]
    model: dict[str, Any]
    brain_model: str
    ready: float
    created: float = field(default_factory=time.time)

    @property
    def kind(self) -> str:
        """The SKU's name, in lower case."""
        return str(self.sku["name"]).lower()


class _Files(FileStore):
    early = "pending"

    def upload(self, request: Request) -> Reply:
        """Take a file."""
        fields, files = request.form
        if fields.get("purpose") == "fine-tune" and "file" in files and not files["file"].content.startswith(b"\xef\xbb\xbf"):
            raise Refused(400, "The file must be encoded in UTF-8 with a byte-order mark (BOM).", "invalidPayload", "file")
        return super().upload(request)


class _FineTuning(FineTuning):
    fields = FIELDS | {"trainingType"}
    stores_metadata = False
    suffix_max = 40

    def check(self, body: dict[str, Any]) -> None:
        """Refuse what Azure refuses at once."""
        super().check(body)
        if body.get("trainingType", "Standard") not in TRAINING_TYPES:
            raise Refused(400, f"The specified trainingType is not supported: {body['trainingType']}", "invalidPayload", "trainingType")
        if "." in (body.get("suffix") or ""):
            raise Refused(400, "The suffix must not contain dots.", "invalidPayload", "suffix")
        for name in ("training_file", "validation_file"):
            if body.get(name) and self.files.shown(self.files.get(body[name]))["status"] != "processed":
                raise Refused(400, f"The file {body[name]} is not processed yet.", "invalidPayload", name)

    def shown(self, job: Tuning, *, new: bool = False) -> dict[str, Any]:
        """Return a job as the API shows it: every field is there, and null where there is nothing to say."""
        shown = super().shown(job, new=new)
        chosen = {name: -1 if value == "auto" else value for name, value in shown["hyperparameters"].items()}
        unknown: dict[str, Any] = dict.fromkeys(("organization_id", "metadata", "method", "integrations"))
        status = "pending" if new else shown["status"]
        return shown | unknown | {"hyperparameters": chosen, "status": status, "result_files": shown["result_files"] or None}

    def tuned_name(self, model: str, suffix: str) -> str:
        """Return the name of the model that a job makes."""
        return f"{model}.ft-{uuid.uuid4().hex}{f'-{suffix}' if suffix else ''}"

    def encoded(self, table: bytes) -> bytes:
        """Return a result file as it is."""
        return table

    def checkpoint(self, job: Tuning, saved: Saved) -> dict[str, Any]:
        """Return a checkpoint as the API shows it: it is deployed by its id."""
        name = f"ftchkpt-{job.id.removeprefix('ftjob-')}{saved.step:08x}"
        return super().checkpoint(job, saved) | {"id": name, "fine_tuned_model_checkpoint": name}


class AzureApi(OpenAIApi):
    """Azure OpenAI's API and the management API, at one address, with one resource."""

    provider = "azure"
    prefix = "/openai/v1"

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        self.deployed: dict[str, _Deployment] = {}
        self._pace_s = pace_s
        super().__init__(brain, folder, pace_s)

    def _files(self, folder: Path, pace_s: float) -> FileStore:
        return _Files(folder, pace_s)

    def _tuning(self) -> FineTuning:
        versions = dict(VERSIONS)
        return _FineTuning(self.works, self.files, versions | {version: version for version in versions.values()})

    def _batches(self, pace_s: float) -> AzureBatches:
        return AzureBatches(self.files, self._complete, self.error, pace_s, self._kind_of)

    def _kind_of(self, name: str) -> str | None:
        self._expire()
        found = self.deployed.get(name)
        return found.kind if found and time.time() >= found.ready else None

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        one = f"{ACCOUNT}/deployments/(?P<name>[^/]+)"
        own = [
            Route("GET", f"{ACCOUNT}/models", "probe", self._account_models),
            Route("GET", f"{ACCOUNT}/deployments", "list_deployments", self._list),
            Route("GET", one, "get_deployment", self._get),
            Route("PUT", one, "create_deployment", self._put),
            Route("DELETE", one, "delete_deployment", self._delete),
        ]
        return [*own, *(route for route in super().routes() if route.name not in ELSEWHERE)]

    def state(self) -> dict[str, Any]:
        """Return what OpenAI's stand-in holds, and the deployments."""
        self._expire()
        return super().state() | {"deployments": len(self.deployed)}

    def stale(self, reply: Reply) -> Reply:
        """Return a list as it was before its newest object; the management API's lists have the newest last."""
        if isinstance(reply.body, dict) and isinstance(value := reply.body.get("value"), list):
            return Reply(reply.body | {"value": value[:-1]}, reply.status, reply.headers)
        return super().stale(reply)

    def with_status(self, reply: Reply, word: str) -> Reply:
        """Return an object with another status word."""
        if isinstance(reply.body, dict) and "properties" in reply.body:
            return Reply(reply.body | {"properties": reply.body["properties"] | {"provisioningState": word}}, reply.status)
        return super().with_status(reply, word)

    def _chat(self, request: Request) -> Reply:
        name = str(request.json.get("model"))
        if self._kind_of(name) == SKU:
            told = f"The chatCompletion operation does not work with the specified model, {self.deployed[name].model['name']}."
            raise Refused(400, f"{told} Please choose different model and try again.", "OperationNotSupported")
        return super()._chat(request)

    def answering(self, name: str) -> str:
        """Return what the brain calls the model of a deployment. Raises Refused(404)."""
        self._expire()
        found = self.deployed.get(name)
        if found is None or time.time() < found.ready:
            raise Refused(404, "The API deployment for this resource does not exist.", "DeploymentNotFound")
        return found.brain_model

    def _expire(self) -> None:
        for name, found in list(self.deployed.items()):
            if found.kind == "developertier" and time.time() > found.created + DEVELOPER_LIVES_S:
                del self.deployed[name]

    def _put(self, request: Request) -> Reply:
        _versioned(request)
        name, body = request.found["name"], request.json
        sku, model = body.get("sku") or {}, (body.get("properties") or {}).get("model") or {}
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,63}", name):
            raise Refused(400, f"The deployment name '{name}' is invalid.", "InvalidResourceName")
        if str(sku.get("name", "")).lower() not in SKUS or not isinstance(sku.get("capacity"), int):
            raise Refused(400, f"The specified SKU '{sku.get('name')}' is not supported.", "InvalidResourceProperties")
        kind = str(sku["name"]).lower()
        if kind == SKU and model.get("name") not in VERSIONS:
            told = f"The specified SKU '{sku['name']}' for model '{model.get('name')}' is not supported: a tuned model takes no batches."
            raise Refused(400, told, "InvalidResourceProperties")
        found = self._brain_model(model, kind)
        if model.get("format") != "OpenAI" or found is None:
            told = f"The specified model '{model.get('name')}' of account deployment is not supported."
            raise Refused(400, told, "DeploymentModelNotSupported")
        new = name not in self.deployed
        sku = {"name": sku["name"], "capacity": sku["capacity"]}
        if new or self.deployed[name].model != model:
            self.deployed[name] = _Deployment(name, sku, model, found, time.time() + self._pace_s)
        shown = self._shown_deployment(self.deployed[name])
        if new:
            shown["properties"] |= {"provisioningState": "Creating"}
        return Reply(shown, 201 if new else 200)

    def _brain_model(self, model: dict[str, Any], sku: str) -> str | None:
        """Return what the brain calls a model that is to be deployed, if it can be."""
        name, version = str(model.get("name")), model.get("version")
        if name in VERSIONS:
            right = version in (None, VERSIONS[name].removeprefix(f"{name}-"))
            return VERSIONS[name] if right and sku != "developertier" else None
        for job in self.works.jobs.values():
            checkpoints = [self.tuning.checkpoint(job, saved)["id"] for saved in job.checkpoints]
            if job.phase == "succeeded" and version == "1" and name in (job.tuned, *checkpoints):
                return job.tuned
        return None

    def _shown_deployment(self, found: _Deployment) -> dict[str, Any]:
        created = datetime.fromtimestamp(found.created, UTC).isoformat()
        return {
            "id": f"{RESOURCE}/deployments/{found.name}",
            "type": "Microsoft.CognitiveServices/accounts/deployments",
            "name": found.name,
            "sku": found.sku,
            "systemData": {"createdAt": created, "lastModifiedAt": created},
            "properties": {"model": found.model, "provisioningState": "Creating" if time.time() < found.ready else "Succeeded"},
        }

    def _list(self, request: Request) -> Reply:
        """Show the deployments, two a page: the real API's pages are longer, and end as well."""
        _versioned(request)
        self._expire()
        start = int(request.first("$skipToken", "0"))
        found = list(self.deployed.values())
        page: dict[str, Any] = {"value": [self._shown_deployment(one) for one in found[start : start + 2]]}
        if start + 2 < len(found):
            host = request.headers.get("host", "")
            page["nextLink"] = f"http://{host}{request.path}?api-version={request.first('api-version')}&$skipToken={start + 2}"
        return Reply(page)

    def _get(self, request: Request) -> Reply:
        _versioned(request)
        if request.found["name"] not in self.deployed:
            raise Refused(404, f"The Resource '{request.found['name']}' was not found.", "ResourceNotFound")
        return Reply(self._shown_deployment(self.deployed[request.found["name"]]))

    def _delete(self, request: Request) -> Reply:
        _versioned(request)
        gone = self.deployed.pop(request.found["name"], None)
        return Reply({}, 202) if gone else Reply(b"", 204)

    def _account_models(self, request: Request) -> Reply:
        _versioned(request)
        offered = []
        for name, version in VERSIONS.items():
            capabilities = {"fineTune": "true", "chatCompletion": "true", "inference": "true"}
            dates = {"fineTune": LAST_JOB, "inference": SHUTDOWN}
            offered.append(_offer(name, version.removeprefix(f"{name}-"), capabilities, dates))
        offered.append(_offer("gpt-5-mini", "2025-08-07", {"chatCompletion": "true", "inference": "true"}, {"inference": SHUTDOWN}))
        return Reply({"value": offered})


def _offer(name: str, version: str, capabilities: dict[str, str], dates: dict[str, str]) -> dict[str, Any]:
    model = {"format": "OpenAI", "name": name, "version": version, "capabilities": capabilities, "deprecation": dates}
    return model | {"lifecycleStatus": "GenerallyAvailable", "maxCapacity": 3, "isDefaultVersion": True}


def _versioned(request: Request) -> None:
    if not request.first("api-version"):
        raise Refused(400, "The api-version query parameter (?api-version=) is required for all requests.", "MissingApiVersionParameter")
