"""Batch inference of Vertex AI's stand-in: requests from an object into an object."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.vertex_jobs import page_of
from prooftune.sandbox.vertex_storage import Storage

WORKERS = 8
Generate = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass
class _Batch:
    name: str
    body: dict[str, Any]
    lines: list[dict[str, Any]]
    state: str = "JOB_STATE_PENDING"
    created: float = field(default_factory=time.time)
    ended: float | None = None
    answered: int = 0
    failed: int = 0
    folder: str = ""


class Batches:
    """The batches of a stand-in; ``generate`` answers the body of one request to a model, or raises Refused."""

    def __init__(self, storage: Storage, generate: Generate, pace_s: float) -> None:
        self.batches: dict[str, _Batch] = {}
        self._storage = storage
        self._generate = generate
        self._pace_s = pace_s

    def create(self, request: Request) -> Reply:
        """Create a batch and let it run."""
        body = request.json
        source, target = body.get("inputConfig", {}), body.get("outputConfig", {})
        uris = source.get("gcsSource", {}).get("uris", [])
        if source.get("instancesFormat") != "jsonl" or target.get("predictionsFormat") != "jsonl" or len(uris) != 1:
            raise Refused(400, "Input and output must be one JSONL file in Cloud Storage.", "INVALID_ARGUMENT")
        data = self._storage.read(uris[0])
        if data is None:
            raise Refused(400, f"Failed to read {uris[0]}: no such object.", "INVALID_ARGUMENT")
        where = f"projects/{request.found['project']}/locations/{request.found['location']}"
        batch = _Batch(
            f"{where}/batchPredictionJobs/{uuid.uuid4().int % 10**19}",
            body,
            [json.loads(line) for line in data.decode().split("\n") if line.strip()],
        )
        self.batches[batch.name] = batch
        threading.Thread(target=self._run, args=(batch,), name=batch.name, daemon=True).start()
        return Reply(self._shown(batch) | {"state": "JOB_STATE_PENDING"})

    def _run(self, batch: _Batch) -> None:
        time.sleep(self._pace_s)
        batch.state = "JOB_STATE_RUNNING"
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="batch") as pool:
            found = list(pool.map(lambda line: self._answer(str(batch.body["model"]), line), batch.lines))
        prefix = batch.body["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
        batch.folder = f"{prefix}/prediction-model-{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        # In another order than the requests, as the real one.
        self._storage.write(f"{batch.folder}/predictions.jsonl", "".join(json.dumps(line) + "\n" for line in reversed(found)).encode())
        batch.answered = sum(not line["status"] for line in found)
        batch.failed = len(found) - batch.answered
        batch.ended = time.time()
        batch.state = "JOB_STATE_SUCCEEDED"

    def _answer(self, model: str, line: dict[str, Any]) -> dict[str, Any]:
        told = {"processed_time": datetime.now(UTC).isoformat(), "request": line["request"]}
        try:
            return {"status": "", **told, "response": self._generate(model, line["request"])}
        except Refused as refused:
            return {"status": f"Bad Request: {refused.message}", **told, "response": {}}

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        shown = {
            "name": batch.name,
            "displayName": batch.body.get("displayName"),
            "model": batch.body["model"],
            "inputConfig": batch.body["inputConfig"],
            "outputConfig": batch.body["outputConfig"],
            "state": batch.state,
            "createTime": datetime.fromtimestamp(batch.created, UTC).isoformat(),
            "endTime": datetime.fromtimestamp(batch.ended, UTC).isoformat() if batch.ended else None,
            "completionStats": {"successfulCount": str(batch.answered), "failedCount": str(batch.failed)} if batch.ended else None,
            "outputInfo": {"gcsOutputDirectory": batch.folder} if batch.ended else None,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def list(self, request: Request) -> Reply:
        """Show the batches, the newest first."""
        return Reply(page_of([self._shown(batch) for batch in reversed(self.batches.values())], request, "batchPredictionJobs"))

    def retrieve(self, request: Request) -> Reply:
        """Show a batch."""
        found = request.found
        name = f"projects/{found['project']}/locations/{found['location']}/batchPredictionJobs/{found['id']}"
        if name not in self.batches:
            raise Refused(404, f"The BatchPredictionJob {name} does not exist.", "NOT_FOUND")
        return Reply(self._shown(self.batches[name]))
