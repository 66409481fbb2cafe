"""Reads everything that the dashboard shows from the object store; what cannot be read is told and not raised.

A store of S3 answers each small document in some ten milliseconds, so that they are read beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from prooftune.dashboard.view import Dashboard, Month, Run, Task, Trouble, moment, newest_first
from prooftune.economics import approvals, spending
from prooftune.economics.approvals import Asked
from prooftune.errors import ProoftuneError
from prooftune.providers import deployment_leases, ledger, waiting
from prooftune.providers.deployment_leases import Lease
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.waiting import Waiting
from prooftune.report.wording import reasons_of
from prooftune.retraining import claims
from prooftune.retraining.claims import Retrains, read_retrains
from prooftune.storage import registry_document
from prooftune.storage.manifest import Manifest, list_runs, read_manifest
from prooftune.storage.objects import InvalidKey, NoSuchObject, ObjectStore, check_key
from prooftune.storage.registry_document import Registration, Registry, read_document
from prooftune.types import Decision, Evaluation

READERS = 16
"""Documents that are read at a time."""
Found = TypeVar("Found")
Document = TypeVar("Document", bound=BaseModel)


class Facts(BaseModel):
    """What the dashboard takes of a manifest's facts; later versions may add to them."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    name: str
    decision: Decision
    evaluations: tuple[Evaluation, ...] = ()
    lineage: dict[str, Any] = {}


class Published(BaseModel):
    """A published run with its spec, as it was resolved by the version that ran it."""

    manifest: Manifest
    facts: Facts
    spec: dict[str, Any]


def read_dashboard(store: ObjectStore, now: datetime) -> Dashboard:
    """Return what the store knows at ``now`` (UTC).

    Raises:
        StoreUnavailable, TransientError: the store cannot be read at all. A single document that is damaged is a ``Trouble``.
    """
    troubles: list[Trouble] = []
    with ThreadPoolExecutor(READERS) as pool:

        def each(names: Iterable[str], read: Callable[[str], Found | None]) -> list[Found]:
            """Read documents beside each other, in the order of their names; None = it is gone meanwhile."""
            found = list(pool.map(lambda name: _attempt(name, read), names))
            troubles.extend(one for one in found if isinstance(one, Trouble))
            return [one for one in found if one is not None and not isinstance(one, Trouble)]

        registries = each(_names(store, registry_document.FOLDER), lambda task: _registry(store, task))
        # Below a task's own folder lies what each of its retrainings is made from.
        retrains = each((name for name in _names(store, claims.FOLDER) if "/" not in name), lambda task: _retrains(store, task))
        published = each(list_runs(store), lambda run: _published(store, run))
        months = each(_names(store, spending.FOLDER), lambda name: spending.read_month(store, *_project_and_month(name)))
        asked = each(store.list(f"{approvals.FOLDER}asked/"), lambda key: _unanswered(store, key))
        jobs = each(_names(store, ledger.FOLDER), Ledger(store).read)
        waits = each(store.list(waiting.FOLDER), lambda key: _document(store, key, Waiting))
        leases = each(store.list(deployment_leases.FOLDER), lambda key: _lease(store, key))
    runs = {one.manifest.run_id: one for one in published}
    tasks = _tasks({one.task: one for one in registries}, {one.task: one for one in retrains}, runs, troubles)
    limits = _limits(tasks, {run_id: one.spec for run_id, one in runs.items()}, waits)
    return Dashboard(
        store=store.uri,
        made_at=now,
        tasks=tuple(tasks),
        months=tuple(sorted((_month(one, limits) for one in months), key=lambda month: (month.month, month.project), reverse=True)),
        asked=tuple(sorted(asked, key=lambda one: one.at)),
        jobs=tuple(sorted((one for one in jobs if one.state != "ended"), key=_since, reverse=True)),
        waiting=tuple(waits),
        leases=tuple(sorted(_one_each(leases), key=lambda lease: lease.since)),
        troubles=tuple(troubles),
    )


def _attempt(name: str, read: Callable[[str], Found | None]) -> Found | Trouble | None:
    try:
        found = read(name)
        if isinstance(found, BaseModel) and not _finite(found.model_dump()):
            return Trouble(where=name, what="holds a figure that is no number; restore it from a copy")
        return found
    except NoSuchObject:
        return None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        return Trouble(where=name, what=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except ProoftuneError as error:
        return Trouble(where=name, what=str(error))


def _finite(value: object) -> bool:
    """Return whether no figure in it is infinite or not a number, which JSON readers let through and no page can show."""
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _names(store: ObjectStore, folder: str) -> list[str]:
    return [key.removeprefix(folder).removesuffix(".json") for key in store.list(folder)]


def _document(store: ObjectStore, key: str, kind: type[Document]) -> Document:
    return kind.model_validate_json(store.get(key))


def _lease(store: ObjectStore, key: str) -> Lease:
    lease = _document(store, key, Lease)
    times = {name: time.replace(tzinfo=time.tzinfo or UTC) for name, time in (("since", lease.since), ("renewed", lease.renewed))}
    return lease.model_copy(update=times)


def _one_each(leases: Iterable[Lease]) -> list[Lease]:
    """Return one lease a deployment: it is in use as long as any run renews its own."""
    found: dict[tuple[str, str], Lease] = {}
    for lease in sorted(leases, key=lambda lease: lease.renewed):
        place = (lease.provider, lease.name)
        since = min(lease.since, found[place].since) if place in found else lease.since
        found[place] = lease.model_copy(update={"since": since})
    return list(found.values())


def _registry(store: ObjectStore, task: str) -> Registry:
    # The document's own name is not believed: its key has been checked.
    return read_document(store, task)[0].model_copy(update={"task": task})


def _retrains(store: ObjectStore, task: str) -> Retrains:
    return read_retrains(store, task).model_copy(update={"task": task})


def _published(store: ObjectStore, run_id: str) -> Published:
    manifest = read_manifest(store, run_id)
    facts = Facts.model_validate(manifest.facts)
    ref = manifest.files.get("spec.yaml")
    return Published(manifest=manifest, facts=facts, spec=_spec(store.get(ref.key)) if ref else {})


def _spec(text: bytes) -> dict[str, Any]:
    """Return a resolved spec as it is: one of an older version need not be one of this. What is no mapping tells nothing."""
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe, one is ten times faster
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _project_and_month(name: str) -> tuple[str, str]:
    project, _, month = name.rpartition("/")
    return project, month


def _unanswered(store: ObjectStore, key: str) -> Asked | None:
    asked = _document(store, key, Asked)
    if not math.isfinite(asked.usd or 0.0):
        return asked  # is told as damaged; there can be no answer to it
    return asked if approvals.read(store, asked.key, asked.usd) is None else None


def _since(entry: Entry) -> str:
    return entry.history[0].at if entry.history else ""


def _tasks(
    registries: Mapping[str, Registry], retrains: Mapping[str, Retrains], published: Mapping[str, Published], troubles: list[Trouble]
) -> list[Task]:
    """Return the tasks that have a registry, a retraining or a published run, with all that is said of each run."""
    names = {**dict.fromkeys(registries), **dict.fromkeys(retrains), **dict.fromkeys(one.facts.name for one in published.values())}
    tasks = []
    for name in names:
        registry = registries.get(name, Registry(task=name))
        own = {run_id: one for run_id, one in published.items() if one.facts.name == name}
        registered = {entry.run_id: entry for entry in registry.history}
        runs = []
        for run_id in {**dict.fromkeys(registered), **dict.fromkeys(own)}:
            run = _attempt(run_id, lambda run_id: _run(name, run_id, registered.get(run_id), own.get(run_id)))  # noqa: B023 - called at once
            if isinstance(run, Trouble):
                troubles.append(run)
            elif run is not None:
                runs.append(run)
        started = sorted(retrains.get(name, Retrains(task=name)).claims, key=lambda claim: claim.started, reverse=True)
        tasks.append(Task(name=name, registry=registry, runs=tuple(newest_first(runs)), retrainings=tuple(started)))
    return sorted(tasks, key=lambda task: (task.last_at is None, -(task.last_at.timestamp() if task.last_at else 0), task.name))


def _run(task: str, run_id: str, entry: Registration | None, published: Published | None) -> Run | None:
    if published is not None:
        decision, evaluations = published.facts.decision, {one.name: one for one in published.facts.evaluations}
    elif entry is not None:
        decision, evaluations = entry.decision, {}
    else:
        return None
    trained = decision.candidate_value is not None
    measured = evaluations.get("candidate" if trained else decision.baseline or "")
    metric = measured.metrics.get(decision.metric or "") if measured else None
    value = decision.candidate_value if trained else decision.baseline_value
    return Run(
        run_id=run_id,
        task=task,
        verdict=decision.verdict,
        at=moment(entry.registered_at) if entry else None,
        reason=next(iter(reasons_of(decision)), ""),
        metric=decision.metric,
        trained=trained,
        value=value,
        ci_low=metric.ci_low if metric else None,
        ci_high=metric.ci_high if metric else None,
        baseline=decision.baseline,
        baseline_value=decision.baseline_value,
        difference=decision.difference,
        n=decision.n,
        held_back=entry.held_back if entry else "",
        **(_made_with(published) if published else {}),
    )


def _made_with(published: Published) -> dict[str, Any]:
    """Return backend, seal and report of a published run, as far as it says."""
    backend = _part(published.spec, "backend")
    report = published.manifest.files.get("report.html")
    return {
        "provider": str(backend.get("provider") or ""),
        # A folder's own name: where it lay on the machine of the run says nothing here.
        "model": str(backend.get("model") or _part(published.facts.lineage, "model").get("name") or "").rstrip("/").rpartition("/")[2],
        "method": str(_part(backend, "method").get("kind") or ""),
        "seal": str(published.facts.lineage.get("seal") or ""),
        "report": _key(report.key) if report else None,
    }


def _key(key: str) -> str | None:
    """Return the key if it is one of this store: a damaged manifest must not lead a link anywhere else."""
    try:
        return check_key(key)
    except InvalidKey:
        return None


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = document.get(name)
    return part if isinstance(part, Mapping) else {}


def _limits(tasks: Iterable[Task], specs: Mapping[str, dict[str, Any]], waits: Iterable[Waiting]) -> dict[str, float | None]:
    """Return ``budget.monthly_usd`` by project, as the newest spec that names the project has it."""
    limits: dict[str, float | None] = {}
    for waits_for in waits:
        limits.setdefault(waits_for.spec.budget.project, waits_for.spec.budget.monthly_usd)
    for run in newest_first(run for task in tasks for run in task.runs):
        budget = _part(specs.get(run.run_id, {}), "budget")
        limit = budget.get("monthly_usd")
        if "project" in budget and (limit is None or (isinstance(limit, int | float) and math.isfinite(limit))):
            limits.setdefault(str(budget["project"]), limit)
    return limits


def _month(month: spending.Month, limits: Mapping[str, float | None]) -> Month:
    return Month(
        project=month.project,
        month=month.month,
        billed_usd=month.billed_usd,
        held_usd=month.held_usd,
        limit_usd=limits.get(month.project),
        limit_known=month.project in limits,
        items=month.items,
    )
