"""The spec's blocks ``backend``, ``store`` and ``tracking``: what to train, where, and where its results go."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prooftune.spec.fields import Address, Share
from prooftune.spec.provider import Objective
from prooftune.types import Frozen

ProviderName = Literal["local", "openai", "azure", "bedrock", "vertex", "together", "fireworks", "ray"]
MANAGED = ("openai", "azure", "bedrock", "vertex", "together", "fireworks")
"""Providers that train and serve behind an API."""
WARM = ("local", "openai", "azure")
"""Providers that training can go on at from a tuned model."""


class Method(Frozen):
    """How the model is trained."""

    kind: Literal["lora", "qlora", "full"] = "lora"
    """``lora``: adapters on frozen weights; ``qlora``: the same on 4-bit NF4 weights (Dettmers et al., 2023); ``full``: all weights."""
    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the adapter matrices (Hu et al., 2021)."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """Adapter scale: updates are multiplied by alpha / r."""
    dropout: Share = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Put adapters on the last so many layers only: less to compute in the backward pass; null = every layer."""
    epochs: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Passes over the training split."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1.0e-3
    """Peak, cosine schedule with 5 % warm-up."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Global batch size: per-device × accumulation × devices, in examples."""
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Tokens per example; a longer one is cut, and preflight says how many answers that touches."""
    early_stopping: Annotated[int, Field(ge=1)] | None = 3
    """Stop after so many validation checks without a lower loss; null = never."""
    checks_per_epoch: Annotated[int, Field(ge=1)] = 3
    """Validation loss and a checkpoint this often."""
    seed: int = 7
    """Of the adapter's first weights and the order of examples."""


class Backend(Frozen):
    """Where and what to train."""

    provider: ProviderName = "local"
    """``local`` = this machine: CPU, or a CUDA GPU where there is one; ``ray`` = the same on a Ray cluster; the others are managed APIs."""
    model: str = "smollm2-135m-instruct"
    """The demo model, a hub id (``owner/name``) or a folder with safetensors; at a managed API, its name of a base model."""
    objective: Objective = "supervised"
    """``supervised``: learn the targets; ``preference``: learn to prefer ``chosen`` to ``rejected`` (DPO); ``reinforcement``: learn what
    ``provider.grader`` rewards. ``local`` and ``ray`` are supervised."""
    revision: str | None = None
    """Commit of the hub model; null = the hub's current one. Required with ``trust_remote_code``."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    method: Method = Method()
    start_from: str | None = None
    """Id of a published run whose weights training goes on from, instead of the base model's alone (warm start): ``local`` with the same
    base model and method, ``openai`` and ``azure``; null = from the base model."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code: true needs backend.revision, the commit whose code you have read")
        return self

    @property
    def managed(self) -> bool:
        """Whether a provider trains and serves the model behind its API."""
        return self.provider in MANAGED

    @model_validator(mode="after")
    def _start_can_be_gone_on_from(self) -> Self:
        if self.start_from is not None and self.provider not in WARM:
            raise ValueError(f"start_from is for {', '.join(WARM)}; {self.provider} starts from a base model: set start_from to null")
        return self

    @model_validator(mode="after")
    def _objective_is_offered(self) -> Self:
        if not self.managed and self.objective != "supervised":
            raise ValueError(f"objective {self.objective} is for managed providers ({', '.join(MANAGED)}); {self.provider} is supervised")
        return self


class Store(Frozen):
    """Where everything that must last is kept."""

    uri: Address = "./prooftune-store"
    """A folder, relative to where the command or the worker runs, or ``s3://bucket/prefix``."""
    endpoint_url: Address | None = None
    """For S3-compatible servers; null = AWS, or what AWS_ENDPOINT_URL says."""

    @property
    def flags(self) -> str:
        """What a command has to say of the store where it is not the default one, to be appended."""
        flags = "" if self.uri == Store().uri else f" --store {shlex.quote(self.uri)}"
        return flags if self.endpoint_url is None else f"{flags} --endpoint-url {shlex.quote(self.endpoint_url)}"


class Tracking(Frozen):
    """Experiment trackers that get training metrics as well."""

    mlflow: Address | None = None
    """Tracking URI; needs the package ``mlflow``."""
    wandb: str | None = None
    """Project name; needs the package ``wandb`` and WANDB_API_KEY in the environment."""
