"""Batch inference of Bedrock's stand-in: requests from an object into an object."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prooftune.sandbox.bedrock_jobs import invalid, page_of, region_of, time_of
from prooftune.sandbox.bedrock_s3 import Storage
from prooftune.sandbox.http import Refused, Reply, Request

WORKERS = 8
LEAST = 100
"""Records."""
JOB_NAME = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+.-])*")
Converse = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass
class _Batch:
    arn: str
    body: dict[str, Any]
    lines: list[dict[str, Any]]
    status: str = "Submitted"
    message: str = ""
    created: float = field(default_factory=time.time)
    ended: float | None = None
    answered: int = 0
    failed: int = 0


class Batches:
    """The batches of a stand-in; ``converse`` answers the body of one request to a model, or raises Refused."""

    def __init__(self, storage: Storage, converse: Converse, pace_s: float) -> None:
        self.batches: dict[str, _Batch] = {}
        self._storage = storage
        self._converse = converse
        self._pace_s = pace_s
        self._by_token: dict[str, str] = {}

    def create(self, request: Request) -> Reply:
        """Create a batch and let it run. A token that was seen makes no other."""
        body = request.json
        token = str(body.get("clientRequestToken") or uuid.uuid4())
        if token in self._by_token:
            return Reply({"jobArn": self._by_token[token]})
        if not JOB_NAME.fullmatch(str(body.get("jobName"))):
            raise invalid("Value at 'jobName' failed to satisfy constraint: Member must satisfy regular expression pattern")
        if any(one.body["jobName"] == body["jobName"] for one in self.batches.values()):
            raise Refused(400, "The provided job name is currently in use.", "ConflictException")
        if body.get("modelInvocationType") != "Converse":
            raise invalid("The stand-in takes batches of the invocation type Converse alone.")
        if ":custom-model" in str(body["modelId"]) or ":provisioned-model/" in str(body["modelId"]):
            raise invalid("Batch inference is not supported for this model.")
        uri = body["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        data = self._storage.read(uri)
        if data is None:
            raise invalid(f"Could not access the S3 object {uri}.")
        arn = f"arn:aws:bedrock:{region_of(request)}:{body['roleArn'].split(':')[4]}:model-invocation-job/{uuid.uuid4().hex[:12]}"
        batch = _Batch(arn, body, [json.loads(line) for line in data.decode().split("\n") if line.strip()])
        self.batches[arn] = batch
        self._by_token[token] = arn
        threading.Thread(target=self._run, args=(batch,), name=arn, daemon=True).start()
        return Reply({"jobArn": arn})

    def _run(self, batch: _Batch) -> None:
        time.sleep(self._pace_s)
        if len(batch.lines) < LEAST:
            batch.message = f"Your input contains {len(batch.lines)} records, fewer than the minimum of {LEAST} per batch inference job."
            batch.ended, batch.status = time.time(), "Failed"
            return
        batch.status = "InProgress"
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="batch") as pool:
            found = list(pool.map(lambda line: self._answer(str(batch.body["modelId"]), line), batch.lines))
        source = batch.body["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].rpartition("/")[2]
        target = batch.body["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].rstrip("/")
        folder = f"{target}/{batch.arn.rpartition('/')[2]}"
        # In another order than the requests, as the real one may.
        self._storage.write(f"{folder}/{source}.out", "".join(json.dumps(line) + "\n" for line in reversed(found)).encode())
        batch.answered = sum("modelOutput" in line for line in found)
        batch.failed = len(found) - batch.answered
        counts = {"totalRecordCount": len(found), "processedRecordCount": len(found), "successRecordCount": batch.answered}
        self._storage.write(f"{folder}/manifest.json.out", json.dumps({**counts, "errorRecordCount": batch.failed}).encode())
        batch.ended, batch.status = time.time(), "Completed"

    def _answer(self, model: str, line: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**line, "modelOutput": self._converse(model, line["modelInput"])}
        except Refused as refused:
            return {**line, "error": {"errorCode": refused.status, "errorMessage": refused.message}}

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        processed = batch.answered + batch.failed
        shown = {
            "jobArn": batch.arn,
            **{name: value for name, value in batch.body.items() if name != "tags"},
            "status": batch.status,
            "message": batch.message or None,
            "submitTime": time_of(batch.created),
            "lastModifiedTime": time_of(batch.ended or batch.created),
            "endTime": time_of(batch.ended) if batch.ended else None,
            "totalRecordCount": len(batch.lines),
            "processedRecordCount": processed,
            "successRecordCount": batch.answered,
            "errorRecordCount": batch.failed,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def list(self, request: Request) -> Reply:
        """Show the batches, the newest first."""
        named = request.first("nameContains")
        found = [self._shown(batch) for batch in self.batches.values() if named in batch.body["jobName"]]
        return Reply(page_of(found, request, "invocationJobSummaries"))

    def retrieve(self, request: Request) -> Reply:
        """Show a batch, by ARN or by the id at its end."""
        wanted = request.found["id"]
        for arn, batch in self.batches.items():
            if wanted in (arn, arn.rpartition("/")[2]):
                return Reply(self._shown(batch))
        raise Refused(404, f"The model invocation job {wanted} is not found.", "ResourceNotFoundException")
