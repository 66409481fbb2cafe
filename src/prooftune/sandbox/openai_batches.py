"""Batches of OpenAI's stand-in: chat completions from a file into a file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.openai_files import FileStore, new_id, page_of

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 50_000
WORKERS = 8
Complete = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Batch:
    """A batch."""

    id: str
    endpoint: str
    input_file: str
    metadata: dict[str, str] | None
    total: int
    status: str = "validating"
    created: float = field(default_factory=time.time)
    ended: float | None = None
    answered: int = 0
    failed: int = 0
    output_file: str | None = None
    error_file: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)


class Batches:
    """The batches of a stand-in; ``complete`` answers the body of one request, or raises Refused."""

    def __init__(self, files: FileStore, complete: Complete, refused: Callable[[Refused], Reply], pace_s: float) -> None:
        self.batches: dict[str, Batch] = {}
        self._files = files
        self._complete = complete
        self._refused = refused
        self._pace_s = pace_s
        self._lock = threading.Lock()

    def create(self, request: Request) -> Reply:
        """Create a batch and let it run."""
        body = request.json
        file = self._files.get(str(body.get("input_file_id")), "input_file_id")
        if body.get("endpoint") not in (ENDPOINT, ENDPOINT.removeprefix("/v1")):
            raise Refused(400, f"Invalid endpoint: {body.get('endpoint')}", "invalid_value", "endpoint")
        if body.get("completion_window") != "24h":
            raise Refused(400, "Invalid completion_window: only '24h' is supported.", "invalid_value", "completion_window")
        if file.purpose != "batch":
            raise Refused(400, "The input file must have been uploaded with purpose 'batch'.", "invalid_value", "input_file_id")
        lines = [json.loads(line) for line in file.content().decode().split("\n") if line.strip()]
        batch = Batch(new_id("batch_"), str(body["endpoint"]), file.id, body.get("metadata"), len(lines))
        self.batches[batch.id] = batch
        threading.Thread(target=self._run, args=(batch, lines), name=batch.id, daemon=True).start()
        return Reply(self.shown(batch) | {"status": "validating"})

    def _run(self, batch: Batch, lines: list[dict[str, Any]]) -> None:
        time.sleep(self._pace_s)
        if (wrong := self.unfit(lines)) is not None:
            code, problem = wrong
            batch.errors = [{"code": code, "message": problem, "param": None, "line": None}]
            batch.status, batch.ended = "failed", time.time()
            return
        batch.status = "in_progress"
        with ThreadPoolExecutor(WORKERS, thread_name_prefix=batch.id) as pool:
            found = list(pool.map(lambda line: self._answer(batch, line), lines))
        if batch.status != "in_progress":  # it was cancelled
            return
        answered = [line for line in found if line["response"]["status_code"] == 200]
        refused = [line for line in found if line["response"]["status_code"] != 200]
        batch.output_file = self._write(batch, "output", answered)
        batch.error_file = self._write(batch, "error", refused)
        batch.status, batch.ended = "completed", time.time()

    def unfit(self, lines: list[dict[str, Any]]) -> tuple[str, str] | None:
        """Return code and message of what the API finds wrong in the questions once it has read them; None = nothing."""
        ids = [line.get("custom_id") for line in lines]
        if len(lines) > MOST_REQUESTS:
            return "invalid_request", f"The batch has {len(lines)} requests; at most {MOST_REQUESTS} are allowed."
        if len(set(ids)) < len(ids) or not all(isinstance(one, str) for one in ids):
            return "invalid_request", "Each request must have a custom_id of its own."
        return None

    def _answer(self, batch: Batch, line: dict[str, Any]) -> dict[str, Any]:
        try:
            status, body = 200, self._complete(line["body"])
        except Refused as refused:
            reply = self._refused(refused)
            status, body = reply.status, reply.body  # type: ignore[assignment]  # errors are objects
        with self._lock:
            batch.answered, batch.failed = batch.answered + (status == 200), batch.failed + (status != 200)
        response = {"status_code": status, "request_id": new_id("req_"), "body": body}
        return {"id": new_id("batch_req_"), "custom_id": line["custom_id"], "response": response, "error": None}

    def _write(self, batch: Batch, what: str, lines: list[dict[str, Any]]) -> str | None:
        if not lines:
            return None
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self._files.add(f"{batch.id}_{what}.jsonl", "batch_output", data).id

    def shown(self, batch: Batch) -> dict[str, Any]:
        """Return a batch as the API shows it."""
        given = {
            "output_file_id": batch.output_file,
            "error_file_id": batch.error_file,
            f"{batch.status}_at": int(batch.ended) if batch.ended else None,
            "metadata": batch.metadata,
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        }
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "input_file_id": batch.input_file,
            "completion_window": "24h",
            "status": batch.status,
            "created_at": int(batch.created),
            "expires_at": int(batch.created) + 86_400,
            "request_counts": {"total": batch.total, "completed": batch.answered, "failed": batch.failed},
            **{name: value for name, value in given.items() if value is not None},
        }

    def _find(self, request: Request) -> Batch:
        batch = self.batches.get(request.found["id"])
        if batch is None:
            raise Refused(404, f"No batch found with id '{request.found['id']}'.", "not_found", "batch_id")
        return batch

    def list(self, request: Request) -> Reply:
        """Show the batches, the newest first."""
        return Reply(page_of([self.shown(batch) for batch in reversed(self.batches.values())], request, 20))

    def retrieve(self, request: Request) -> Reply:
        """Show a batch."""
        return Reply(self.shown(self._find(request)))

    def cancel(self, request: Request) -> Reply:
        """End a batch."""
        batch = self._find(request)
        if batch.ended is not None:
            raise Refused(409, f"Cannot cancel a batch with status '{batch.status}'.", "conflict")
        batch.status, batch.ended = "cancelled", time.time()
        return Reply(self.shown(batch))
