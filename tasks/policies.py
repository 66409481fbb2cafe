"""What every stage's task has in common: cache, retries, timeout, tags.

Prefect's own cache record is kept in the run's object store, beside the stage's artifacts. So the store alone says what is done: another
host, a new Prefect database or a run after a SIGKILL find every finished stage, and a deleted store forgets them all at once.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.tasks import Task
from pydantic import BaseModel

from prooftune.errors import TransientError
from prooftune.spec import Cluster, Gate, RunSpec, Store, Tracking, digest
from prooftune.storage.objects import NoSuchObject, open_store
from prooftune.types import FileRef, StageOutput
from tasks.listening import Said, tell
from tasks.names import run_name
from tasks.progress import note_finished, note_started

P = ParamSpec("P")
R = TypeVar("R")
RETRY_DELAYS_S = [2.0, 10.0, 30.0, 60.0]
PLACES: Any = {
    "store": True,
    "tracking": True,
    "data": {"source"},
    "baseline": {"documents"},
    "judge": {"human_labels"},
    "use": {"prices"},
    "general": {"lm_eval_folder"},
    "budget": True,
    "watch": True,
    "retrain": True,
    "alternatives": True,
    "provider": {"hold_minutes", "min_remaining_days"},
    "gate": {"approve_promotion", "approve_within_hours"},
}
"""Fields of a spec that change no result: where something is (what it holds counts by its digest), what may be spent, how long to wait."""
UNCACHED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""Options of a task that asks what may have changed since it was asked last, and does no harm when it is asked again."""
GPU = "gpu"
"""Tag of what uses a GPU where there is one, as the flow says (``on_gpu``). ``deployments/limits.yaml`` says how many may run at once.

Tasks have no other tags than those of such queues: Prefect asks its server for a slot of each tag, whether it has a limit or not, and with
SQLite the server refuses about every third of these questions for two seconds and more. Task runs are told apart by their names.
"""
VERSIONS: dict[str, int] = {}
"""Version of each stage, as its task declares it."""


@dataclass
class StageCache(CachePolicy):
    """Keys a stage by its name, its version and the content of its inputs; where anything lies, or is told as well, does not count."""

    stage: str = ""
    version: int = 1

    def compute_key(self, task_ctx: TaskRunContext | None, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any) -> str:
        """Return the key of the stage's record in the object store."""
        content = {name: _content(value) for name, value in inputs.items() if not isinstance(value, Store | Tracking | Cluster)}
        return f"stages/{self.stage}/{digest([self.stage, self.version, content])[:32]}/record.json"


class StoreResults(WritableFileSystem):
    """Lets Prefect keep its result records in the object store."""

    _block_type_slug = "prooftune-store-results"
    store: Store

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]  # Prefect calls it with _sync
        """Return the record's bytes.

        Raises:
            NoSuchObject: there is none, or an artifact that it names is gone: then the stage is not done, and Prefect does it again.
        """
        objects = open_store(self.store)
        record = objects.get(path)
        output = json.loads(json.loads(record)["result"])["data"]
        named = [ref["key"] for ref in (*output["artifacts"].values(), *filter(None, [output["figures"].get("manifest")]))]
        for key in named:
            if not objects.exists(key):
                raise NoSuchObject(f"{objects.uri} holds no {key}, which {path} names")
        return record

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Write the record, whole or not at all."""
        open_store(self.store).put(path, content)

    def _resolve_path(self, path: str) -> None:
        """Tell Prefect that keys are used as they are: they are no paths of this machine."""


def policy(stage: str, version: int, timeout_minutes: float, *, of_run: bool = True) -> dict[str, Any]:
    """Return the ``@task`` options of a stage.

    ``version`` is raised whenever the stage would give another result for the same inputs: then it is done again. A stage that is not
    ``of_run`` works on finished runs: whoever imports it must not give them other keys.
    """
    if of_run:
        VERSIONS[stage] = version
    return errand(stage, timeout_minutes) | {
        "cache_policy": StageCache(stage=stage, version=version),
        "persist_result": True,
        "result_serializer": "json",
        "on_running": [note_started],
        "on_completion": [note_finished],
    }


def record_of(task: Task[..., Any], *arguments: object) -> str:
    """Return the key of the record that a stage's task leaves when it is called so."""
    bound = inspect.signature(task.fn).bind(*arguments)
    bound.apply_defaults()
    if not isinstance(task.cache_policy, StageCache):
        raise TypeError(f"the task {task.name} is no stage and leaves no record")
    return task.cache_policy.compute_key(None, bound.arguments, {})


def errand(name: str, timeout_minutes: float) -> dict[str, Any]:
    """Return the ``@task`` options of what is no stage: it is tried again, never cached, and no run's result depends on its code."""
    return UNCACHED | {
        "name": name,
        "task_run_name": run_name(name),
        "timeout_seconds": timeout_minutes * 60,
        "retries": len(RETRY_DELAYS_S),
        "retry_delay_seconds": RETRY_DELAYS_S,
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": is_transient,
    }


def queue_of(*, here: bool) -> set[str]:
    """Return the tag of the GPU for what runs a model on this machine, where it has one; whatever runs elsewhere waits for none."""
    return {GPU} if here and shutil.which("nvidia-smi") else set()


def on_gpu(stage: Task[P, R], *, here: bool) -> Task[P, R]:
    """Return a stage that waits for the GPU if the model that it runs is on this machine (``here``)."""
    return stage.with_options(tags={*stage.tags, *queue_of(here=here)})


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether another try may help: only for TransientError. Whoever watches is told why it is made."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, TransientError):
        return False
    tell(Said(f"{task.name} is tried again: {error}"))
    return True


@contextmanager
def results_in(store: Store) -> Iterator[None]:
    """Keep the results of the tasks called inside in ``store``."""
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("results_in works inside a flow run only")
    results = context.result_store.model_copy(update={"result_storage": StoreResults(store=store)})
    with context.model_copy(update={"result_store": results}):
        yield


def _content(value: object) -> object:
    """Reduce an input to JSON that names its content: digests for outputs of other stages, fields for specs."""
    if isinstance(value, StageOutput):
        return {name: ref.sha256 for name, ref in value.artifacts.items()}
    if isinstance(value, FileRef):
        return value.sha256
    if isinstance(value, RunSpec):
        return value.model_dump(mode="json", exclude=PLACES)
    if isinstance(value, Gate):
        return value.model_dump(mode="json", exclude=PLACES["gate"])
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_content(item) for item in value]
    if isinstance(value, dict):
        return {name: _content(item) for name, item in value.items()}
    return value
