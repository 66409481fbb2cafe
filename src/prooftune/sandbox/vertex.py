"""The stand-in for Google's Vertex AI and for the part of Cloud Storage that it needs: objects, tuning, answers and batch inference.

Held against the types of the SDK ``google-genai`` by ``tests/contracts/test_vertex_types.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prooftune.sandbox.faults import Fault
from prooftune.sandbox.http import Api, Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.vertex_batches import Batches
from prooftune.sandbox.vertex_jobs import Jobs
from prooftune.sandbox.vertex_rows import Unfit, as_prompt, count_tokens
from prooftune.sandbox.vertex_storage import Storage
from prooftune.sandbox.work import Works

TUNABLE = (
    "gemini-3.5-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.1-flash-lite",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
)
"""The last three are retired; the stand-in keeps them, so that what was written for them can be rehearsed."""
UNTUNABLE = ("gemini-3.8-flash",)
GENERATE_FIELDS = {"contents", "systemInstruction", "generationConfig", "labels", "safetySettings", "tools"}
LONGEST_ANSWER = 65_536
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}


class VertexApi(Api):
    """Vertex AI's API and Cloud Storage's, for any project and region."""

    provider = "vertex"
    parallel = frozenset({"chat"})

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        super().__init__()
        self.brain = brain
        self.works = Works(brain, count_tokens, pace_s)
        self.storage = Storage(folder / "objects")
        self.jobs = Jobs(self.works, self.storage, TUNABLE)
        self.batches = Batches(self.storage, self.generate, pace_s)

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        here = "/v1beta1/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)"
        job, batch = f"{here}/tuningJobs/(?P<id>[0-9]+)", f"{here}/batchPredictionJobs"
        objects, one = "/storage/v1/b/(?P<bucket>[^/]+)/o", "/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)"
        table = [
            ("POST", f"/upload{objects}", "upload_file", self.storage.upload),
            ("PUT", f"/upload{objects}", "upload_file", self.storage.resume),
            ("GET", "/storage/v1/b/(?P<bucket>[^/]+)", "get_bucket", self.storage.show_bucket),
            ("GET", objects, "list_files", self.storage.list),
            ("GET", one, "get_file", self.storage.get),
            ("GET", f"/download{one}", "result_file", self.storage.media),
            ("GET", "/v1beta1/publishers/google/models/(?P<id>[^/:]+)", "probe", self._model),
            ("POST", f"{here}/tuningJobs", "create_job", self.jobs.create),
            ("GET", f"{here}/tuningJobs", "list_jobs", self.jobs.list),
            ("GET", job, "get_job", self.jobs.retrieve),
            ("POST", f"{job}:cancel", "cancel_job", self.jobs.cancel),
            ("POST", f"{here}/publishers/google/models/(?P<id>[^/:]+):generateContent", "chat", self._chat),
            ("POST", f"{here}/endpoints/(?P<endpoint>[0-9]+):generateContent", "chat", self._chat),
            ("POST", batch, "create_batch", self.batches.create),
            ("GET", batch, "list_batches", self.batches.list),
            ("GET", f"{batch}/(?P<id>[0-9]+)", "get_batch", self.batches.retrieve),
        ]
        return [Route(method, path, name, operation) for method, path, name, operation in table]

    def error(self, refused: Refused) -> Reply:
        """Return a refusal in Google's form."""
        status = refused.code if refused.code.isupper() else _STATUSES.get(refused.status, "UNKNOWN")
        told = {"code": refused.status, "message": refused.message, "status": status}
        return Reply({"error": told}, refused.status, refused.headers)

    def authorise(self, request: Request) -> None:
        """Refuse a request without an access token."""
        if not request.headers.get("authorization", "").removeprefix("Bearer ").strip():
            raise Refused(401, "Request is missing required authentication credential. Expected OAuth 2 access token.", "UNAUTHENTICATED")

    def stale(self, reply: Reply) -> Reply:
        """Return a list of jobs or batches as it was before its newest object."""
        body = reply.body
        if not isinstance(body, dict):
            return reply
        shorter = {name: value[1:] for name, value in body.items() if name in ("tuningJobs", "batchPredictionJobs")}
        return Reply(body | shorter, reply.status, reply.headers)

    def with_status(self, reply: Reply, word: str) -> Reply:
        """Return a job with another state."""
        return Reply(reply.body | {"state": word}, reply.status, reply.headers) if isinstance(reply.body, dict) else reply

    def refusal_of(self, fault: Fault) -> Refused:
        """Return the refusal that a fault means. Google bills afterwards: what no waiting helps is a project without billing."""
        if fault.kind == "rate_limit":
            return Refused(429, "Resource exhausted. Please try again later.", headers={"retry-after": fault.value or "1"})
        if fault.kind == "quota":
            return Refused(
                403, "This API method requires billing to be enabled. Please enable billing on the project.", "PERMISSION_DENIED"
            )
        if fault.kind == "refuse":
            return Refused(400, fault.value or "Request contains an invalid argument.", "INVALID_ARGUMENT")
        if fault.kind == "duplicate":
            if fault.operation == "upload_file":  # Cloud Storage's word: rows are created where no object is
                return Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
            return Refused(409, fault.value or "Requested entity already exists", "ALREADY_EXISTS")
        return Refused(500, "Internal error encountered.", "INTERNAL")

    def state(self) -> dict[str, Any]:
        """Return how many jobs, objects and batches there are, and the training tokens that are billed."""
        return {
            "jobs": len(self.works.jobs),
            "billed_tokens": self.works.billed_tokens,
            "deployments": 0,
            "files": self.storage.uploads,
            "batches": len(self.batches.batches),
        }

    def _model(self, request: Request) -> Reply:
        name = request.found["id"]
        if name not in (*TUNABLE, *UNTUNABLE):
            raise Refused(404, f"Publisher Model `publishers/google/models/{name}` is not found.", "NOT_FOUND")
        return Reply({"name": f"publishers/google/models/{name}", "versionId": "default", "launchStage": "GA"})

    def _chat(self, request: Request) -> Reply:
        found = request.found
        name = f"publishers/google/models/{found['id']}" if "id" in found else request.path.removeprefix("/v1beta1/").partition(":")[0]
        return Reply(self.generate(name, request.json))

    def generate(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one request to a model, by its name or its endpoint. Raises Refused."""
        model, base = self._answering(name)
        if unknown := sorted(body.keys() - GENERATE_FIELDS):
            raise Refused(400, f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.')
        chosen = body.get("generationConfig", {})
        # Google reads either spelling of a field, and the SDK sends this one in the other than the rest.
        leveled = {"thinkingLevel", "thinking_level"} & chosen.get("thinkingConfig", {}).keys()
        if leveled and not base.startswith("gemini-3"):
            raise Refused(400, "Thinking level is not supported for this model.")
        limit = int(chosen.get("maxOutputTokens", LONGEST_ANSWER))
        if not 1 <= limit <= LONGEST_ANSWER:
            raise Refused(400, f"Unable to submit request because it has a maxOutputTokens value of {limit}, which is out of range.")
        try:
            answered = self.brain.answer(model, as_prompt(body), limit)
        except Unfit as unfit:
            raise Refused(400, str(unfit)) from None
        finish = "STOP" if answered.finished else "MAX_TOKENS"
        return {
            "candidates": [{"content": {"role": "model", "parts": [{"text": answered.text}]}, "finishReason": finish}],
            "usageMetadata": {
                "promptTokenCount": answered.prompt_tokens,
                "candidatesTokenCount": answered.answer_tokens,
                "totalTokenCount": answered.prompt_tokens + answered.answer_tokens,
                "trafficType": "ON_DEMAND",
            },
            "modelVersion": name if "/endpoints/" in name else base,
            "createTime": datetime.now(UTC).isoformat(),
            "responseId": uuid.uuid4().hex[:22],
        }

    def _answering(self, name: str) -> tuple[str, str]:
        """Return what the brain calls a model, and its base model. Raises Refused(404)."""
        short = name.removeprefix("publishers/google/models/")
        if short in (*TUNABLE, *UNTUNABLE):
            return short, short
        for job in self.works.jobs.values():
            endpoints = {job.tuned, job.fields["model"], *(f"{job.tuned}0{number}" for number in range(1, len(job.checkpoints)))}
            if name in endpoints and job.phase == "succeeded":
                return job.tuned, job.model
        raise Refused(404, f"{name} was not found or your project does not have access to it.", "NOT_FOUND")
