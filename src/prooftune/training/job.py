"""What a Ray job runs: one local training whose inputs and results lie in the object store.

::

    python -m prooftune.training.job '{"store": {"uri": "s3://bucket/prefix"}, "id": "prooftune-…"}'

Under ``ray/ID/`` the store holds ``inputs.json``, which the caller writes, and ``results.json``, which is written last: where it is, the
training is done. The caller hears of the rest through lines on stdout, since those are what Ray keeps of a job.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from prooftune import __version__, errors
from prooftune.errors import DataError, EnvironmentLacks, IntegrityError, JobFailed, Problem, ProoftuneError, SpecError, StoreUnavailable
from prooftune.models.resolve import resolve_model
from prooftune.spec import Method, Store, Task, Tracking, digest
from prooftune.storage.disk import sha256_of
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore, open_store
from prooftune.storage.s3_client import environment_endpoint
from prooftune.training import sft
from prooftune.types import ArtifactRef, Frozen, ModelRef, Progress, Report

PROGRESS, FAILED = "PROOFTUNE-PROGRESS ", "PROOFTUNE-FAILED "
"""What lines for the caller start with; JSON follows."""
TELL_EVERY_S = 1.0
"""A line a step would make the log of a long training too long to be read again at each look."""


class Place(Frozen):
    """Where a job finds its inputs and leaves its results."""

    store: Store
    id: str
    """Folder of the store, below ``ray/``: the same for every attempt at one training."""


class Inputs(Frozen):
    """What ``prooftune.training.sft.train`` takes, as it travels."""

    prooftune: str
    """Version of the caller: another one might train another model."""
    train: ArtifactRef
    validation: ArtifactRef
    model: ModelRef
    """Base model; its name is what the adapter calls it."""
    source: str
    """Where this machine finds the base model: a name, a hub id, or a folder's absolute path."""
    task: Task
    method: Method
    tracking: Tracking
    keep: int


class Results(Frozen):
    """What ``train`` left. While it exists, every file that it lists does."""

    files: dict[str, ArtifactRef]
    """By path relative to the output folder."""
    figures: dict[str, object]
    """What ``train`` returned."""


class Failure(Frozen):
    """An error of ours on its way to the caller."""

    kind: str
    """Class in ``prooftune.errors``."""
    message: str
    problems: tuple[tuple[str, str, str], ...] = ()
    """Where, reason and code of each."""

    @classmethod
    def of(cls, error: ProoftuneError) -> Failure:
        """Return an error, reduced to what the caller can know it by."""
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
        if isinstance(error, SpecError | DataError):
            problems = tuple((problem.where, problem.reason, problem.code) for problem in error.problems)
            return cls(kind=kind, message=error.message, problems=problems)
        return cls(kind=kind, message=str(error))

    def error(self) -> ProoftuneError:
        """Return the error that was raised on the cluster."""
        found = getattr(errors, self.kind, None)
        if found in (SpecError, DataError):
            return SpecError(self.message, self._problems) if found is SpecError else DataError(self.message, self._problems)
        if isinstance(found, type) and issubclass(found, ProoftuneError):
            return found(self.message)
        return JobFailed(self.message)

    @property
    def _problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(*problem) for problem in self.problems)


def main(arguments: Sequence[str]) -> int:
    """Do the training that the only argument, a ``Place`` as JSON, names; return the exit code."""
    logging.basicConfig()
    logging.getLogger("prooftune").setLevel(logging.INFO)
    _tell(PROGRESS, Progress(done=0, total=1, unit="steps", text="finding the base model"))
    try:
        run(Place.model_validate_json(arguments[0]), _report())
    except ProoftuneError as error:
        _tell(FAILED, Failure.of(error))
        return error.exit_code
    return 0


def run(place: Place, report: Report) -> None:
    """Train, or go on training in the folder that an earlier attempt left on this machine, and put the results into the store.

    Raises:
        StoreUnavailable: this machine does not see the caller's store.
        EnvironmentLacks: another version of Prooftune is installed here.
        IntegrityError: the base model is not the caller's.
        ProoftuneError: whatever ``train`` raises.
    """
    objects = open_store(place.store)
    inputs = _read_inputs(objects, place.id)
    folder = objects.work_dir() / "ray" / place.id
    folder.mkdir(parents=True, exist_ok=True)
    # An attempt that Ray gave up, on a node it lost sight of, may still be at work here.
    with FileLock(folder / "lock", fallback_to_soft=False):
        out = folder / "out"
        if read_results(objects, place.id) is None:
            out.mkdir(exist_ok=True)
            _publish(objects, place.id, out, _train(inputs, objects, out, report))
        finished = folder / "finished"
        if out.exists():
            out.rename(finished)  # a kill while it is removed leaves nothing that looks resumable
        shutil.rmtree(finished, ignore_errors=True)


def send(
    objects: ObjectStore,
    store: Store,
    id_: str,
    train: Path,
    validation: Path,
    model: ModelRef,
    task: Task,
    method: Method,
    tracking: Tracking,
    keep: int,
) -> Place:
    """Put a training's inputs into the store, and return where the job finds them."""
    folder = Path(model.name).expanduser()
    inputs = Inputs(
        prooftune=__version__,
        train=objects.upload(train, _key(id_, "train.jsonl")),
        validation=objects.upload(validation, _key(id_, "validation.jsonl")),
        model=model,
        source=str(folder.absolute()) if folder.is_dir() else model.name,
        task=task,
        method=method,
        tracking=tracking,
        keep=keep,
    )
    objects.put(_key(id_, "inputs.json"), inputs.model_dump_json().encode())
    # The job runs in another folder and with another environment.
    endpoint = (store.endpoint_url or environment_endpoint()) if "://" in objects.uri else None
    return Place(store=Store(uri=objects.uri, endpoint_url=endpoint), id=id_)


def read_results(objects: ObjectStore, id_: str) -> Results | None:
    """Return what a job left; None = it is not done.

    Raises:
        IntegrityError: the list of results is damaged.
    """
    key = _key(id_, "results.json")
    try:
        return Results.model_validate_json(objects.get(key))
    except NoSuchObject:
        return None
    except ValidationError:
        raise IntegrityError(f"{objects.uri}: {key} lists no results; delete it and run the command again") from None


def heard(line: str) -> Progress | Failure | None:
    """Return what a line of the job's log tells its caller; None = it is not for the caller."""
    for mark, kind in ((PROGRESS, Progress), (FAILED, Failure)):
        # A progress bar of some library may have left its own text, without a newline, before ours.
        _, found, text = line.partition(mark)
        if found:
            try:
                return kind.model_validate_json(text)
            except ValidationError:
                return None
    return None


def _train(inputs: Inputs, objects: ObjectStore, out: Path, report: Report) -> dict[str, object]:
    model = resolve_model(inputs.source, inputs.model.revision or None, inputs.model.trust_remote_code)
    if model.sha256 != inputs.model.sha256:
        raise IntegrityError(
            f"the model {inputs.model.name} is not the same on the cluster: the run has SHA-256 {inputs.model.sha256[:16]}…, "
            f"{model.path} there has {model.sha256[:16]}…. Set backend.revision to a commit, or bring the folders into line"
        )
    return sft.train(
        objects.fetch(inputs.train),
        objects.fetch(inputs.validation),
        model.path,
        inputs.task,
        inputs.method,
        out,
        model_name=inputs.model.name,
        trust_remote_code=inputs.model.trust_remote_code,
        tracking=inputs.tracking,
        report=report,
        keep=inputs.keep,
    )


def _publish(objects: ObjectStore, id_: str, out: Path, figures: Mapping[str, object]) -> None:
    """Upload the files under a folder named by their content, then the list of them: two attempts at once mix nothing, the first counts."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    content = digest({name: sha256_of(path) for name, path in files.items()})[:16]
    refs = {name: objects.upload(path, _key(id_, f"{content}/{name}")) for name, path in files.items()}
    results = Results(files=refs, figures=dict(figures))
    try:
        objects.put(_key(id_, "results.json"), results.model_dump_json().encode(), if_absent=True)
    except AlreadyThere:
        return


def _read_inputs(objects: ObjectStore, id_: str) -> Inputs:
    key = _key(id_, "inputs.json")
    try:
        inputs = Inputs.model_validate_json(objects.get(key))
    except NoSuchObject:
        raise StoreUnavailable(
            f"the Ray cluster's node finds no {key} in {objects.uri}, where the caller put it; a folder as store.uri has to be shared by "
            "the caller and the cluster, under one path: mount it there, or use s3://bucket/prefix"
        ) from None
    except ValidationError:
        raise EnvironmentLacks(f"the cluster's Prooftune {__version__} cannot read {key}; install the caller's version there") from None
    if inputs.prooftune != __version__:
        raise EnvironmentLacks(
            f"the Ray cluster has Prooftune {__version__}, the caller {inputs.prooftune}, and they might train unlike models; "
            "install the same version on both"
        )
    return inputs


def _report() -> Report:
    last = float("-inf")

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TELL_EVERY_S or progress.done >= progress.total:
            last = now
            _tell(PROGRESS, progress)

    return report


def _tell(mark: str, what: Frozen) -> None:
    # In ASCII, since nobody knows the encoding of the cluster's files.
    sys.stdout.write(f"{mark}{json.dumps(what.model_dump(mode='json'))}\n")
    sys.stdout.flush()


def _key(id_: str, name: str) -> str:
    return f"ray/{id_}/{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
