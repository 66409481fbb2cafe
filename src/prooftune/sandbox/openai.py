"""The stand-in for OpenAI: files, fine-tuning, chat completions, batches and models.

Held against OpenAI's published description of its API by ``tests/contracts/test_openai_document.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prooftune.sandbox.http import Api, Refused, Reply, Request, Route
from prooftune.sandbox.models import Brain
from prooftune.sandbox.openai_batches import Batches
from prooftune.sandbox.openai_chat import complete
from prooftune.sandbox.openai_files import FileStore
from prooftune.sandbox.openai_jobs import ORGANISATION, FineTuning
from prooftune.sandbox.openai_rows import count_tokens
from prooftune.sandbox.openai_uploads import Uploads
from prooftune.sandbox.work import Tuning, Works

SINCE = 1_744_600_000
"""Seconds since the epoch: when the models came out, as far as the stand-in is concerned."""
VERSIONS: Mapping[str, str] = {
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "o4-mini": "o4-mini-2025-04-16",
}
"""Models that can be tuned, each with the version that its name means."""
UNTUNABLE = ("gpt-5.4", "gpt-5-mini")
SHUTDOWNS: Mapping[str, str] = dict.fromkeys(("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini"), "2027-01-14")
_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error"}


class OpenAIApi(Api):
    """OpenAI's API, with one organisation."""

    provider = "openai"
    parallel = frozenset({"chat"})
    prefix = "/v1"

    def __init__(self, brain: Brain, folder: Path, pace_s: float = 0.0) -> None:
        super().__init__()
        self.brain = brain
        self.works = Works(brain, count_tokens, pace_s)
        self.files = self._files(folder / "files", pace_s)
        self.uploads = Uploads(self.files, folder / "uploads")
        self.tuning = self._tuning()
        self.batches = self._batches(pace_s)
        self.deleted: set[str] = set()

    def _files(self, folder: Path, pace_s: float) -> FileStore:
        return FileStore(folder, pace_s)

    def _tuning(self) -> FineTuning:
        versions = dict(VERSIONS)
        return FineTuning(self.works, self.files, versions | {version: version for version in versions.values()})

    def _batches(self, pace_s: float) -> Batches:
        return Batches(self.files, self._complete, self.error, pace_s)

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        files, tuning, batches = self.files, self.tuning, self.batches
        uploads, upload = self.uploads, "/uploads/(?P<id>[^/]+)"
        jobs, job = "/fine_tuning/jobs", "/fine_tuning/jobs/(?P<id>[^/]+)"
        table = [
            ("POST", "/files", "upload_file", files.upload),
            ("GET", "/files", "list_files", files.list),
            ("GET", "/files/(?P<id>[^/]+)", "get_file", files.retrieve),
            ("DELETE", "/files/(?P<id>[^/]+)", "delete_file", files.delete),
            ("GET", "/files/(?P<id>[^/]+)/content", "result_file", files.read),
            ("POST", "/uploads", "create_upload", uploads.create),
            ("POST", f"{upload}/parts", "upload_part", uploads.add_part),
            ("POST", f"{upload}/complete", "complete_upload", uploads.complete),
            ("POST", f"{upload}/cancel", "cancel_upload", uploads.cancel),
            ("POST", jobs, "create_job", tuning.create),
            ("GET", jobs, "list_jobs", tuning.list),
            ("GET", job, "get_job", tuning.retrieve),
            ("POST", f"{job}/cancel", "cancel_job", tuning.cancel),
            ("POST", f"{job}/pause", "pause_job", tuning.pause),
            ("POST", f"{job}/resume", "resume_job", tuning.resume),
            ("GET", f"{job}/events", "list_events", tuning.events),
            ("GET", f"{job}/checkpoints", "list_checkpoints", tuning.checkpoints),
            ("POST", "/chat/completions", "chat", self._chat),
            ("POST", "/batches", "create_batch", batches.create),
            ("GET", "/batches", "list_batches", batches.list),
            ("GET", "/batches/(?P<id>[^/]+)", "get_batch", batches.retrieve),
            ("POST", "/batches/(?P<id>[^/]+)/cancel", "cancel_batch", batches.cancel),
            ("GET", "/models", "list_models", self._list_models),
            ("GET", "/models/(?P<id>[^/]+)", "probe", self._model),
            ("DELETE", "/models/(?P<id>[^/]+)", "delete_model", self._delete_model),
        ]
        return [Route(method, self.prefix + path, name, operation) for method, path, name, operation in table]

    def error(self, refused: Refused) -> Reply:
        """Return a refusal as OpenAI words it."""
        kind = refused.code if refused.code == "insufficient_quota" else _TYPES.get(refused.status, "invalid_request_error")
        told = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code or None}
        return Reply({"error": told}, refused.status, refused.headers)

    def state(self) -> dict[str, Any]:
        """Return how many jobs, files and batches there are, and the training tokens that are billed."""
        return {
            "jobs": len(self.works.jobs),
            "billed_tokens": self.works.billed_tokens,
            "deployments": 0,
            "files": len(self.files.files),
            "batches": len(self.batches.batches),
        }

    def _chat(self, request: Request) -> Reply:
        return Reply(self._complete(request.json))

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return complete(self.brain, self.answering(str(body.get("model"))), body)

    def answering(self, name: str) -> str:
        """Return what the brain calls a model. Raises Refused(404)."""
        if name in self.tuning.models or name in UNTUNABLE:
            return name
        tuned = self.tuned(name.partition(":ckpt-step-")[0])
        if tuned is None:
            raise Refused(404, f"The model `{name}` does not exist or you do not have access to it.", "model_not_found", "model")
        return tuned.tuned

    def tuned(self, name: str) -> Tuning | None:
        """Return the job that made a tuned model."""
        found = (job for job in self.works.jobs.values() if job.tuned == name and job.phase == "succeeded")
        return None if name in self.deleted else next(found, None)

    def _shown(self, name: str) -> dict[str, Any]:
        base = name.removeprefix("ft:").partition(":")[0]
        alias = next((alias for alias, version in VERSIONS.items() if version == base), base)
        tuned = self.tuned(name)
        return {
            "id": name,
            "object": "model",
            "created": int(tuned.finished) if tuned and tuned.finished else SINCE,
            "owned_by": ORGANISATION if tuned else "system",
            "shutdown_date": SHUTDOWNS.get(alias),
        }

    def _list_models(self, request: Request) -> Reply:
        tuned = [job.tuned for job in self.works.jobs.values() if self.tuned(job.tuned)]
        return Reply({"object": "list", "data": [self._shown(name) for name in (*self.tuning.models, *UNTUNABLE, *tuned)]})

    def _model(self, request: Request) -> Reply:
        self.answering(request.found["id"])
        return Reply(self._shown(request.found["id"]))

    def _delete_model(self, request: Request) -> Reply:
        name = request.found["id"]
        if self.tuned(name) is None:
            raise Refused(404, f"The model `{name}` does not exist.", "model_not_found", "model")
        self.deleted.add(name)
        self.brain.forget(name)
        return Reply({"id": name, "object": "model", "deleted": True})
