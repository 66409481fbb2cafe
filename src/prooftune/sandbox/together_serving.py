"""Inference at Together's stand-in: chat, and batches of it."""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.sandbox.models import Answered, Brain
from prooftune.sandbox.together_endpoints import Endpoints
from prooftune.sandbox.together_files import FileStore, Unfit, messages_of, rows_of
from prooftune.sandbox.together_jobs import BASE_MODELS
from prooftune.sandbox.together_shown import moment


class Serving:
    """What answers: models without hardware of their own, and deployments."""

    def __init__(self, brain: Brain, files: FileStore, endpoints: Endpoints, pace_s: float) -> None:
        self.batches: dict[str, dict[str, Any]] = {}
        self._brain, self._files, self._endpoints, self._pace_s = brain, files, endpoints, pace_s

    def routes(self) -> list[Route]:
        """Return the paths of inference."""
        return [
            Route("POST", "/v1/chat/completions", "chat", lambda request: Reply(self._complete(request.json))),
            Route("POST", "/v1/batches", "create_batch", self._create_batch),
            Route("GET", "/v1/batches", "list_batches", lambda _: Reply(list(reversed(self.batches.values())))),
            Route("GET", "/v1/batches/(?P<id>[^/]+)", "get_batch", self._get_batch),
        ]

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        name = str(body.get("model") or "")
        model = name if name in BASE_MODELS else self._endpoints.served(name)
        if model is None:
            raise Refused(404, f"Unable to access model {name}", "model_not_available")
        try:
            prompt = messages_of(body.get("messages"), "the request")
        except Unfit as unfit:
            raise Refused(422, str(unfit), "invalid_request", "messages") from None
        return _completion(name, self._brain.answer(model, prompt, int(body.get("max_tokens") or 2048)))

    def _create_batch(self, request: Request) -> Reply:
        body = request.json
        if body.get("endpoint") != "/v1/chat/completions":
            raise Refused(400, "endpoint must be /v1/chat/completions", "invalid_request", "endpoint")
        file = self._files.ready(str(body.get("input_file_id")), "batch-api")
        batch = {"id": str(uuid.uuid4()), "user_id": "user-acme", "input_file_id": file.id, "file_size_bytes": file.size}
        batch |= {"status": "VALIDATING", "created_at": moment(time.time()), "endpoint": body["endpoint"], "progress": 0.0}
        self.batches[str(batch["id"])] = batch
        shown = dict(batch)
        threading.Thread(target=self._run, args=(batch, rows_of(file.content)), name=str(batch["id"]), daemon=True).start()
        return Reply({"job": shown}, 201)

    def _run(self, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        time.sleep(self._pace_s)
        batch["status"] = "IN_PROGRESS"
        answered: list[str] = []
        failed: list[str] = []
        for line in lines:
            try:
                response = {"status_code": 200, "body": self._complete(line["body"])}
                answered.append(json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n")
            except Refused as refused:
                failed.append(json.dumps({"custom_id": line["custom_id"], "error": {"message": refused.message}}) + "\n")
        # Reordered, as the real ones may come.
        for name, found in (("output", answered[::-1]), ("error", failed)):
            if found:
                batch[f"{name}_file_id"] = self._files.add(f"{batch['id']}_{name}.jsonl", "batch-api", "".join(found).encode()).id
        batch |= {"status": "COMPLETED", "progress": 100.0, "completed_at": moment(time.time())}

    def _get_batch(self, request: Request) -> Reply:
        if request.found["id"] not in self.batches:
            raise Refused(404, f"Batch {request.found['id']} not found", "not_found")
        return Reply(dict(self.batches[request.found["id"]]))


def _completion(model: str, answered: Answered) -> dict[str, Any]:
    prompt, answer = answered.prompt_tokens, answered.answer_tokens
    message = {"role": "assistant", "content": answered.text, "tool_calls": []}
    return {
        "id": secrets.token_hex(8),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "prompt": [],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop" if answered.finished else "length"}],
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt + answer, "completion_tokens": answer},
    }
