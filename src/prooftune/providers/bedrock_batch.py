"""Questions through Bedrock's batch inference: from a file in S3 into files in S3, in no order.

A batch is created under its questions' digest as ``clientRequestToken``: creating it again makes no second one.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html, …/batch-inference-results.html.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from prooftune.providers.batches import BatchStatus, batch_key, custom_id
from prooftune.providers.bedrock_answers import BatchAnswer, Created
from prooftune.providers.bedrock_chat import BedrockChat, answered
from prooftune.providers.bedrock_connection import pages
from prooftune.providers.chat import ChatAnswer, Prompt
from prooftune.providers.tuning import MARK

BATCH_STATUSES: Mapping[str, tuple[bool, bool]] = {
    "Submitted": (False, True),
    "Validating": (False, True),
    "Scheduled": (False, True),
    "InProgress": (False, True),
    "Stopping": (False, False),
    "Completed": (True, True),
    "PartiallyCompleted": (True, True),
    "Expired": (True, True),
    "Stopped": (True, False),
    "Failed": (True, False),
}
"""By Bedrock's word: whether it lasts, and whether there are or will be answers. An expired batch has those that it got to."""
PAGE = 100


class _Line(BaseModel):
    """A line of the output; where inference failed, ``error`` stands in place of the answer."""

    recordId: str = ""  # noqa: N815 - the API's name
    modelOutput: dict[str, Any] | None = None  # noqa: N815 - the API's name


class Queue:
    """One set of questions. A batch carries their digest in its name."""

    def __init__(self, chat: BedrockChat, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.key = batch_key(chat.name, chat.connection.address, prompts, max_tokens)
        self._chat = chat
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._call, self._bedrock = chat.connection.call, chat.connection.bedrock

    @property
    def _name(self) -> str:
        return f"{MARK}-{self.key}"

    def find(self) -> str | None:
        """Return the ARN of the batch with this digest that is good for an answer."""
        found = pages(
            self._call, self._bedrock.list_model_invocation_jobs, "invocationJobSummaries", nameContains=self._name, maxResults=PAGE
        )
        for batch in map(BatchAnswer.model_validate, found):
            # Its name goes on with a number: where a batch came to nothing, the next one needs another.
            if batch.job_name.startswith(self._name) and BATCH_STATUSES.get(batch.status, (False, True))[1]:
                return batch.job_arn
        return None

    def submit(self) -> str:
        """Put the questions into the bucket and create the batch."""
        lines = [
            {"recordId": custom_id(self.key, number), "modelInput": self._chat.body(prompt, self._max_tokens)}
            for number, prompt in enumerate(self._prompts)
        ]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with tempfile.TemporaryDirectory(prefix="prooftune-batch-") as folder:
            # By their digest: what a model takes as a request may be learned between two attempts, and then the bytes differ.
            path = Path(folder) / f"{self._name}-{hashlib.sha256(data).hexdigest()[:10]}.jsonl"
            path.write_bytes(data)
            source = self._chat.bucket.put(path, path.name)
        earlier = pages(
            self._call, self._bedrock.list_model_invocation_jobs, "invocationJobSummaries", nameContains=self._name, maxResults=PAGE
        )
        name = f"{self._name}-{len(earlier) + 1}"
        request = partial(
            self._bedrock.create_model_invocation_job,
            jobName=name,
            clientRequestToken=name,
            roleArn=self._chat.connection.role,
            modelId=self._chat.model_id,
            modelInvocationType="Converse",
            inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": source}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"{source.removesuffix('.jsonl')}-answers/"}},
        )
        return self._call(lambda: Created.model_validate(request()).job_arn)

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is. An unknown status is taken for one that does not last."""
        found = self._read(batch)
        ended, good = BATCH_STATUSES.get(found.status, (False, True))
        return BatchStatus(
            text=found.status, done=found.processed_record_count, ended=ended, failed="" if good else found.message or found.status
        )

    def _read(self, batch: str) -> BatchAnswer:
        return self._call(lambda: BatchAnswer.model_validate(self._bedrock.get_model_invocation_job(jobIdentifier=batch)))

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id."""
        place = self._read(batch).output_data_config["s3OutputDataConfig"]["s3Uri"]
        found: dict[str, ChatAnswer] = {}
        # A batch that had to be made anew writes into the same folder, and its answers are as good.
        for data in self._chat.bucket.fetch(place, ending=".jsonl.out").values():
            for text in data.decode().split("\n"):
                found |= _answered(text)
        return found


def _answered(text: str) -> dict[str, ChatAnswer]:
    """Return the answer in a line of the output, by custom id; nothing where the question failed."""
    if not text.strip():
        return {}
    line = _Line.model_validate_json(text)
    try:
        return {line.recordId: answered(line.modelOutput, None)}
    except ValidationError:
        return {}
