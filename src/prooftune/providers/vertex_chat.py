"""Gemini models on Vertex AI as chat models: base models by name, tuned ones at their endpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from prooftune.errors import DataError
from prooftune.providers.batches import answer_through
from prooftune.providers.calls import Failure
from prooftune.providers.chat import ChatAnswer, Prompt, in_order
from prooftune.providers.vertex_connection import Connection
from prooftune.providers.vertex_files import Bucket
from prooftune.providers.vertex_rows import as_contents
from prooftune.types import Report, no_report

SEED = 7
THINKING: tuple[dict[str, Any], ...] = ({"thinkingLevel": "MINIMAL"}, {"thinkingBudget": 0}, {})
"""Gemini 3 takes a level, Gemini 2.5 a budget, and an endpoint does not say which it is: each is sent until one is taken. A tuned model
does not think (it learned from answers without thoughts), and tokens of thought are taken from the answer's.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/tuning/supervised-tuning, "Supported models".
"""
_REFUSALS = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"}


class _Part(BaseModel):
    text: str = ""
    thought: bool = False


class _Content(BaseModel):
    parts: list[_Part] = []


class _Candidate(BaseModel):
    content: _Content = _Content()
    finishReason: str | None = None  # noqa: N815 - the API's name


class _Feedback(BaseModel):
    blockReason: str | None = None  # noqa: N815 - the API's name


class _Usage(BaseModel):
    prompt: int = Field(alias="promptTokenCount")
    candidates: int = Field(0, alias="candidatesTokenCount")
    thoughts: int = Field(0, alias="thoughtsTokenCount")


class Generated(BaseModel):
    """What we read of an answer. A prompt that is blocked has no candidate."""

    candidates: list[_Candidate] = []
    promptFeedback: _Feedback = _Feedback()  # noqa: N815 - the API's name
    usageMetadata: _Usage  # noqa: N815 - the API's name

    def answer(self, latency_s: float | None) -> ChatAnswer:
        """Return it in our words; thoughts are billed as the answer is."""
        candidate = self.candidates[0] if self.candidates else _Candidate()
        refusal = candidate.finishReason in _REFUSALS or self.promptFeedback.blockReason is not None
        return ChatAnswer(
            text="".join(part.text for part in candidate.content.parts if not part.thought),
            prompt_tokens=self.usageMetadata.prompt,
            answer_tokens=self.usageMetadata.candidates + self.usageMetadata.thoughts,
            finished=candidate.finishReason == "STOP" and not refusal,
            latency_s=latency_s,
            refusal=refusal,
        )


class VertexChat:
    """A Gemini model. ``tuned_model`` says which tuned model answers at an endpoint."""

    def __init__(self, model: str, connection: Connection, bucket: Bucket, tuned_model: Callable[[str], str]) -> None:
        self.name = model
        self.connection = connection
        self.bucket = bucket
        self.tuned_model = tuned_model
        self._thinking = 0

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> Iterator[ChatAnswer]:
        """Yield the answer to each prompt, in order, each as soon as it is there."""
        return in_order(partial(self.ask, max_tokens=max_tokens), prompts)

    def complete_batch(self, prompts: Sequence[Prompt], *, max_tokens: int, folder: Path, report: Report = no_report) -> list[ChatAnswer]:
        """Return the answer to each prompt, in order, through batch inference: half the price, up to 24 hours."""
        from prooftune.providers.vertex_batch import Queue

        queue = Queue(self, prompts, max_tokens)
        return answer_through(queue, queue.key, prompts, partial(self.ask, max_tokens=max_tokens), folder, report)

    def ask(self, prompt: Prompt, max_tokens: int) -> ChatAnswer:
        """Return the answer to one prompt."""
        types, sent = self.connection.types, [0]
        body = self.body(prompt, max_tokens)

        def request() -> ChatAnswer:
            sent[0] = self._thinking
            config = types.GenerateContentConfig(
                system_instruction=body.get("systemInstruction"),
                # The raw answer: the SDK's own types would take whatever comes.
                should_return_http_response=True,
                **{**body["generationConfig"], "thinkingConfig": THINKING[sent[0]] or None},
            )
            started = time.monotonic()
            response = self.connection.client.models.generate_content(model=self.name, contents=body["contents"], config=config)
            latency_s = time.monotonic() - started
            return Generated.model_validate(json.loads(response.sdk_http_response.body)).answer(latency_s)

        def adapt(failure: Failure) -> bool:
            """Go on to the next way to ask for no thoughts, where this one is refused."""
            if failure.status != 400 or "thinking" not in failure.message.lower() or sent[0] + 1 >= len(THINKING):
                return False
            self._thinking = max(self._thinking, sent[0] + 1)
            return True

        return self.connection.call(request, adapt=adapt)

    def body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """Return the request for one prompt, with the way to ask for no thoughts that the model is known to take.

        Raises:
            DataError: a message is a tool's answer, which Gemini takes only with the call it answers.
        """
        if any(message.role == "tool" for message in prompt):
            raise DataError("a prompt holds a message with role 'tool', which cannot be sent to an API; leave such examples out")
        instruction, contents = as_contents(prompt)
        thinking = THINKING[self._thinking]
        return {
            "contents": contents,
            **({"systemInstruction": {"role": "user", "parts": instruction}} if instruction else {}),
            "generationConfig": {
                "temperature": 0,
                "seed": SEED,
                "maxOutputTokens": max_tokens,
                **({"thinkingConfig": thinking} if thinking else {}),
            },
        }
