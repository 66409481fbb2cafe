"""The spec's blocks ``provider`` and ``budget``: how a managed provider is reached, what is asked of it, and how much it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from prooftune.spec.fields import Address, Name
from prooftune.types import Frozen

Objective = Literal["supervised", "preference", "reinforcement"]


class Hyperparameters(Frozen):
    """What is chosen of a managed training, in words that all providers share.

    null = the provider's default. What a provider does not take is refused.
    """

    epochs: Annotated[int, Field(ge=1, le=50)] = 3
    """Passes over the training rows; each is billed."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """In examples."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Absolute peak; Together, Fireworks, Nova and Llama on Bedrock."""
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=10)] | None = None
    """Of the provider's own learning rate; OpenAI, Azure, Claude on Bedrock, and Vertex."""
    adapter_rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Of LoRA; Vertex, Together and Fireworks."""
    adapter_alpha: Annotated[int, Field(ge=1)] | None = None
    """Adapter scale; Together."""
    beta: Annotated[float, Field(gt=0, le=10)] | None = None
    """How close a preference tuning stays to the base model (Rafailov et al., 2023)."""


class Provider(Frozen):
    """How the managed provider is reached, and what is asked of it. Keys come from the environment."""

    base_url: Address | None = None
    """Address of the API: of a region, of an Azure resource (``https://NAME.openai.azure.com/openai/v1``), of a Ray cluster, or of
    `prooftune sandbox`; null = the provider's own."""
    region: str | None = None
    """Bedrock (``us-west-2``) and Vertex (``us-central1``)."""
    project: str | None = None
    """Google Cloud project (Vertex), account (Fireworks), or project of a key that is of several (Together)."""
    bucket: Address | None = None
    """Where training files are put for the provider to read: ``s3://bucket/prefix`` (Bedrock), ``gs://bucket/prefix`` (Vertex)."""
    role_arn: str | None = None
    """Role that Bedrock takes on to read and write the bucket."""
    resource: str | None = None
    """Azure's id of the resource, ``/subscriptions/…/accounts/NAME``: deployments are made through its management API."""
    tier: Literal["standard", "global_standard", "developer"] = "global_standard"
    """Azure's training type."""
    tokenizer: str | None = None
    """Hub id or folder with the tokenizer of an open base model (Together, Fireworks, Llama on Bedrock): estimates are then exact to the
    token, except of Llama 3.1 on Bedrock; null = OpenAI's and Azure's are known, others are estimated from characters."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """CPUs of a training on Ray, and so its threads."""
    gpus: Annotated[int, Field(ge=0, le=1)] | None = None
    """GPUs of a training on Ray; null = one for qlora, none otherwise."""
    hyperparameters: Hyperparameters = Hyperparameters()
    grader: dict[str, Any] | None = None
    """Of a reinforcement tuning, in the provider's form (Vertex also takes OpenAI's ``string_check``); `{}` is refused."""
    training_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours that a reinforcement tuning is expected to train, where it is billed by time (o4-mini at OpenAI). The estimate counts them;
    nothing ends the job after them."""
    min_remaining_days: Annotated[int, Field(ge=0)] = 60
    """A model that the provider shuts down earlier than this is not tuned."""
    batch: bool = False
    """Evaluate through the provider's batch API: half the price, up to a day, and no latencies. A tuned model that has to be deployed is
    asked directly: its deployment would be paid for while the batch waits. So is Azure's base model at ``tier: standard``, since a batch
    would leave the region."""
    hold_minutes: Annotated[float, Field(ge=0)] | None = None
    """How long a run waits for the job before it ends as ``waiting``, to be gone on with later; null = as long as it takes."""


class Cluster(Frozen):
    """Where a training runs on Ray. It changes no result, so it stands in no stage's key."""

    address: str | None
    cpus: int
    gpus: int | None
    hold_minutes: float | None = None
    """As ``provider.hold_minutes``."""


class Budget(Frozen):
    """How much a run, and a month, may cost."""

    max_usd: Annotated[float, Field(ge=0)] = 50.0
    """Estimated training, hosting and evaluation of a run; a run that would cost more is refused before anything is uploaded."""
    approve_above_usd: Annotated[float, Field(ge=0)] | None = 20.0
    """A person has to approve a run whose estimate is higher; null = nobody is asked."""
    approve_within_hours: Annotated[float, Field(gt=0)] = 24.0
    """Nobody's answer is a no after so long."""
    monthly_usd: Annotated[float, Field(ge=0)] | None = 500.0
    """All runs of a project in a calendar month (UTC), and its champions' nightly evaluations at providers, what is held and what was
    billed; null = no limit."""
    project: Name = "default"
    """Whose month it is: runs that share a store and this name share the limit."""
