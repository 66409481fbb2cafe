"""Endpoints at Together's stand-in, each a name that inference knows, and the deployments behind them."""

from __future__ import annotations

import secrets
import time
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.together_registry import CONFIGS, PROJECT, ROOT, SLUG, Registry, page_of
from prooftune.sandbox.together_shown import moment

PROVISIONING, READY, STOPPED = (f"DEPLOYMENT_STATE_{word}" for word in ("PROVISIONING", "READY", "STOPPED"))


class Endpoints:
    """The endpoints of the project."""

    def __init__(self, registry: Registry, pace_s: float) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self._registry, self._pace_s = registry, pace_s
        self._since: dict[str, float] = {}
        """When each deployment was last started."""

    def routes(self) -> list[Route]:
        """Return the paths of endpoints."""
        endpoint = f"{ROOT}/endpoints/(?P<endpoint>[^/]+)"
        deployment = f"{endpoint}/deployments/(?P<deployment>[^/]+)"
        return [
            Route("POST", f"{ROOT}/endpoints", "create_endpoint", self._create_endpoint),
            Route("GET", f"{ROOT}/endpoints", "list_deployments", self._list),
            Route("GET", endpoint, "get_endpoint", lambda request: Reply(self._shown(self._endpoint(request)))),
            Route("DELETE", endpoint, "delete_endpoint", self._delete_endpoint),
            Route("POST", f"{endpoint}/deployments", "create_deployment", self._create),
            Route("GET", deployment, "get_deployment", lambda request: Reply(self._settled(self._deployment(request)))),
            Route("PATCH", deployment, "update_deployment", self._update),
            Route("DELETE", deployment, "delete_deployment", self._delete),
        ]

    def served(self, name: str) -> str | None:
        """Return the tuned model that a deployment of that name serves; None = there is none, or it is not ready."""
        found = next((one for one in self.deployments.values() if one["name"] == name), None)
        if found is None or self._settled(found)["status"]["state"] != READY:
            return None
        return self._registry.job_of(found["model"]).tuned

    def _create_endpoint(self, request: Request) -> Reply:
        project, name = request.found["project"], f"{SLUG}/{request.json.get('name')}"
        if project != PROJECT:
            raise Refused(403, f"no access to project {project}", "forbidden")
        if any(one["name"] == name for one in self.endpoints.values()):
            raise Refused(409, f"endpoint {name} already exists", "already_exists")
        now = moment(time.time())
        endpoint: dict[str, Any] = {
            "id": f"ep_{secrets.token_hex(6)}",
            "name": name,
            "projectId": PROJECT,
            "endpointType": "ENDPOINT_TYPE_DEDICATED",
            "trafficSplit": [],
            "visibility": "VISIBILITY_PRIVATE",
            "createdAt": now,
            "updatedAt": now,
            "etag": "1",
        }
        self.endpoints[endpoint["id"]] = endpoint
        return Reply(self._shown(endpoint))

    def _endpoint(self, request: Request) -> dict[str, Any]:
        if request.found["endpoint"] not in self.endpoints:
            raise Refused(404, f"endpoint {request.found['endpoint']} not found", "not_found")
        return self.endpoints[request.found["endpoint"]]

    def _shown(self, endpoint: dict[str, Any]) -> dict[str, Any]:
        behind = [self._settled(one) for one in self.deployments.values() if one["endpointId"] == endpoint["id"]]
        kept = ("id", "name", "model", "modelId", "createdAt", "autoscaling", "trafficMode", "hardware")
        summaries = [
            {**{name: one[name] for name in kept}, "state": one["status"]["state"], "estimatedEffectiveTrafficShare": 0.0} for one in behind
        ]
        return {**endpoint, "deployments": summaries}

    def _list(self, request: Request) -> Reply:
        return Reply(page_of([self._shown(one) for one in reversed(self.endpoints.values())], request))

    def _delete_endpoint(self, request: Request) -> Reply:
        endpoint = self._endpoint(request)
        if self._shown(endpoint)["deployments"]:
            raise Refused(400, f"endpoint {endpoint['id']} has deployments", "failed_precondition")
        del self.endpoints[endpoint["id"]]
        return Reply()

    def _create(self, request: Request) -> Reply:
        endpoint, body = self._endpoint(request), request.json
        job = self._registry.job_of(str(body.get("model")))
        config = str(body.get("config", "")).rpartition("/")[2]
        if config not in CONFIGS or CONFIGS[config][2] != "disabled":
            raise Refused(400, f"config {body.get('config')} does not serve {body.get('model')}", "invalid_request", "config")
        if not 30 <= int(body.get("inactiveTimeout") or 30) <= 1440:
            raise Refused(400, "inactiveTimeout must be 0, or 30 to 1440 minutes", "invalid_request", "inactiveTimeout")
        name = f"{endpoint['name']}/{body.get('name')}"
        if any(one["name"] == name for one in self.deployments.values()):
            raise Refused(409, f"deployment {name} already exists", "already_exists")
        now, (kind, number, _) = moment(time.time()), CONFIGS[config]
        deployment = {
            "id": f"dep_{secrets.token_hex(6)}",
            "name": name,
            "endpointId": endpoint["id"],
            "projectId": PROJECT,
            "model": f"{body['model']}/revisions/rv_1",
            "modelId": str(body["model"]).rpartition("/")[2],
            "modelRevisionId": "rv_1",
            "config": body["config"],
            "configId": config,
            "hardware": f"{number}x{kind}",
            "autoscaling": body.get("autoscaling") or {},
            "inactiveTimeout": body.get("inactiveTimeout") or 0,
            "createdAt": now,
            "updatedAt": now,
            "etag": "1",
            "trafficMode": "TRAFFIC_MODE_LIVE",
            "status": {"state": PROVISIONING, "message": f"waiting for hardware for {job.model}"},
        }
        self._since[str(deployment["id"])] = time.monotonic()
        self.deployments[str(deployment["id"])] = deployment
        return Reply(dict(deployment))

    def _deployment(self, request: Request) -> dict[str, Any]:
        found = self.deployments.get(request.found["deployment"])
        if found is None or found["endpointId"] != request.found["endpoint"]:
            raise Refused(404, f"deployment {request.found['deployment']} not found", "not_found")
        return found

    def _settled(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return a deployment as it is by now."""
        if found["status"]["state"] == PROVISIONING and time.monotonic() - self._since[found["id"]] >= self._pace_s:
            found["status"] = {"state": READY, "message": "", "readyReplicas": 1, "scheduledReplicas": 1}
        return dict(found)

    def _update(self, request: Request) -> Reply:
        found, scaling = self._deployment(request), request.json.get("autoscaling") or {}
        if request.first("updateMask") != "autoscaling":
            raise Refused(400, "the stand-in updates autoscaling alone", "invalid_request", "updateMask")
        found["autoscaling"] = scaling
        if scaling.get("maxReplicas") == 0:
            found["status"] = {"state": STOPPED, "message": "scaled to zero"}
        elif found["status"]["state"] == STOPPED:
            self._since[found["id"]] = time.monotonic()
            found["status"] = {"state": PROVISIONING, "message": "starting"}
        return Reply(self._settled(found))

    def _delete(self, request: Request) -> Reply:
        found = self._settled(self._deployment(request))
        if found["status"]["state"] != STOPPED:
            raise Refused(400, f"deployment {found['id']} must be stopped before it can be deleted", "failed_precondition")
        del self.deployments[found["id"]]
        return Reply()
