"""What the commands on jobs answer, as JSON: the ledger and Ray's, reconciliation, cancelling, and what still runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.governance import open_named, store_flags, user
from prooftune.errors import EnvironmentLacks, NeedsReconciliation, ProoftuneError, SpecError

if TYPE_CHECKING:
    from prooftune.economics.approvals import Answer


def list_jobs(refresh: bool, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Return every order of the ledger and every job on Ray, newest first, and those that cannot be read.

    ``refresh`` asks the providers and clusters how their jobs are.
    """
    from prooftune.providers import ray_orders
    from prooftune.providers.ledger import Ledger

    store = open_named(store_uri, endpoint_url)
    ledger = Ledger(store)
    rows, unreadable = [], dict[str, str]()
    for entry in ledger.entries(unreadable):
        row = _row(entry)
        if refresh and entry.state == "submitted":
            try:
                row = _row(_asked(ledger, entry))
            except ProoftuneError as error:
                row["trouble"] = str(error)
        rows.append(row)
    for order in ray_orders.orders(store, unreadable):
        row = _ray_row(order, done=ray_orders.done(store, order))
        if refresh and row["state"] == "submitted":
            try:
                row = _ray_row(order, ray_orders.look(order))
            except ProoftuneError as error:
                row["trouble"] = str(error)
        rows.append(row)
    rows.sort(key=lambda row: str(row["since"]), reverse=True)
    return {"store": store.uri, "jobs": rows, "unreadable": unreadable, "flags": store_flags(store_uri, endpoint_url)}


def reconcile(key: str, job: str | None, none: bool, reason: str, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Settle an order of which nobody could tell whether it has a job: look again, or take a person's word.

    Raises:
        SpecError: ``job`` and ``none`` exclude each other, or there is nothing to reconcile.
        NeedsReconciliation: the provider shows no job, and nobody said that there is none.
    """
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.tuning import only, open_tuner

    if job is not None and none:
        raise SpecError("--job and --none exclude each other: the order has a job, or it has none")
    ledger = Ledger(open_named(store_uri, endpoint_url))
    entry = ledger.read(key)
    tuner = open_tuner(entry.order.provider, entry.options)
    if job is not None:
        named = tuner.job(job)
        if named.key not in (None, key):
            raise SpecError(f"the job {job} carries the run key {named.key}, not {key}; nothing was changed")
        return {"settled": True, **_row(ledger.said(key, named, user(), reason or "looked at the provider's list"))}
    found = None if entry.files is None else only(tuner.find(entry.order, entry.files), key)
    if found is not None:
        return {"settled": True, **_row(ledger.found(key, found, "adopted"))}
    if none:
        return {"settled": True, **_row(ledger.release(key, user(), reason or "looked at the provider's list"))}
    if entry.state != "needs_reconciliation":
        return {"settled": entry.state != "submitting", **_row(entry)}
    raise NeedsReconciliation(
        f"{entry.order.provider} still shows no job with the run key {key}. Look into its console; then say --job ID if there is one, or "
        "--none if there is none"
    )


def cancel(key: str, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Cancel an order's job at the provider or on the Ray cluster; one that has ended is left as it is.

    Raises:
        SpecError: the order has no job.
    """
    from prooftune.providers import ray_orders
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.tuning import open_tuner

    store = open_named(store_uri, endpoint_url)
    if (order := ray_orders.find(store, key)) is not None:
        if ray_orders.done(store, order):
            return _ray_row(order, done=True)
        if (found := ray_orders.cancel(order)) is None:
            where = f"the Ray cluster at {order.address or 'its default address'}"
            raise SpecError(f"{where} knows of no job {key}, as after a restart: there is none to cancel")
        return _ray_row(order, found)
    ledger = Ledger(store)
    entry = ledger.read(key)
    if entry.job is None:
        raise SpecError(f"{key} is {entry.state} and has no job to cancel")
    if entry.job.ended:
        return _row(entry)
    return _row(ledger.found(key, open_tuner(entry.order.provider, entry.options).cancel(entry.job.id), f"cancelled by {user()}"))


def again(key: str, reason: str, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Let an order whose job failed or was cancelled be submitted once more.

    Raises:
        SpecError: its job did not fail.
    """
    from prooftune.providers.ledger import Ledger

    return _row(Ledger(open_named(store_uri, endpoint_url)).again(key, user(), reason))


def sweep(remove: bool, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Find deployments that dead runs left at every provider that the ledger or a lease names, and take them down."""
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.sweeping import sweep as sweep_deployments
    from prooftune.providers.tuning import open_tuner

    store, unreadable = open_named(store_uri, endpoint_url), dict[str, str]()
    accounts = [(entry.order.provider, entry.options) for entry in Ledger(store).entries(unreadable)]
    swept = sweep_deployments(store, open_tuner, accounts, remove=remove, now=datetime.now(UTC)).model_dump(mode="json")
    swept["not_asked"] += unreadable.values()  # each may name a provider that no other does
    return {"store": store.uri, "removed": remove, "flags": store_flags(store_uri, endpoint_url), **swept}


def answer_question(
    run: str | None, approved: bool, reason: str, by: str | None, store_uri: str, endpoint_url: str | None
) -> dict[str, Any]:
    """Write down a person's answer to what a run asks, carry it out, and wake the run; without a run, return what waits.

    Raises:
        SpecError: the run asked nothing.
        PromotionRefused: the run waits for no approval of its promotion.
    """
    from prooftune.economics import approvals

    store = open_named(store_uri, endpoint_url)
    if run is None:
        waiting = [asked.model_dump() | {"what": asked.what, "text": asked.text} for asked in approvals.open_questions(store)]
        return {"store": store.uri, "waiting": waiting}
    asked = approvals.waiting(store, run)
    said = approvals.answer(store, run, asked.usd, approved=approved, by=by or user(), reason=reason)
    promoted = None if asked.usd is not None else _settle(store, asked.task, said, store_uri, endpoint_url)
    return {"store": store.uri, "what": asked.what, "answer": said.model_dump(), "promotion": promoted, "woken": wake(asked.flow_run, said)}


def _settle(store: Any, task: str, said: Answer, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Carry the answer to a promotion out: no flow run need wait for it any more."""
    from flows.governance import mirror_champion
    from prooftune.report.wording import with_flags
    from prooftune.storage.registry import why_not_in_use
    from prooftune.storage.registry_approval import settle_approval

    registry = settle_approval(store, task, said.key, approved=said.approved, by=said.by, reason=said.reason)
    in_use = registry["champion"] == said.key
    return {
        "task": task,
        "champion": registry["champion"],
        "note": with_flags(why_not_in_use(store, task, said.key), store_flags(store_uri, endpoint_url)),
        "mlflow": mirror_champion(registry, store_uri, endpoint_url) if in_use else None,
    }


def wake(flow_run: str | None, said: Answer) -> bool:
    """Resume the flow run that waits for an answer; False = none waits any more, or its server cannot be reached from here.

    The answer is written down by then. A run that waits looks for it itself, and the next run of the spec finds it.
    """
    if flow_run is None:
        return False
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.running import server_address

    given = {"decision": "approve" if said.approved else "reject", "by": said.by, "reason": said.reason}
    try:
        api = server_address()["api"]
    except EnvironmentLacks:
        return False
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        try:
            if not (state := client.read_flow_run(UUID(flow_run)).state) or not state.is_paused():
                return False
        except ObjectNotFound:
            return False
        return client.resume_flow_run(UUID(flow_run), run_input=given).status.value == "ACCEPT"


def _asked(ledger: Any, entry: Any) -> Any:
    from prooftune.providers.submission import look
    from prooftune.providers.tuning import open_tuner

    return look(open_tuner(entry.order.provider, entry.options), ledger, entry)


def _ray_row(order: Any, found: Any = None, *, done: bool = False) -> dict[str, Any]:
    """Return a row for a training on Ray: ``found`` is its newest job, where the cluster was asked."""
    asked = {"at": order.since, "by": order.by, "what": "ordered"}
    return {
        **dict.fromkeys(("attempt", "tuned_model", "estimate_usd", "billed_usd", "billed_tokens")),
        "key": order.id,
        "run": "",
        "provider": "ray",
        "address": order.address,
        "model": order.model,
        "state": "ended" if done or (found and found.ended) else "submitted",
        "job": found.id if found else order.id,
        "status": found.told if found else "SUCCEEDED" if done else None,
        "error": found.message if found and found.status == "failed" else "",
        "since": order.since,
        "history": [asked],
    }


def _row(entry: Any) -> dict[str, Any]:
    order, job = entry.order, entry.job
    return {
        "key": entry.key,
        "run": entry.run,
        "provider": order.provider,
        "address": order.address,
        "model": order.model,
        "attempt": order.attempt,
        "state": entry.state,
        "job": job.id if job else None,
        "status": job.told if job else None,
        "tuned_model": job.model if job else None,
        "estimate_usd": entry.estimate_usd,
        "billed_usd": job.billed_usd if job else None,
        "billed_tokens": job.billed_tokens if job else None,
        "error": job.error if job else "",
        "since": entry.history[0].at if entry.history else None,
        "history": [note.model_dump() for note in entry.history],
    }
