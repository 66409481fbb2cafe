"""A stand-in for Fireworks AI: datasets, fine-tuning jobs under client-chosen ids, adapters on deployments, chat and batches.

Source: https://docs.fireworks.ai/api-reference, and the types of the SDK ``fireworks-ai`` 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prooftune.sandbox.faults import Fault
from prooftune.sandbox.fireworks_serving import Serving
from prooftune.sandbox.fireworks_store import STORAGE, Store
from prooftune.sandbox.fireworks_tuning import Jobs
from prooftune.sandbox.http import Api, Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain

_CODES = {400: 3, 401: 16, 402: 9, 403: 7, 404: 5, 405: 12, 409: 6, 429: 8, 500: 13}
"""gRPC's code by HTTP status: the API is a gateway to gRPC services."""


class FireworksApi(Api):
    """Fireworks' API, any account of it."""

    provider = "fireworks"
    parallel = frozenset({"chat"})

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        super().__init__()
        self.store = Store()
        self.jobs = Jobs(brain, self.store, pace_s)
        self.works = self.jobs.works
        self.serving = Serving(brain, self.store, self.jobs, pace_s)

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        return [*self.store.routes(), *self.jobs.routes(), *self.serving.routes()]

    def authorise(self, request: Request) -> None:
        """Refuse a request without a key, except to the object store behind the API, whose links are signed."""
        if not request.path.startswith(STORAGE):
            super().authorise(request)

    def error(self, refused: Refused) -> Reply:
        """Return a refusal as the gateway tells it; that of a missing key has a form of its own."""
        if refused.status == 401:
            return Reply({"error": {"object": "error", "code": "UNAUTHORIZED", "message": refused.message}}, 401, refused.headers)
        body = {"code": _CODES.get(refused.status, 2), "message": refused.message, "details": []}
        return Reply(body, refused.status, refused.headers)

    def refusal_of(self, fault: Fault) -> Refused:
        """Return the refusal that a fault means; an account beyond its spending limit has to pay first."""
        if fault.kind == "quota":
            return Refused(402, "Your account is suspended: the monthly spending limit is reached.", "FAILED_PRECONDITION")
        return super().refusal_of(fault)

    def stale(self, reply: Reply) -> Reply:
        """Return a list without its newest object."""
        lists = [name for name, value in reply.body.items() if isinstance(value, list)] if isinstance(reply.body, dict) else []
        if isinstance(reply.body, dict) and len(lists) == 1:
            return Reply(reply.body | {lists[0]: reply.body[lists[0]][:-1]}, reply.status, reply.headers)
        return reply

    def with_status(self, reply: Reply, word: str) -> Reply:
        """Return an object in another state."""
        return Reply(reply.body | {"state": word}, reply.status, reply.headers) if isinstance(reply.body, dict) else reply

    def state(self) -> dict[str, Any]:
        """Return what the stand-in holds."""
        return {
            "jobs": len(self.works.jobs),
            "billed_tokens": self.works.billed_tokens,
            "deployments": sum(one["state"] != "DELETED" for one in self.serving.deployments.values()),
            "files": sum(bool(one.files) for one in self.store.datasets.values()),
            "batches": len(self.serving.batches),
        }
