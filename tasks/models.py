"""Say which base model it is, by content, and find its folder on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from prooftune.errors import IntegrityError
from prooftune.evaluation.answers.managed import ManagedBase, open_base
from prooftune.spec import Contestant
from prooftune.storage.objects import ObjectStore
from prooftune.types import ModelRef
from tasks.policies import policy
from tasks.progress import report_to_ui

if TYPE_CHECKING:
    from prooftune.evaluation.answers.answering import Answerer
    from prooftune.evaluation.answers.subject import Subject
    from prooftune.models.resolve import ModelFolder


@task(**(policy("model", version=1, timeout_minutes=120) | {"cache_policy": NO_CACHE, "persist_result": False}))
def find_model(name: str, revision: str | None, trust_remote_code: bool) -> ModelRef:
    """Find (convert, download) the base model and digest it. Never cached: what is on this machine may have changed."""
    from prooftune.models.resolve import resolve_model

    found = resolve_model(name, revision, trust_remote_code, report=report_to_ui("model"))
    return ModelRef(name=name, revision=found.revision, sha256=found.sha256, trust_remote_code=trust_remote_code)


def answerer_of(contestant: Contestant, model: ModelRef | None, keep: Path) -> Answerer:
    """Return a contestant ready to be prompted: ``model`` on this machine, or, where that is None, the one behind an API.

    Answers of an API are kept in the folder ``keep`` as they come, so that none is paid for twice.
    """
    if model is None:
        from prooftune.evaluation.answers.api_answerer import api_answerer

        return api_answerer(contestant, keep=keep)
    from prooftune.evaluation.answers.answering import LocalAnswerer
    from prooftune.models.loading import load_base, load_tokenizer

    folder = local_folder(model).path
    return LocalAnswerer(load_base(folder), load_tokenizer(folder), model.name)


def base_of(model: ModelRef | ManagedBase, store: ObjectStore, kept: Path) -> AbstractContextManager[Subject]:
    """Open the base model to be prompted; answers of an API are kept in the file ``kept`` as they come."""
    if isinstance(model, ManagedBase):
        return open_base(model, store, kept)
    from prooftune.evaluation.answers.subject import open_local

    return nullcontext(open_local(local_folder(model).path, model.name, trust_remote_code=model.trust_remote_code))


def local_folder(model: ModelRef) -> ModelFolder:
    """Return the model's folder on this machine.

    Raises:
        IntegrityError: it is no longer the model that the run began with.
    """
    from prooftune.models.resolve import resolve_model

    found = resolve_model(model.name, model.revision or None, model.trust_remote_code)
    if found.sha256 != model.sha256:
        raise IntegrityError(
            f"the model {model.name} changed during the run: it began with SHA-256 {model.sha256[:16]}…, {found.path} now has "
            f"{found.sha256[:16]}…. Run again to use the new one throughout"
        )
    return found
