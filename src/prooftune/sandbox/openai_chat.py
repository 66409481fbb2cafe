"""Chat completions of OpenAI's stand-in."""

from __future__ import annotations

import time
from typing import Any

from prooftune.sandbox.http import Refused
from prooftune.sandbox.models import Brain
from prooftune.sandbox.openai_files import new_id
from prooftune.sandbox.openai_rows import as_message

SAMPLING = {"temperature", "seed", "top_p", "n", "stop", "frequency_penalty", "presence_penalty", "logprobs", "reasoning_effort"}
FORM = {"response_format", "tools", "tool_choice", "parallel_tool_calls", "stream", "verbosity"}
ACCOUNT = {"store", "metadata", "user", "service_tier", "safety_identifier", "prompt_cache_key"}
PARAMETERS = {"model", "messages", "max_tokens", "max_completion_tokens"} | SAMPLING | FORM | ACCOUNT
DEFAULT_TOKENS = 1024
"""Length of an answer where the request gives no limit."""


def complete(brain: Brain, model: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answer a request; ``model`` is what the brain calls it.

    Raises:
        Refused: the API would refuse the request.
    """
    if unknown := sorted(body.keys() - PARAMETERS):
        raise Refused(400, f"Unrecognized request argument supplied: {unknown[0]}", "unknown_parameter", unknown[0])
    if body.get("stream") or body.get("n") not in (None, 1):
        raise Refused(400, "The stand-in answers once, and not as a stream.", "unsupported_value", "stream" if body.get("stream") else "n")
    try:
        prompt = [as_message(message) for message in body["messages"]]
    except (KeyError, TypeError):
        raise Refused(400, "Invalid 'messages': each has a role and a content.", "invalid_value", "messages") from None
    if not prompt:
        raise Refused(400, "Invalid 'messages': empty array.", "empty_array", "messages")
    limit = _limit(model, body)
    answered = brain.answer(model, prompt, limit)
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answered.text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop" if answered.finished else "length",
            }
        ],
        "usage": {
            "prompt_tokens": answered.prompt_tokens,
            "completion_tokens": answered.answer_tokens,
            "total_tokens": answered.prompt_tokens + answered.answer_tokens,
        },
    }


def _limit(model: str, body: dict[str, Any]) -> int:
    """Return the limit of the answer; models that think first refuse parameters of those that do not."""
    if model.removeprefix("ft:").startswith("o"):
        for name in ("max_tokens", "temperature"):
            if body.get(name) is not None:
                raise Refused(400, f"Unsupported parameter: '{name}' is not supported with this model.", "unsupported_parameter", name)
    found = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_TOKENS
    if not isinstance(found, int) or found < 1:
        raise Refused(400, "Invalid limit of the answer's tokens.", "invalid_value", "max_completion_tokens")
    return found
