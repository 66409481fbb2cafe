"""Local training on a Ray cluster: the same call for a cluster of one's own, KubeRay and Anyscale.

A job's id is chosen here, from the store and the stage's key, and Ray takes an id once. So asking again makes no second job: whoever comes
second, or comes back after a kill, finds the first one and goes on with its log.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import time
from pathlib import Path

from prooftune import __version__
from prooftune.errors import EnvironmentLacks, JobFailed, ProoftuneError, StoreUnavailable, TransientError
from prooftune.models.resolve import folder_digest
from prooftune.providers import ray_orders
from prooftune.providers.ray_cluster import FAILURES, Cluster, RayJob
from prooftune.providers.submission import POLLS_FAILED_AT_MOST, Patience
from prooftune.providers.tuning import MARK
from prooftune.spec import Method, Store, Task, Tracking, digest
from prooftune.storage.objects import ObjectStore, check_key, open_store
from prooftune.training import job
from prooftune.training.sft import FIGURES
from prooftune.types import ModelRef, Progress, Report, no_report

ENTRYPOINT = "exec python -m prooftune.training.job"
"""``exec``, so that a signal meets Python and not a shell around it."""
PATIENCE = Patience(first_pause_s=1.0, longest_pause_s=15.0)
SAY_EVERY_S = 3600.0
"""A job that tells nothing, as while the cluster has no room, is reported to go on so often: it is looked at, and nobody is stuck."""
log = logging.getLogger(__name__)


def train_on_ray(
    train: Path,
    validation: Path,
    model_folder: Path,
    task: Task,
    method: Method,
    out: Path,
    *,
    address: str | None,
    store: Store,
    key: str,
    model_name: str,
    model_revision: str | None = None,
    trust_remote_code: bool = False,
    tracking: Tracking = Tracking(),  # noqa: B008 - frozen
    report: Report = no_report,
    keep: int = 1,
    cpus: float = 1,
    gpus: float | None = None,
    patience: Patience = PATIENCE,
) -> dict[str, object]:
    """Do what ``prooftune.training.sft.train`` does, with the same files and figures, in a job on a Ray cluster.

    Calls with the same ``store`` and ``key`` share one job, also after a kill. One that failed or was stopped is started again by the next
    call, and goes on from the checkpoint that it left on its node. The base model is found there by name and revision, and must be the one
    in ``model_folder``. ``key`` is a digest of everything the result depends on: the stage's key. The cluster reaches ``store`` and the
    trackers with credentials of its own. A job reserves ``cpus``, of which PyTorch uses as many threads, and ``gpus``; None = one for
    ``qlora``, else none.

    Raises:
        TransientError: the cluster does not answer, or lost the job; the same call goes on with it, or starts it again.
        EnvironmentLacks: the cluster cannot be used, or lacks what the job needs.
        JobFailed: the job was stopped, or failed for a reason that only its log tells.
        ProoftuneError: what ``train`` raises, raised there.
    """
    if (out / FIGURES).is_file():
        return {**json.loads((out / FIGURES).read_text()), "tokens_per_second": None}
    model = ModelRef(
        name=model_name, revision=model_revision or "", sha256=folder_digest(model_folder), trust_remote_code=trust_remote_code
    )
    inputs = (train, validation, model, task, method, tracking, keep)
    results = run_on_ray(inputs, address, store, key, report, cpus=cpus, gpus=gpus, patience=patience)
    assert results is not None  # noqa: S101 - it waited for as long as it took
    land(open_store(store), results, out)
    return dict(results.figures)


def run_on_ray(
    inputs: tuple[Path, Path, ModelRef, Task, Method, Tracking, int],
    address: str | None,
    store: Store,
    key: str,
    report: Report,
    *,
    cpus: float,
    gpus: float | None,
    hold_s: float | None = None,
    again: bool = True,
    patience: Patience = PATIENCE,
) -> job.Results | None:
    """See to it that there is one job of a training, and wait for what it leaves; None = it goes on after ``hold_s`` seconds.

    ``inputs`` are those of ``job.send``. Not ``again`` = a job that failed or was stopped is not started once more.

    Raises:
        JobFailed: not ``again``, and the job has ended without results.
        ProoftuneError: as ``train_on_ray``.
    """
    objects = open_store(store)
    id_, method = id_of(objects, key), inputs[4]
    if (results := job.read_results(objects, id_)) is not None:
        return results
    cluster = Cluster(address)
    newest, number = ray_orders.newest(cluster, id_)
    # A job that was not done a moment ago may have ended well since.
    if newest is None or (again and newest.ended and job.read_results(objects, id_) is None):
        number += 1
        ray_orders.note(objects, id_, address, inputs[2].name)
        place = job.send(objects, store, id_, *inputs)
        cluster.submit(
            ray_orders.attempt(id_, number),
            f"{ENTRYPOINT} {shlex.quote(place.model_dump_json())}",
            cpus=cpus,
            gpus=float(method.kind == "qlora") if gpus is None else gpus,
            metadata={"prooftune": __version__, "key": key},
        )
    followed = _follow(cluster, ray_orders.attempt(id_, number), report, patience, hold_s)
    results = job.read_results(objects, id_)
    if results is None and followed is not None:
        failure = _failure_of(*followed, cluster, objects)
        raise failure if again else JobFailed(str(failure))
    return results


def id_of(objects: ObjectStore, key: str) -> str:
    """Return the id of a training's first job. The store is part of it: a job of another store's run would leave nothing in this one."""
    return f"{MARK}-{digest([objects.uri, key])[:24]}"


def _follow(cluster: Cluster, id_: str, report: Report, patience: Patience, hold_s: float | None) -> tuple[RayJob, str | None] | None:
    """Wait until the job has ended and report what it tells, from its beginning; return it and its log, None where that is out of reach.

    Returns None where it goes on after ``hold_s`` seconds.
    """
    seen, told, failed, number, started = 0, "", 0, 0, time.monotonic()
    newest, said = Progress(done=0, total=1, unit="jobs"), started
    while True:
        try:
            now = cluster.job(id_)
            failed = 0
        except TransientError as error:
            failed += 1
            if failed >= POLLS_FAILED_AT_MOST:
                raise
            log.warning("%s", error)
        else:
            if now is None:
                raise TransientError(f"{cluster.where} no longer knows the job {id_}, as after a restart; run the same command again")
            if now.told != told:
                told = now.told
                log.info("Ray job %s is %s: %s", id_, told, now.message)
            text = _log_of(cluster, id_)
            lines = (text or "").split("\n")[:-1]  # the last line may be half written
            for progress in (one for one in map(job.heard, lines[seen:]) if isinstance(one, Progress)):
                log.info("Ray job %s: %d of %d %s, %s", id_, progress.done, progress.total, progress.unit, progress.text)
                report(progress)
                newest, said = progress, time.monotonic()
            if time.monotonic() - said >= SAY_EVERY_S:
                report(newest.model_copy(update={"text": f"Ray job {id_} is {told}"}))
                said = time.monotonic()
            seen = max(seen, len(lines))
            if now.ended:
                return now, text
        left = float("inf") if hold_s is None else hold_s - (time.monotonic() - started)
        if left <= 0:
            return None
        time.sleep(min(patience.pause(number), left))
        number += 1


def _log_of(cluster: Cluster, id_: str) -> str | None:
    try:
        return cluster.log(id_)
    except ProoftuneError as error:  # the node is gone, say, and with it the log: what became of the job is known without
        log.warning("the log of the Ray job %s cannot be read: %s", id_, error)
        return None


def _failure_of(ended: RayJob, text: str | None, cluster: Cluster, objects: ObjectStore) -> ProoftuneError:
    """Return why a job left no results."""
    named = f"the job {ended.id} of {cluster.where}"
    said = [one for one in map(job.heard, (text or "").split("\n")) if one is not None]
    if told := [one for one in said if isinstance(one, job.Failure)]:
        return told[-1].error()
    if ended.status == "cancelled":
        return JobFailed(f"{named} was stopped before it was done; run the same command again, and it goes on from its last checkpoint")
    if ended.status == "succeeded":
        return StoreUnavailable(f"{named} is done, but {objects.uri} holds no results of it: they were deleted. Run the same command again")
    if ended.signalled:
        return TransientError(f"{named} was killed ({ended.message}), maybe for want of memory; the same command goes on with it")
    kind = FAILURES.get(ended.error or "", JobFailed)
    if kind is JobFailed and text is not None and not said:
        return EnvironmentLacks(
            f"{named} could not start `{ENTRYPOINT.removeprefix('exec ')}` ({ended.message}): the cluster's image must hold Prooftune "
            f"{__version__} and what it depends on"
        )
    return kind(f"{named} failed ({ended.message}); `ray job logs {ended.id}` shows its log")


def land(objects: ObjectStore, results: job.Results, out: Path) -> None:
    """Put verified copies of the results into ``out``, and nothing else there; the figures last."""
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, ref in results.files.items():
        target = out / check_key(f"{name}.unfinished" if name == FIGURES else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(objects.fetch(ref), target)
    (out / f"{FIGURES}.unfinished").replace(out / FIGURES)
