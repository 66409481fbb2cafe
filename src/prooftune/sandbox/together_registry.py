"""What stands in the registry of Together's stand-in: whose key it is, tuned models, ways to run them, and hardware with its price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.together_jobs import BASE_MODELS, Jobs
from prooftune.sandbox.together_shown import object_id
from prooftune.sandbox.work import Tuning

SLUG, PROJECT = "acme", "proj-acme"
PUBLIC = "proj-together"
"""Project of the models and configurations that Together itself brings."""
ROOT = "/v2/projects/(?P<project>[^/]+)"
CONFIGS: Mapping[str, tuple[str, str, str]] = {
    "cr_b200": ("nvidia-b200-180gb", "1", "disabled"),
    "cr_h100": ("nvidia-h100-80gb", "1", "disabled"),
    "cr_lora": ("nvidia-h100-80gb", "1", "dynamic"),
}
"""Hardware, number and adapter mode, by configuration."""
CENTS: Mapping[str, int] = {"1xnvidia-h100-80gb": 399, "1xnvidia-b200-180gb": 995}


class Registry:
    """The registry of the project."""

    def __init__(self, jobs: Jobs) -> None:
        self.key_of_project = True
        """Whether the caller's key is one of the project; False = of the whole organization."""
        self._jobs = jobs

    def routes(self) -> list[Route]:
        """Return the paths of the registry."""
        return [
            Route("GET", "/v3/whoami", "whoami", self._whoami),
            Route("GET", f"{ROOT}/models/(?P<id>[^/]+)", "get_model", self._model),
            Route("GET", f"{ROOT}/configs", "list_configs", self._configs),
            Route("GET", "/v2/public/inference-instance-types", "list_hardware", self._hardware),
        ]

    def _whoami(self, request: Request) -> Reply:
        organization, key = {"id": "org-acme", "name": "Acme"}, {"id": "key-1"}
        if not self.key_of_project:
            return Reply({"type": "org_api_key", "organization": organization, "api_key": key})
        project = {"id": PROJECT, "name": "Acme", "slug": SLUG}
        return Reply({"type": "project_api_key", "organization": organization, "api_key": key, "project": project})

    def job_of(self, resource: str) -> Tuning:
        """Return the job that a model came of. Raises Refused(404)."""
        identity = resource.partition("/models/")[2].partition("/")[0]
        jobs = [job for job in self._jobs.works.jobs.values() if job.phase == "succeeded"]
        found = next((job for job in jobs if identity in (object_id(job, "model"), object_id(job, "adapter"))), None)
        if found is None or not resource.startswith(f"projects/{PROJECT}/"):
            raise Refused(404, f"model {resource} not found", "not_found")
        return found

    def _model(self, request: Request) -> Reply:
        identity = request.found["id"]
        job = self.job_of(f"projects/{request.found['project']}/models/{identity}")
        base = _base_id(job.model)
        adapter = identity == object_id(job, "adapter")
        return Reply(
            {
                "id": identity,
                "name": f"{SLUG}/{identity}",
                "organizationId": "org-acme",
                "projectId": PROJECT,
                "visibility": "VISIBILITY_PRIVATE",
                "weights": {"type": "WEIGHTS_TYPE_ADAPTER" if adapter else "WEIGHTS_TYPE_DEFAULT", "contextLength": "32768"},
                "baseModel": f"projects/{PUBLIC}/models/{base}",
                "baseModelId": base,
            }
        )

    def _configs(self, request: Request) -> Reply:
        reference = request.first("referenceModel")
        known = [f"projects/{PUBLIC}/models/{_base_id(name)}" for name in BASE_MODELS]
        found = [_config(name, reference) for name in CONFIGS] if reference in known else []
        return Reply(page_of(found, request))

    def _hardware(self, request: Request) -> Reply:
        data = [
            {
                "id": f"it_{name}",
                "description": name,
                "gpuCount": 1,
                "gpuMemoryGib": 80 if "h100" in name else 180,
                "gpuType": "H100" if "h100" in name else "B200",
                "name": name,
                "priceCentsPerHour": cents,
                "regions": [{"name": "us-central-1"}],
            }
            for name, cents in CENTS.items()
        ]
        return Reply({"object": "list", "data": data, "next_cursor": None})


def page_of(found: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Return the part of a list that a request asks for by ``limit`` and ``after``."""
    start, limit = int(request.first("after", "0")), int(request.first("limit", "50"))
    end = start + limit
    return {"data": found[start:end], "next_cursor": str(end) if end < len(found) else None}


def _base_id(model: str) -> str:
    return f"ml_{model.rpartition('/')[2].lower()}"


def _config(name: str, reference: str) -> dict[str, Any]:
    kind, number, mode = CONFIGS[name]
    chosen = {"accelerator_type": kind, "accelerator_count": number, "adapter_mode": mode}
    return {
        "id": name,
        "certifications": [],
        "projectId": PUBLIC,
        "referenceModel": reference,
        "referenceModelId": reference.rpartition("/")[2],
        "selectors": [{"key": key, "value": value} for key, value in chosen.items()],
    }
