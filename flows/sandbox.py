"""Serves a stand-in for a managed API on this machine, until nobody has asked it anything for a while."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HINTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "openai": ({"OPENAI_API_KEY": "sandbox"}, {"provider.base_url": "{address}/v1"}),
    "azure": (
        {"AZURE_OPENAI_API_KEY": "sandbox", "AZURE_MANAGEMENT_ENDPOINT": "{address}", "AZURE_MANAGEMENT_TOKEN": "sandbox"},
        {
            "provider.base_url": "{address}/openai/v1",
            "provider.resource": "/subscriptions/0000/resourceGroups/sandbox/providers/Microsoft.CognitiveServices/accounts/sandbox",
        },
    ),
    "bedrock": (
        {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox", "AWS_ENDPOINT_URL_S3": "{address}"},
        {
            "provider.base_url": "{address}",
            "provider.region": "us-west-2",
            "provider.bucket": "s3://sandbox/rows",
            "provider.role_arn": "arn:aws:iam::000000000000:role/sandbox",
        },
    ),
    "vertex": (
        {"GOOGLE_OAUTH_ACCESS_TOKEN": "sandbox", "STORAGE_EMULATOR_HOST": "{address}"},
        {
            "provider.base_url": "{address}",
            "provider.project": "sandbox",
            "provider.region": "us-central1",
            "provider.bucket": "gs://sandbox/rows",
        },
    ),
    "together": ({"TOGETHER_API_KEY": "sandbox"}, {"provider.base_url": "{address}/v1"}),
    "fireworks": ({"FIREWORKS_API_KEY": "sandbox"}, {"provider.base_url": "{address}", "provider.project": "sandbox"}),
}
"""By provider: what to put into the environment, and which fields of the spec to set."""
MODELS = {
    "openai": "gpt-4.1-mini",
    "azure": "gpt-4.1",
    "bedrock": "amazon.nova-micro-v1:0:128k",
    "vertex": "gemini-3.5-flash",
    "together": "Qwen/Qwen3.5-9B",
    "fireworks": "accounts/fireworks/models/llama-v3p1-8b-instruct",
}
"""One that each stand-in tunes, for the command that it prints."""


def serve_or_fail(provider: str, port: int, fast: bool, faults: Sequence[str], idle_minutes: float, pace_s: float, as_json: bool) -> None:
    """Serve, and end as every command does: 0 when nobody asks any more, or the failure's code."""
    from flows.endings import ending

    with ending(as_json):
        held = serve(provider, port, fast, faults, idle_minutes, pace_s, as_json)
        counted = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in held.items() if isinstance(value, int))
        print(f"the stand-in for {provider} stopped: {counted}", file=sys.stderr)  # noqa: T201 - to a person


def serve(provider: str, port: int, fast: bool, faults: Sequence[str], idle_minutes: float, pace_s: float, as_json: bool) -> dict[str, Any]:
    """Serve a provider's stand-in; return what it holds when it stops.

    ``fast``: canned answers, and no training. Otherwise the demo model answers, and every job is really trained on this machine.

    Raises:
        SpecError: a fault is none.
        EnvironmentLacks: the port is taken.
    """
    from prooftune.sandbox.faults import parse_fault
    from prooftune.sandbox.http import serve_until_idle
    from prooftune.sandbox.models import Brain, CannedBrain, DemoBrain
    from prooftune.sandbox.stand_ins import stand_in

    logging.captureWarnings(True)  # the training libraries warn of their own next versions
    ordered = [parse_fault(text) for text in faults]
    with tempfile.TemporaryDirectory(prefix="prooftune-sandbox-") as folder:
        brain: Brain = CannedBrain() if fast else DemoBrain(Path(folder) / "models")
        api = stand_in(provider, brain, Path(folder), pace_s)
        api.faults.ordered.extend(ordered)
        with suppress(KeyboardInterrupt):  # its usual end
            serve_until_idle(api, port, idle_minutes * 60, lambda address: _told(provider, address, as_json))
        return {"provider": provider, "requests": len(api.seen), **api.state()}


def hints(provider: str, address: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment and the fields of a spec that lead to a stand-in at an address."""
    environment, fields = HINTS[provider]
    fields = fields | {"provider.min_remaining_days": "0"}  # the stand-in tells its provider's last days, and is not shut down itself
    return tuple({name: value.format(address=address) for name, value in part.items()} for part in (environment, fields))  # type: ignore[return-value]  # two parts


def _told(provider: str, address: str, as_json: bool) -> None:
    environment, fields = hints(provider, address)
    if as_json:
        print(json.dumps({"provider": provider, "address": address, "environment": environment, "set": fields}), flush=True)  # noqa: T201
        return
    exports = "\n".join(f"  export {name}={value}" for name, value in environment.items())
    settings = " ".join(
        f"--set {name}={value}" for name, value in {"backend.provider": provider, "backend.model": MODELS[provider], **fields}.items()
    )
    print(f"a stand-in for {provider} answers at {address}\n{exports}\n  prooftune run SPEC {settings}", file=sys.stderr, flush=True)  # noqa: T201
