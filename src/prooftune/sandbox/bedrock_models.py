"""The foundation models of Bedrock's stand-in: what is listed of each, and what each is tuned with. All are in every region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request


@dataclass(frozen=True)
class Foundation:
    """A foundation model. Its id with a context length can be tuned, the one without answers on demand."""

    id: str
    name: str
    provider: str
    started: str
    tunable: bool = False
    legacy: str = ""
    ends: str = ""

    @property
    def on_demand(self) -> bool:
        """Whether it answers on demand."""
        return not self.tunable

    def shown(self, region: str) -> dict[str, Any]:
        """Return it as a list shows it."""
        life = {"status": "LEGACY" if self.legacy else "ACTIVE", "startOfLifeTime": self.started}
        if self.legacy:
            life |= {"legacyTime": self.legacy, "endOfLifeTime": self.ends}
        return {
            "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{self.id}",
            "modelId": self.id,
            "modelName": self.name,
            "providerName": self.provider,
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": ["FINE_TUNING"] if self.tunable else [],
            "inferenceTypesSupported": ["PROVISIONED"] if self.tunable else ["ON_DEMAND"],
            "modelLifecycle": life,
        }


def _pair(model: str, length: str, name: str, provider: str, started: str, **life: str) -> tuple[Foundation, Foundation]:
    """Return a model's two entries: the one that answers, and the one that is tuned."""
    return (
        Foundation(model, name, provider, started, **life),  # type: ignore[arg-type]  # the two dates
        Foundation(f"{model}:{length}", name, provider, started, tunable=True, **life),
    )


MODELS: Mapping[str, Foundation] = {
    found.id: found
    for found in (
        *_pair("amazon.nova-micro-v1:0", "128k", "Nova Micro", "Amazon", "2024-12-03T00:00:00Z"),
        *_pair("amazon.nova-lite-v1:0", "300k", "Nova Lite", "Amazon", "2024-12-03T00:00:00Z"),
        *_pair("amazon.nova-pro-v1:0", "300k", "Nova Pro", "Amazon", "2024-12-03T00:00:00Z"),
        *_pair("amazon.nova-2-lite-v1:0", "256k", "Nova 2 Lite", "Amazon", "2025-12-02T00:00:00Z"),
        *_pair(
            "anthropic.claude-3-haiku-20240307-v1:0",
            "200k",
            "Claude 3 Haiku",
            "Anthropic",
            "2024-03-13T00:00:00Z",
            legacy="2026-03-10T00:00:00Z",
            ends="2026-09-10T00:00:00Z",
        ),
        *_pair("meta.llama3-1-8b-instruct-v1:0", "128k", "Llama 3.1 8B", "Meta", "2024-07-23T00:00:00Z"),
        *_pair("meta.llama3-1-70b-instruct-v1:0", "128k", "Llama 3.1 70B", "Meta", "2024-07-23T00:00:00Z"),
        *_pair("meta.llama3-2-3b-instruct-v1:0", "128k", "Llama 3.2 3B", "Meta", "2024-09-25T00:00:00Z"),
        *_pair("meta.llama3-3-70b-instruct-v1:0", "128k", "Llama 3.3 70B", "Meta", "2024-12-19T00:00:00Z"),
        Foundation("amazon.nova-canvas-v1:0", "Nova Canvas", "Amazon", "2024-12-03T00:00:00Z", tunable=True),
        Foundation("anthropic.claude-sonnet-4-20250514-v1:0", "Claude Sonnet 4", "Anthropic", "2025-05-22T00:00:00Z"),
    )
}
"""By id. Dates are AWS's where they are known; Claude 3 Haiku has ended there, and stays here so that it can be rehearsed."""
_LLAMA = {"epochCount": (1, 10), "batchSize": (1, 1), "learningRate": (5e-6, 0.1)}
CHOICES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "amazon.nova-": {"epochCount": (1, 5), "learningRate": (1e-6, 1e-4), "learningRateWarmupSteps": (0, 100)},
    "anthropic.": {
        "epochCount": (1, 10),
        "batchSize": (4, 256),
        "learningRateMultiplier": (0.1, 2),
        "earlyStoppingThreshold": (0, 0.1),
        "earlyStoppingPatience": (1, 10),
    },
    "meta.": _LLAMA,
}
"""Hyperparameters with their bounds, by the beginning of the id."""
ROWS: Mapping[str, tuple[int, int]] = {"amazon.nova-": (8, 20_000), "anthropic.": (32, 10_000), "meta.": (1, 10_000)}
"""Least and most records of a training file."""
VALIDATION_ROWS: Mapping[str, int] = {"amazon.nova-": 20_000, "anthropic.": 1_000, "meta.": 1_000}
"""Most records of a validation file."""


def of_prefix(table: Mapping[str, Any], model: str) -> Any:
    """Return the entry of a table for a model."""
    return next(entry for prefix, entry in table.items() if model.startswith(prefix))


def list_models(request: Request, region: str) -> Reply:
    """List the models, by what is asked of them."""
    customization, inference = request.first("byCustomizationType"), request.first("byInferenceType")
    shown = [found.shown(region) for found in MODELS.values()]
    return Reply(
        {
            "modelSummaries": [
                one
                for one in shown
                if (not customization or customization in one["customizationsSupported"])
                and (not inference or inference in one["inferenceTypesSupported"])
                and request.first("byProvider", one["providerName"]).lower() == one["providerName"].lower()
            ]
        }
    )


def tunable(identifier: str) -> Foundation:
    """Return the model that a job names, by id or ARN. Raises Refused."""
    found = MODELS.get(identifier.rpartition("/")[2])
    if found is None:
        raise Refused(400, "The provided model identifier is invalid.", "ValidationException")
    if not found.tunable:
        raise Refused(400, f"Model {found.id} does not support FINE_TUNING.", "ValidationException")
    return found
