"""Models on Bedrock as chat models, all through ``Converse``: base models by id, tuned ones by the ARN of what serves them."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prooftune.errors import DataError
from prooftune.providers.batches import answer_through
from prooftune.providers.bedrock_answers import Converse
from prooftune.providers.bedrock_connection import Connection
from prooftune.providers.bedrock_files import Bucket
from prooftune.providers.bedrock_models import asked_as
from prooftune.providers.bedrock_rows import system_of, turns_of
from prooftune.providers.calls import Failure
from prooftune.providers.chat import ChatAnswer, Prompt, in_order
from prooftune.types import Report, no_report

log = logging.getLogger(__name__)

BATCH_MIN = 100
"""Records of a batch job at least, by the default quota of every model."""
_TUNED = (":custom-model-deployment/", ":provisioned-model/", ":custom-model/")


class BedrockChat:
    """A model on Bedrock, by id or ARN."""

    def __init__(self, model: str, connection: Connection, bucket: Bucket) -> None:
        self.name = model
        self.connection = connection
        self.bucket = bucket
        self.model_id = asked_as(model)
        """What a request names: ids with a context length answer nobody on demand."""
        self._temperature = True

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return in_order(partial(self.ask, max_tokens=max_tokens), prompts)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through batch inference: half the price, up to 24 hours.

        Bedrock's batches are for base models, and for ``BATCH_MIN`` questions or more; others are asked directly, at the full price.
        """
        from prooftune.providers.bedrock_batch import Queue

        if why := self._unbatched(len(prompts)):
            log.warning("%s is asked directly, not in a batch: %s", self.name, why)
            return list(self.complete(prompts, max_tokens=max_tokens))
        queue = Queue(self, prompts, max_tokens)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)

    def _unbatched(self, questions: int) -> str:
        if any(mark in self.name for mark in _TUNED):
            return "bedrock has batches for base models alone"
        return f"{questions} questions are fewer than a batch's {BATCH_MIN}" if questions < BATCH_MIN else ""

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""
        sent: list[dict[str, Any]] = []

        def request() -> ChatAnswer:
            sent[:] = [self.body(prompt, max_tokens)]
            started = time.monotonic()
            answer = self.connection.runtime.converse(modelId=self.model_id, **sent[0])
            return answered(answer, time.monotonic() - started)

        def adapt(failure: Failure) -> bool:
            """Leave the temperature out where the model refuses it, as those that think do."""
            named = failure.status == 400 and re.search(r"\btemperature\b", failure.message) is not None
            if not named or "temperature" not in sent[0]["inferenceConfig"]:
                return False
            self._temperature = False
            return True

        return self.connection.call(request, adapt=adapt)

    def body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """Return the request for one prompt, with the parameters that the model is known to take. Bedrock has no seed.

        Raises:
            DataError: a message is a tool's answer, which Bedrock takes only with the call it answers.
        """
        if any(message.role == "tool" for message in prompt):
            raise DataError("a prompt holds a message with role 'tool', which cannot be sent to an API; leave such examples out")
        system = system_of(prompt)
        return {
            "messages": [{"role": role, "content": [{"text": text} for text in texts]} for role, texts in turns_of(prompt)],
            **({"system": [{"text": system}]} if system else {}),
            "inferenceConfig": {"maxTokens": max_tokens} | ({"temperature": 0} if self._temperature else {}),
        }


def answered(answer: Any, latency_s: float | None) -> ChatAnswer:
    """Return an answer in our words. Raises pydantic.ValidationError for one that is none."""
    read = Converse.model_validate(answer)
    return ChatAnswer(
        text=read.text,
        prompt_tokens=read.usage.input_tokens + read.usage.cache_read_input_tokens + read.usage.cache_write_input_tokens,
        answer_tokens=read.usage.output_tokens,
        finished=read.stop_reason in ("end_turn", "stop_sequence"),
        latency_s=latency_s,
        refusal=read.refused,
    )
