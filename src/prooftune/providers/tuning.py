"""Managed fine-tuning: what every provider's adapter does, and the nouns they share.

An adapter translates; it decides nothing. It makes one request where it says so, maps the provider's words by one table, and raises what
``prooftune.providers.calls`` makes of a failed request. Submitting once, waiting and paying belong to ``submission.py`` and ``ledger.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Literal, Protocol

from prooftune.errors import EnvironmentLacks, NeedsReconciliation, Problem, SpecError
from prooftune.providers.chat import ChatModel
from prooftune.spec import MANAGED, Hyperparameters, Objective, Provider
from prooftune.spec.fields import digest
from prooftune.types import Frozen, Scalar

Status = Literal["waiting", "running", "paused", "succeeded", "failed", "cancelled", "unknown"]
"""``unknown``: the provider said a word that no table has. It is taken for one that does not last."""
ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})
MARK = "prooftune"
"""First word of every name that we give to a job, file or deployment: by it a sweep knows what is ours."""


class Order(Frozen):
    """What is bought. Its digest is the run key: the same order is the same job, and is paid for once."""

    provider: str
    address: str
    """Of the API, with account, project and region as far as the spec names them: a stand-in's job is no provider's."""
    model: str
    """Base model, as the provider calls it."""
    objective: Objective = "supervised"
    hyperparameters: Hyperparameters
    seed: int
    name: str
    """Of the task: lower case, digits and dashes; for the suffix."""
    train_sha256: str
    """Of the rows in the provider's form."""
    validation_sha256: str | None = None
    grader: str | None = None
    """JSON of the grader of a reinforcement tuning."""
    start: str | None = None
    """Tuned model that the training goes on from, as the provider calls it; None = it starts from the base model."""
    attempt: int = 1
    """Raised by a person who wants a failed or cancelled job done again."""

    @property
    def key(self) -> str:
        """The run key: ``prooftune-`` and 24 hex digits; short enough for every provider's names, and allowed in all of them.

        What is not set does not count: a field that a later version adds, with the default None, changes the key of no earlier order.
        """
        return f"{MARK}-{digest(self.model_dump(mode='json', exclude_none=True))[:24]}"


class Files(Frozen):
    """The uploaded files of an order, as the provider names them: ids or URIs."""

    train: str
    validation: str | None = None


class Capability(Frozen):
    """What a provider says of a model before anything is spent."""

    tunable: bool
    why: str
    """What the provider said, in one sentence: the reason for a refusal, or what was found."""
    objectives: tuple[Objective, ...] = ("supervised",)
    last_job: date | None = None
    """No new job is accepted after this day."""
    shutdown: date | None = None
    """The tuned model answers until this day."""
    owns_weights: bool = False
    """Whether the tuned weights can be downloaded."""
    limits: dict[str, Scalar] = {}
    """``rows_min``, ``rows_max``, ``file_bytes`` … as far as they are known. ``probing.py`` keeps ``tokens_per_example``, and ``NAME_min``
    and ``NAME_max`` of each field of ``Hyperparameters``."""


class Job(Frozen):
    """A fine-tuning job, in our words."""

    id: str
    status: Status
    told: str
    """The provider's own word for the status."""
    key: str | None = None
    """The run key that the job carries, where the provider shows it."""
    model: str | None = None
    """The tuned model, as its inference takes it."""
    billed_tokens: int | None = None
    billed_usd: float | None = None
    error: str = ""
    """The provider's own message."""
    created_at: datetime | None = None
    finishes_at: datetime | None = None
    """As the provider estimates."""

    @property
    def ended(self) -> bool:
        """Whether the status lasts."""
        return self.status in ENDED

    @property
    def nameless(self) -> bool:
        """Whether it succeeded, and does not show its model (yet)."""
        return self.status == "succeeded" and self.model is None


class Event(Frozen):
    """Something that a job reported."""

    id: str
    """Unique in the job and stable: an event is told once, also after a restart."""
    at: datetime | None
    text: str
    metrics: dict[str, float] = {}
    """``step``, ``train_loss``, ``valid_loss`` … where the event carries them."""


class Checkpoint(Frozen):
    """A model saved before the end of a job."""

    id: str
    """As inference takes it, or the download of weights."""
    step: int
    metrics: dict[str, float] = {}


class Deployment(Frozen):
    """What must run for a tuned model to answer, and costs money while it does."""

    name: str
    """Starts with ``MARK``, and is made of the run key: deploying again finds the same one."""
    model: str
    """The tuned model that it serves."""
    ready: bool
    told: str
    """The provider's own word for its state."""
    chat: str
    """What to pass to ``Tuner.chat``."""
    created_at: datetime | None = None
    failed: bool = False
    """Whether it will never be ready."""
    idle_s: float | None = None
    """Without requests for so long it stops by itself, and is paid for no more; None = it does not."""


class PartlyListed(EnvironmentLacks):
    """Some deployments were listed, and the provider refuses to list the others, for want of a right say: what these are nobody knows."""

    def __init__(self, message: str, found: tuple[Deployment, ...] = ()) -> None:
        super().__init__(message, found)
        self.message = message
        self.found = found

    def __str__(self) -> str:
        return self.message


class Tuner(Protocol):
    """One provider's fine-tuning API. Except for ``create``, every request may be made again without harm and is, where that may help."""

    provider: str
    address: str
    """What ``Order.address`` says."""
    creates_once: bool
    """Whether creating again under the same key makes no second job: the provider takes an idempotency key or a client-chosen id."""

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask whether this account may tune the model, and until when. Spends nothing."""

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write our examples (``Example`` lines) in the provider's form, one line an example, in their order.

        ``model`` is the base model, where the form depends on it.
        """

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what the provider would refuse in rows of its own form, each with ``FILE:LINE``, and nothing where all is well."""

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Upload rows and return what ``Files`` holds. The same rows under the same key are uploaded once where the provider can tell."""

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return what the provider estimates that the order costs, in USD; None = it does not say. Creates nothing.

        Raises:
            EnvironmentLacks: the account may not spend so much.
        """

    def create(self, order: Order, files: Files) -> Job:
        """Create the job with one request, and make no other: the one who may create holds the order while it lasts.

        Raises:
            OutcomeUnknown: the request may have created a job.
            TransientError: it surely has not, and may be made again.
            ProoftuneError: it surely has not, and never will.
        """

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return every job of this order that the provider knows, whatever its status.

        By key where the provider shows it, else by all that identifies it. To find none proves nothing where ``creates_once`` is false:
        lists may lag.
        """

    def job(self, job: str) -> Job:
        """Return the job as it is now."""

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return what the job reported after the event ``after``, oldest first; None = from the beginning."""

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return what was saved so far, by step."""

    def download(self, job: str, out: Path) -> list[str]:
        """Write the job's result files (metrics; weights where they are ours) into the folder and return their names."""

    def cancel(self, job: str) -> Job:
        """Ask the provider to end the job; one that has ended is fine."""

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Make what must run for the model to answer, under a name of ours; None = it answers as it is. Deploying again finds it."""

    def deployments(self) -> list[Deployment]:
        """Return what runs under names of ours, whoever started it.

        Raises:
            PartlyListed: not all may be asked for; the error has those that were found.
            TransientError: some could not be asked for now.
        """

    def take_down(self, name: str) -> None:
        """End a deployment; one that is gone is fine."""

    def chat(self, model: str) -> ChatModel:
        """Return the client that prompts a base model, a tuned model or a deployment."""


def status_of(word: str, table: Mapping[str, Status]) -> Status:
    """Return our word for a provider's; one that the table lacks is ``unknown``, which does not last."""
    return table.get(word, "unknown")


def suffix_of(order: Order, longest: int, allowed: str = "-") -> str:
    """Return the suffix that a tuned model's name gets: the task's name, cut so that the key's first 10 digits fit behind it.

    ``allowed`` is the separator that the provider permits.
    """
    tail = order.key.removeprefix(f"{MARK}-")[:10]
    head = order.name[: longest - len(tail) - 1].rstrip("-")
    return f"{head}{allowed}{tail}"


def only(jobs: Sequence[Job], key: str) -> Job | None:
    """Return the one job of a key.

    Raises:
        NeedsReconciliation: there are several: money may have been spent twice, and a person has to say which one counts.
    """
    alive = [job for job in jobs if job.status not in ("failed", "cancelled")] or list(jobs)
    if len(alive) > 1:
        raise NeedsReconciliation(
            f"{len(alive)} jobs carry the run key {key}: {', '.join(job.id for job in alive)}. Cancel all but one at the provider, then "
            f"say which one counts: prooftune jobs reconcile {key} --job ID"
        )
    return alive[0] if alive else None


def open_tuner(provider: str, options: Provider) -> Tuner:
    """Return a provider's adapter; nothing is sent yet.

    Raises:
        EnvironmentLacks: its key is not in the environment, or its SDK is not installed (the extra of the same name brings it).
        SpecError: there is no such managed provider.
    """
    if provider == "openai":
        from prooftune.providers.openai_tuning import OpenAITuner

        return OpenAITuner(options)
    if provider == "azure":
        from prooftune.providers.azure import AzureTuner

        return AzureTuner(options)
    if provider == "bedrock":
        from prooftune.providers.bedrock import BedrockTuner

        return BedrockTuner(options)
    if provider == "vertex":
        from prooftune.providers.vertex import VertexTuner

        return VertexTuner(options)
    if provider == "together":
        from prooftune.providers.together import TogetherTuner

        return TogetherTuner(options)
    if provider == "fireworks":
        from prooftune.providers.fireworks import FireworksTuner

        return FireworksTuner(options)
    raise SpecError(f"backend.provider {provider!r} is no managed provider; there are {', '.join(MANAGED)}")
