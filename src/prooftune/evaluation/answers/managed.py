"""A managed provider's base model and the models tuned from it, opened to be asked like those on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import Field

from prooftune.data.counting import Counter, counter_of
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.answers.api_answerer import ROOM_TO_THINK, ApiAnswerer
from prooftune.evaluation.answers.subject import Subject
from prooftune.providers.batches import batches_base
from prooftune.providers.chat import ChatModel
from prooftune.providers.collection import ManagedModel
from prooftune.providers.hosting import note_hosting
from prooftune.providers.serving import served, served_base
from prooftune.providers.tuning import Tuner, open_tuner
from prooftune.spec import Provider, RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen, Scalar

BASE_THINKS = "Set backend.model to one that thinks less"
UNRELATED = ("hyperparameters", "grader", "min_remaining_days", "hold_minutes")
"""Fields of ``Provider`` that change no answer."""


class ManagedBase(Frozen):
    """A base model at its provider, and how it is reached: what its answers depend on, and those of a model tuned from it."""

    provider: str
    model: str
    """As the provider calls it."""
    options: Provider
    """Without what concerns training alone."""
    longest_example: int | None = None
    """Tokens of an example that the provider takes, and so at least what the model attends to; None = not known, and no prompt
    is shortened."""
    usd_per_hour: float | None = Field(default=None, exclude=True)
    """What a deployment costs while it runs, for its lease. It changes no answer, so it stands in no JSON and in no stage's key."""

    @classmethod
    def of(cls, spec: RunSpec, limits: Mapping[str, Scalar], usd_per_hour: float | None = None) -> Self:
        """Return the base model of a managed spec; ``limits`` are those of the provider's ``Capability``."""
        default, longest = Provider(), limits.get("tokens_per_example")
        return cls(
            provider=spec.backend.provider,
            model=spec.backend.model,
            options=spec.provider.model_copy(update={name: getattr(default, name) for name in UNRELATED}),
            longest_example=None if longest is None else int(longest),
            usd_per_hour=usd_per_hour,
        )

    @property
    def counter(self) -> Counter:
        """Who counts its tokens.

        Raises:
            ModelUnavailable: ``options.tokenizer`` names one that cannot be had.
        """
        return counter_of(self.provider, self.options.tokenizer)


@contextmanager
def open_base(base: ManagedBase, store: ObjectStore, kept: Path) -> Iterator[Subject]:
    """Give the base model, deployed where it has to be and taken down again.

    With ``base.options.batch`` it is asked through the provider's batch API, but directly where one answer decides what is asked next.

    Args:
        base: Which.
        store: Where the leases of its deployments are kept.
        kept: File for its answers as they come: after a failure only what is missing is asked and paid for.

    Raises:
        EnvironmentLacks: the provider's key is not in the environment, or its SDK is not installed.
        TransientError, EnvironmentLacks, SpecError: it cannot be deployed.
    """
    tuner = open_tuner(base.provider, base.options)
    batch = batches_base(base.provider, base.options)
    with served_base(tuner, store, base.model, base.options) as chat:
        direct = _answerer(tuner, chat, base, base.model, kept, remedy=BASE_THINKS, batch=False)
        answerer = _answerer(tuner, chat, base, base.model, kept, remedy=BASE_THINKS) if batch else direct
        yield Subject(answerer, base.counter, base.longest_example, direct, least_answer_tokens=ROOM_TO_THINK)


@contextmanager
def tuned_answerer(base: ManagedBase, tuned: ManagedModel, store: ObjectStore, kept: Path) -> Iterator[Answerer]:
    """Give the tuned model, deployed where it has to be and taken down again; an answer that it leaves empty is an answer.

    What is deployed is asked directly, whatever ``base.options.batch`` says: it would be paid for while the batch waits, up to a
    day, whether the batch needs it or not.

    Args:
        base: What it was tuned from.
        tuned: The tuned model.
        store: Where the deployment's lease is kept.
        kept: File for its answers as they come.

    Raises:
        TransientError, EnvironmentLacks, SpecError: it cannot be deployed or asked.
    """
    tuner = open_tuner(base.provider, base.options)
    ran = partial(note_hosting, kept, tuned.key)
    with served(tuner, store, tuned.model, tuned.key, base.options, base.usd_per_hour, ran=ran, use=_use_of(kept, store)) as chat:
        yield _answerer(tuner, chat, base, tuned.model, kept, batch=chat.name == tuned.model)


def _use_of(kept: Path, store: ObjectStore) -> str:
    """Return what a file of answers is for: the same in each try, whatever the machine."""
    work = store.work_dir()
    return (kept.relative_to(work) if kept.is_relative_to(work) else kept).as_posix()


def _answerer(
    tuner: Tuner, chat: ChatModel, base: ManagedBase, model: str, kept: Path, *, remedy: str = "", batch: bool = True
) -> ApiAnswerer:
    """Return the model's answerer. Kept answers name the model and never its deployment, which differs from one day to the next."""
    batches = kept.parent if batch and base.options.batch else None
    return ApiAnswerer(chat, f"{base.provider} {model} at {tuner.address}", kept, name=model, batches=batches, remedy=remedy)
