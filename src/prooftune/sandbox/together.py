"""A stand-in for Together AI: files, fine-tuning jobs, endpoints with deployments, chat and batches.

Held against the models of the SDK ``together`` 3.1 by ``tests/contracts/test_together_types.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prooftune.sandbox.faults import Fault
from prooftune.sandbox.http import Api, Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.together_endpoints import Endpoints
from prooftune.sandbox.together_files import STORAGE, FileStore
from prooftune.sandbox.together_jobs import Jobs
from prooftune.sandbox.together_registry import Registry
from prooftune.sandbox.together_serving import Serving

_TYPES = {401: "authentication_error", 402: "credit_limit", 403: "forbidden", 404: "not_found", 429: "rate_limit", 500: "server_error"}


class TogetherApi(Api):
    """Together's API, with one project."""

    provider = "together"
    parallel = frozenset({"chat"})

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        super().__init__()
        self.files = FileStore(folder / "files", pace_s)
        self.jobs = Jobs(brain, self.files, pace_s)
        self.works = self.jobs.works
        self.registry = Registry(self.jobs)
        self.endpoints = Endpoints(self.registry, pace_s)
        self.serving = Serving(brain, self.files, self.endpoints, pace_s)

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        parts = (self.files, self.jobs, self.registry, self.endpoints, self.serving)
        return [route for part in parts for route in part.routes()]

    def authorise(self, request: Request) -> None:
        """Refuse a request without a key, except to the object store behind the API, whose addresses are signed."""
        if not request.path.startswith(STORAGE):
            super().authorise(request)

    def error(self, refused: Refused) -> Reply:
        """Return a refusal as Together tells it."""
        kind = _TYPES.get(refused.status, "invalid_request_error")
        told = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code or None}
        return Reply({"error": told}, refused.status, refused.headers)

    def refusal_of(self, fault: Fault) -> Refused:
        """Return the refusal that a fault means; an account without credit has to pay first."""
        if fault.kind == "quota":
            return Refused(402, "You have reached your credit limit. Please add credits to continue.", "credit_limit")
        return super().refusal_of(fault)

    def stale(self, reply: Reply) -> Reply:
        """Return a list without its newest object; that of batches is a bare array."""
        return Reply(reply.body[1:], reply.status, reply.headers) if isinstance(reply.body, list) else super().stale(reply)

    def without_id(self, reply: Reply) -> Reply:
        """Return an answer that does not name what was made: a file's id stands in a header, a batch's further in."""
        if isinstance(reply.body, dict) and isinstance(job := reply.body.get("job"), dict):
            return Reply(reply.body | {"job": {name: value for name, value in job.items() if name != "id"}}, reply.status, reply.headers)
        headers = {name: value for name, value in reply.headers.items() if name != "X-Together-File-Id"}
        return super().without_id(Reply(reply.body, reply.status, headers))

    def with_status(self, reply: Reply, word: str) -> Reply:
        """Return an object in another state; each kind of them has its own field for that."""
        body = reply.body
        if not isinstance(body, dict):
            return reply
        if "processing_status" in body:
            changed: dict[str, Any] = {"processing_status": word}
        elif isinstance(body.get("deployments"), list):
            changed = {"deployments": [one | {"state": word} for one in body["deployments"]]}
        else:
            changed = {"status": body["status"] | {"state": word} if isinstance(body.get("status"), dict) else word}
        return Reply(body | changed, reply.status, reply.headers)

    def state(self) -> dict[str, Any]:
        """Return what the stand-in holds."""
        return {
            "jobs": len(self.works.jobs),
            "billed_tokens": self.jobs.billed_tokens,
            "deployments": len(self.endpoints.endpoints),
            "files": sum(file.purpose == "fine-tune" and file.checked is not None for file in self.files.files.values()),
            "batches": len(self.serving.batches),
        }
