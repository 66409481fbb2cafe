"""Questions through Vertex AI's batch inference: from a file in Cloud Storage into files in Cloud Storage, in no order.

A line of the input is a request and has no id of its own. Each request carries its custom id as a label, which the output repeats.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/capabilities/batch-prediction-from-cloud-storage.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from prooftune.providers.batches import BatchStatus, batch_key, custom_id
from prooftune.providers.chat import ChatAnswer, Prompt
from prooftune.providers.tuning import MARK
from prooftune.providers.vertex_answers import BatchAnswer, read_batch
from prooftune.providers.vertex_chat import Generated, VertexChat
from prooftune.providers.vertex_connection import pages

LABEL = "question"
ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
WITHOUT_ANSWERS = {"JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
PAGE = 100


class _Asked(BaseModel):
    labels: dict[str, str] = {}


class _Line(BaseModel):
    """A line of the output; a request that failed has no answer, and ``status`` says why."""

    request: _Asked
    response: dict[str, Any] = {}


class Queue:
    """One set of questions. A batch carries their digest in its display name."""

    def __init__(self, chat: VertexChat, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.key = batch_key(chat.name, chat.connection.address, prompts, max_tokens)
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._call, self._types = chat.connection.call, chat.connection.types
        self._batches = chat.connection.client.batches

    @property
    def _name(self) -> str:
        return f"{MARK}-{self.key}"

    def find(self) -> str | None:
        """Return the name of the batch with this digest that is good for an answer."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK warns of states it does not know
            config = self._types.ListBatchJobsConfig(page_size=PAGE)
            for found in pages(self._call, lambda: self._batches.list(config=config)):
                batch = read_batch(found)
                if batch.display_name == self._name and batch.state not in (*WITHOUT_ANSWERS, "JOB_STATE_CANCELLING"):
                    return batch.name
        return None

    def submit(self) -> str:
        """Put the questions into the bucket and create the batch, with a single attempt."""
        lines = [
            {"request": {**self._chat.body(prompt, self._max_tokens), "labels": {LABEL: custom_id(self.key, number)}}}
            for number, prompt in enumerate(self._prompts)
        ]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with tempfile.TemporaryDirectory(prefix="prooftune-batch-") as folder:
            # By their digest: what a model takes as a request may be learned between two attempts, and then the bytes differ.
            path = Path(folder) / f"{self._name}-{hashlib.sha256(data).hexdigest()[:10]}.jsonl"
            path.write_bytes(data)
            source = self._chat.bucket.put(path, path.name)
        model = self._chat.name
        if "/endpoints/" in model:
            model = self._chat.tuned_model(model)
        config = self._types.CreateBatchJobConfig(display_name=self._name, dest=f"{source.removesuffix('.jsonl')}-answers")
        return self._call.create(lambda: read_batch(self._batches.create(model=model, src=source, config=config)).name)

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is. An unknown status is taken for one that does not last."""
        found = self._read(batch)
        counts = found.completion_stats
        return BatchStatus(
            text=found.state,
            done=counts.successful_count + counts.failed_count,
            ended=found.state in ENDED,
            failed=(found.error.message or found.state) if found.state in WITHOUT_ANSWERS else "",
        )

    def _read(self, batch: str) -> BatchAnswer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._call(lambda: read_batch(self._batches.get(name=batch)))

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id."""
        folder = self._read(batch).output_info.gcs_output_directory
        files = self._chat.bucket.fetch(folder) if folder else {}
        found: dict[str, ChatAnswer] = {}
        for name, data in files.items():
            if name.endswith(".jsonl"):
                for text in data.decode().split("\n"):
                    found |= _answered(text)
        return found


def _answered(text: str) -> dict[str, ChatAnswer]:
    """Return the answer in a line of the output, by custom id; nothing where the request failed."""
    if not text.strip():
        return {}
    line = _Line.model_validate_json(text)
    try:
        answer = Generated.model_validate(line.response).answer(None)
    except ValidationError:
        return {}
    return {line.request.labels[LABEL]: answer} if LABEL in line.request.labels else {}
