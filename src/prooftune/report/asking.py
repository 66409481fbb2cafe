"""How to ask a tuned model that stays at its provider: a few lines of Python with the provider's own SDK."""

from __future__ import annotations

from typing import Final

from prooftune.providers.chat import COMPATIBLE, KEYS
from prooftune.report.managed import NAMES, tuned_model
from prooftune.report.view import RunView

DEPLOYMENT: Final = "THE NAME OF YOUR DEPLOYMENT"
NEEDS: Final = {
    "azure": "Azure OpenAI answers from a deployment of the tuned model, which is paid for by the hour until it is deleted.",
    "bedrock": "Amazon Bedrock answers from a deployment of the tuned model, paid for by the token or the hour as its family allows.",
    "together": "Together answers from an endpoint of the tuned model on hardware of its own, which is paid for by the minute.",
    "fireworks": "Fireworks answers from a deployment of the base model with the adapter loaded, which is paid for by GPU time.",
}
"""What must run for the tuned model to answer, by provider."""
_OPENAI = """\
import os

from openai import OpenAI

client = OpenAI({client})
answer = client.chat.completions.create(
    model={model!r},
    messages={messages},
{temperature})
print(answer.choices[0].message.content)
"""
_VERTEX = """\
from google import genai

client = genai.Client({client})  # credentials: gcloud auth application-default login
answer = client.models.generate_content(
    model={model!r},
    contents="…",
    config={config},
)
print(answer.text)
"""
_BEDROCK = """\
import boto3

client = boto3.client("bedrock-runtime", {client})
answer = client.converse(
    modelId={model!r},
{system}    messages=[{{"role": "user", "content": [{{"text": "…"}}]}}],
    inferenceConfig={{"temperature": 0}},
)
print(answer["output"]["message"]["content"][0]["text"])
"""


def deployment_note(view: RunView) -> str:
    """Return what must run for the tuned model to answer, and what that costs; empty where it answers as it is."""
    if (needed := NEEDS.get(view.spec.backend.provider)) is None:
        return ""
    options, model = view.spec.provider, tuned_model(view)
    free = " At the developer tier it costs nothing by the hour and lives for a day." if options.tier == "developer" else ""
    if view.spec.backend.provider != "azure":
        return f"{needed} The run took its own down: make one of {model} first."
    return f"{needed}{free} The run took its own down: make one of {model} first, of the format OpenAI and the version 1."


def ask_snippet(view: RunView) -> str:
    """Return Python that asks the tuned model something, as the run asked it."""
    provider = view.spec.backend.provider
    if provider == "vertex":
        return _ask_vertex(view)
    return _ask_bedrock(view) if provider == "bedrock" else _ask_openai(view)


def _ask_openai(view: RunView) -> str:
    """OpenAI's SDK, which Azure, Together and Fireworks answer as well."""
    provider, system = view.spec.backend.provider, view.spec.task.system
    messages = [{"role": "system", "content": system}] if system else []
    key = f'api_key=os.environ["{KEYS[provider]}"]'
    address = _address(view)
    models = {"azure": DEPLOYMENT, "together": DEPLOYMENT, "fireworks": f"{tuned_model(view)}#{DEPLOYMENT}"}
    return _OPENAI.format(
        client=key if address is None else f"base_url={address!r}, {key}",
        model=models.get(provider, tuned_model(view)),
        messages=[*messages, {"role": "user", "content": "…"}],
        # OpenAI's reinforcement tuning is of models that think, and those refuse a temperature.
        temperature="" if view.spec.backend.objective == "reinforcement" else "    temperature=0,\n",
    )


def _address(view: RunView) -> str | None:
    """Return the address of the chat API; None = the SDK's own default."""
    provider, address = view.spec.backend.provider, view.spec.provider.base_url
    if address is None:
        return COMPATIBLE.get(provider)
    base = address.rstrip("/")
    return {"together": f"{base.removesuffix('/v1')}/v1", "fireworks": f"{base}/inference/v1"}.get(provider, address)


def _ask_vertex(view: RunView) -> str:
    options, system = view.spec.provider, view.spec.task.system
    at = f", http_options={{'base_url': {options.base_url!r}}}" if options.base_url else ""
    return _VERTEX.format(
        client=f"vertexai=True, project={options.project!r}, location={options.region!r}{at}",
        model=tuned_model(view),
        config=({"system_instruction": system} if system else {}) | {"temperature": 0},
    )


def _ask_bedrock(view: RunView) -> str:
    options, system = view.spec.provider, view.spec.task.system
    at = f", endpoint_url={options.base_url!r}" if options.base_url else ""
    return _BEDROCK.format(
        client=f"region_name={options.region!r}{at}",
        model=DEPLOYMENT,
        system=f'    system=[{{"text": {system!r}}}],\n' if system else "",
    )


def ask_title(view: RunView) -> str:
    """Return what the snippet is for."""
    return f"Ask the tuned model at {NAMES[view.spec.backend.provider]}"
