"""Goes on with runs that ended for now because their job, at a provider or on a Ray cluster, went on."""

from __future__ import annotations

from typing import Any, cast

from prefect import flow, tags
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.finetune import finish
from flows.found_runs import OURS
from prooftune.errors import JobFailed, ProoftuneError, TransientError
from prooftune.providers import ray_orders
from prooftune.providers.ledger import Ledger
from prooftune.providers.submission import look
from prooftune.providers.tuning import open_tuner
from prooftune.providers.waiting import Waiting, read_waiting, went_on
from prooftune.results import result_json
from prooftune.retraining.claims import settle_run
from prooftune.spec import Store
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import RunWaiting
from tasks.artifacts import show_table


@flow(name="resume-waiting", flow_run_name="go on with runs whose job has ended")
def go_on(store: Store) -> State[Any]:
    """Ask how each awaited job is, and go on with the runs whose job has ended; a schedule of this flow needs no process in between.

    Failed where a job could not be asked for, or a run could not go on: it would wait for good, and nobody would know.
    """
    rows = _looked_at(store)
    if rows:
        show_table([_shown(row) for row in rows], key="waiting-runs", description="Runs that waited for a managed job")
    troubles = [f"{row['run']}: {row['trouble']}" for row in rows if row["trouble"]]
    for trouble in troubles:
        get_run_logger().error("%s", trouble)
    went = sum(row["result"] is not None and row["result"]["verdict"] is not None for row in rows)
    told = f"{len(rows)} runs waited, {went} went on to their verdict"
    return Failed(message=f"{told}; {'; '.join(troubles)}", data=rows) if troubles else Completed(message=told, data=rows)


def gone_on(store: Store) -> list[dict[str, Any]]:
    """Go on in this process, and return what became of each run that waited.

    Raises:
        IntegrityError: what is known of a waiting run is damaged.
        StoreUnavailable: the store cannot be reached.
    """
    found: Any = go_on(store, return_state=True).result(raise_on_failure=False)  # what failed has its rows as well
    if isinstance(found, BaseException):
        raise found
    return cast("list[dict[str, Any]]", found)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    verdict = row["result"]["verdict"] if row["result"] else None
    return {"run": row["run"], "job": row["key"], "status": row["status"], "verdict": verdict, "trouble": row["trouble"]}


def _looked_at(store: Store) -> list[dict[str, Any]]:
    objects = open_store(store)
    ledger = Ledger(objects)
    unreadable: dict[str, str] = {}
    waits = list(read_waiting(objects, unreadable))
    told: list[dict[str, Any]] = [
        {"run": run, "key": None, "status": None, "result": None, "trouble": reason} for run, reason in unreadable.items()
    ]
    for waiting in waits:
        row: dict[str, Any] = {"run": waiting.run, "key": waiting.key, "status": None, "result": None, "trouble": None}
        try:
            row["status"], ended = _awaited(objects, ledger, waiting.key)
            if ended:
                row |= _gone_on(store, waiting)
        except ProoftuneError as error:  # of this run; the others go on
            row["trouble"] = str(error)
        told.append(row)
    return told


def _awaited(objects: ObjectStore, ledger: Ledger, key: str) -> tuple[str, bool]:
    """Ask how a job is; return whose word it is, and whether it has ended. One that its cluster forgot has, and is done again."""
    if (order := ray_orders.find(objects, key)) is not None:
        if ray_orders.done(objects, order):
            return "SUCCEEDED", True
        found = ray_orders.look(order)
        return (found.told, found.ended) if found else ("forgotten by the cluster", True)
    entry = ledger.read(key)
    if entry.state != "ended":
        entry = look(open_tuner(entry.order.provider, entry.options), ledger, entry)
    return entry.job.told if entry.job else entry.state, entry.state == "ended"


def _gone_on(store: Store, waiting: Waiting) -> dict[str, Any]:
    """Go on with a run whose job has ended, and say what came of it.

    Whatever stops it keeps no other run from going on, and no other retraining from starting, unless another try may help.
    """
    objects, task, run = open_store(store), waiting.spec.name, waiting.run
    spec = waiting.spec.model_copy(update={"store": store})  # its own address may be a relative one, of another folder
    with tags(OURS):  # its failure is told as that of a run of its own
        found = finish(spec, waiting.source, run, return_state=True).result(raise_on_failure=False)
    if isinstance(found, Exception):
        if not isinstance(found, TransientError):
            settle_run(objects, task, run, f"{type(found).__name__}: {found}", failed=True)
        if isinstance(found, JobFailed):  # for good; whatever else stops a run is looked at again: somebody may mend it
            went_on(objects, run)
        return {"trouble": str(found)}
    if not isinstance(found, RunWaiting):
        # Before the run is forgotten: a retraining that waits for a run of which nobody knows would wait for good.
        settle_run(objects, task, run, f"{found.verdict}, run {found.run_id}")
        went_on(objects, run)
    return {"result": result_json(found)}
