"""The families of models that Bedrock tunes from text: their form of rows, their hyperparameters, and how a tuned one answers.

Bedrock's API says which models it tunes and until when. What follows it says nowhere, so that it stands here, read on 2026-11-26.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/custom-models-hp.html (hyperparameters), …/deploy-custom-model-on-demand.html
(on demand), https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html, and the validators of rows in
https://github.com/aws-samples/amazon-bedrock-samples/tree/main/custom-models/bedrock-fine-tuning (forms and counts).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from prooftune.errors import SpecError
from prooftune.providers.tuning import Order
from prooftune.spec import Objective

Form = Literal["claude", "conversation", "completion"]


@dataclass(frozen=True)
class Family:
    """Models that are tuned alike."""

    name: str
    prefixes: tuple[str, ...]
    """What their ids begin with."""
    form: Form
    """Of supervised rows: ``claude``: messages with a system text beside them; ``conversation``: ``bedrock-conversation-2024``;
    ``completion``: prompt and completion."""
    takes: Mapping[str, tuple[str, float, float]]
    """By field of ``provider.hyperparameters``: Bedrock's name, and the least and the largest value."""
    rows: tuple[int, int]
    """Least and most in a training file."""
    validation_rows_max: int
    on_demand: bool
    """Whether a tuned model is paid for by the token; False = by the hour, through provisioned throughput."""


_LLAMA: dict[str, tuple[str, float, float]] = {
    "epochs": ("epochCount", 1, 10),
    "batch_size": ("batchSize", 1, 1),
    "learning_rate": ("learningRate", 5e-6, 0.1),
}
FAMILIES = (
    Family(
        name="Claude 3 Haiku",
        prefixes=("anthropic.claude-3-haiku-",),
        form="claude",
        takes={
            "epochs": ("epochCount", 1, 10),
            "batch_size": ("batchSize", 4, 256),
            "learning_rate_multiplier": ("learningRateMultiplier", 0.1, 2),
        },
        rows=(32, 10_000),
        validation_rows_max=1_000,
        on_demand=False,
    ),
    Family(
        name="Nova",
        prefixes=("amazon.nova-micro-", "amazon.nova-lite-", "amazon.nova-pro-", "amazon.nova-2-lite-"),
        form="conversation",
        takes={"epochs": ("epochCount", 1, 5), "learning_rate": ("learningRate", 1e-6, 1e-4)},
        rows=(8, 20_000),
        validation_rows_max=20_000,
        on_demand=True,
    ),
    Family("Llama 3.1", ("meta.llama3-1-",), "completion", _LLAMA, (1, 10_000), 1_000, on_demand=False),
    Family("Llama 3.2 and 3.3", ("meta.llama3-2-", "meta.llama3-3-"), "conversation", _LLAMA, (1, 10_000), 1_000, on_demand=False),
)
REINFORCED = ("amazon.nova-2-lite-",)
"""What ids of models with reinforcement fine-tuning begin with."""
REINFORCED_ROWS = (100, 20_000)
REINFORCEMENT: dict[str, tuple[str, float, float]] = {
    "epochs": ("epochCount", 1, 50),
    "batch_size": ("batchSize", 16, 512),
    "learning_rate": ("learningRate", 1e-7, 1e-3),
}
"""Bounds of the API's own shape ``RFTHyperParameters``."""
TOKENS_PER_EXAMPLE: Mapping[str, int] = {
    "anthropic.claude-3-haiku-": 32_000,
    "amazon.nova-micro-": 32_768,
    "amazon.nova-lite-": 32_768,
    "amazon.nova-pro-": 32_768,
    "meta.llama3-1-": 16_000,
    "meta.llama3-2-90b-": 10_000,
    "meta.llama3-2-": 16_000,
    "meta.llama3-3-": 16_000,
}
"""Input and output tokens of an example together, by what ids begin with; the first that fits counts. AWS tells none for Nova 2 Lite, and
for Nova "32k": the larger reading stands here. Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html
("Model requirements for training and validation datasets") and the page on Nova above ("Dataset constraints"), read on 2026-11-27."""
_ADVICE = {
    "learning_rate": "set learning_rate_multiplier",
    "learning_rate_multiplier": "set learning_rate, which is absolute",
    "batch_size": "it chooses it",
    "adapter_rank": "it chooses it",
    "adapter_alpha": "it chooses it",
    "beta": "it has no preference tuning",
}
_LENGTH = re.compile(r"(?P<id>.+:\d+):\d+k")
_LAMBDA = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_.:$-]+")


def base_of(model: str) -> str:
    """Return a base model's id, whether it is given as id or ARN, or by the ARN of a model that was tuned from it."""
    parts = model.split("/")
    return parts[1] if len(parts) > 1 and parts[0].endswith((":foundation-model", ":custom-model")) else model


def asked_as(model: str) -> str:
    """Return what inference takes: ids with a context length (``…:0:128k``) are those that can be tuned, and answer nobody on demand."""
    base = base_of(model)
    match = _LENGTH.fullmatch(base)
    return match["id"] if match and ":custom-model/" not in model else model


def family_of(model: str) -> Family | None:
    """Return the family of a base model, or of a tuned one by its ARN; None = Bedrock tunes no such model from text."""
    base = base_of(model)
    return next((family for family in FAMILIES if base.startswith(family.prefixes)), None)


def require_family(model: str) -> Family:
    """Return the family of a model.

    Raises:
        SpecError: nothing is known of it.
    """
    family = family_of(model)
    if family is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise SpecError(f"backend.model is {model}, and bedrock tunes {known} from text; name such a model by its id")
    return family


def tokens_per_example(model: str) -> int | None:
    """Return how many tokens an example may have; None = AWS does not say."""
    base = base_of(model)
    return next((tokens for prefix, tokens in TOKENS_PER_EXAMPLE.items() if base.startswith(prefix)), None)


def objectives_of(model: str) -> tuple[Objective, ...]:
    """Return by which objectives a model can be tuned."""
    return ("supervised", "reinforcement") if base_of(model).startswith(REINFORCED) else ("supervised",)


def settings(order: Order) -> dict[str, Any]:
    """Return an order's objective and hyperparameters as fields of ``CreateModelCustomizationJob``. Bedrock takes no seed.

    Raises:
        SpecError: a hyperparameter, or a value, is none that Bedrock takes for the model; the message names the field.
    """
    family = require_family(order.model)
    if order.objective not in objectives_of(order.model):
        offered = " or ".join(objectives_of(order.model))
        raise SpecError(f"backend.objective is {order.objective}; bedrock tunes {order.model} by {offered}")
    if order.objective == "supervised":
        chosen = _chosen(order, family.takes, family.name)
        return {"customizationType": "FINE_TUNING", "hyperParameters": {name: _plain(value) for name, value in chosen.items()}}
    tuning = {
        "graderConfig": {"lambdaGrader": {"lambdaArn": _grader(order)}},
        "hyperParameters": _chosen(order, REINFORCEMENT, family.name),
    }
    return {"customizationType": "REINFORCEMENT_FINE_TUNING", "customizationConfig": {"rftConfig": tuning}}


def _chosen(order: Order, takes: Mapping[str, tuple[str, float, float]], name: str) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for field, value in order.hyperparameters:
        if value is None:
            continue
        if field not in takes:
            raise SpecError(f"provider.hyperparameters.{field} is set, and bedrock does not take it for {name}; {_ADVICE[field]}")
        told, least, most = takes[field]
        if not least <= value <= most:
            raise SpecError(f"provider.hyperparameters.{field} is {value:g}; bedrock takes {least:g} to {most:g} for {name}")
        found[told] = value
    return found


def _plain(value: int | float) -> str:
    """Return a number without an exponent: hyperparameters are strings, and nothing says how they are read."""
    return format(Decimal(repr(value)), "f")


def _grader(order: Order) -> str:
    grader = json.loads(order.grader or "{}")
    function = grader.get("lambdaArn")
    if grader.keys() != {"lambdaArn"} or not isinstance(function, str) or not _LAMBDA.fullmatch(function):
        raise SpecError(
            "provider.grader is no grader of bedrock's; it is of the form {lambdaArn: 'arn:aws:lambda:REGION:ACCOUNT:function:NAME'}"
        )
    return function
