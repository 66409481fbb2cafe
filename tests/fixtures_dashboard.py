"""A store with two tasks, money, questions, jobs and deployments, for the tests of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prooftune.dashboard.reading import read_dashboard
from prooftune.dashboard.view import Dashboard
from prooftune.economics import approvals, spending
from prooftune.providers.deployment_leases import Lease, key_of
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.tuning import Job, Order
from prooftune.providers.waiting import wait
from prooftune.retraining.admission import admit
from prooftune.retraining.claims import finish, note_run
from prooftune.spec import Hyperparameters, Provider, RunSpec, Store, parse_spec
from prooftune.storage import registry
from prooftune.storage.manifest import publish
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import Decision, Evaluation, Metric, Verdict
from prooftune.watching.signals import Kind, Signal

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
CANDIDATE: dict[Verdict, float | None] = {"promote": 0.8, "inconclusive": 0.62, "keep_baseline": 0.5, "do_not_fine_tune": None}


@contextmanager
def at_time(at: datetime) -> Iterator[None]:
    """Let the registry's clock show ``at``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_now", lambda: at.isoformat(timespec="seconds"))
        yield


def spec_of(task: str, **changes: Any) -> RunSpec:
    """Return a spec of a task, of the project shared."""
    return parse_spec({"name": task, "data": {"source": "rows.jsonl"}, "budget": {"project": "shared", "monthly_usd": 100}} | changes)


def decided(verdict: Verdict, reason: str = "Because of the figures.") -> Decision:
    """Return a decision against few_shot at 0.6."""
    value = CANDIDATE[verdict]
    gain = None if value is None else value - 0.6
    return Decision(
        verdict=verdict,
        reasons=(reason,),
        metric="exact_match",
        baseline="few_shot",
        baseline_value=0.6,
        candidate_value=value,
        difference=gain,
        n=200,
    )


def evaluated(name: str, value: float) -> dict[str, Any]:
    """Return an evaluation with an interval of 0.05 to each side."""
    metric = Metric(name="exact_match", value=value, ci_low=value - 0.05, ci_high=value + 0.05, n=200)
    seconds = {"latency_p50_s": None, "latency_p95_s": None, "tokens_per_second": None, "seconds": None}
    tokens = dict.fromkeys(("answer_tokens_mean", "answer_tokens_p50", "answer_tokens_p95", "prompt_tokens_mean", "refusals", "empty"), 0.0)
    known = {"name": name, "description": "", "metrics": {"exact_match": metric}, "batch_size": 1, "holdout_sha256": "b2" * 32}
    return Evaluation.model_validate(known | seconds | tokens).model_dump(mode="json")


def put_run(
    store: ObjectStore, folder: Path, task: str, number: int, verdict: Verdict, *, at: datetime = NOW, enter: bool = True, ask: bool = False
) -> str:
    """Publish a run with a report and its spec, and register it."""
    run_id, decision = f"{task}-{number}", decided(verdict)
    folder.mkdir(exist_ok=True)
    texts = {"report.html": f"report of {run_id}", "spec.yaml": spec_of(task).resolved_yaml()}
    if CANDIDATE[verdict] is not None:
        met = registry.read_registry(store, task)["champion"]
        texts |= {"adapter/weights.safetensors": run_id, "champion.json": json.dumps({"run_id": met})}
    files = {name: folder / name.replace("/", "_") for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    values = {"few_shot": 0.6} | ({"candidate": value} if (value := CANDIDATE[verdict]) is not None else {})
    facts = {
        "name": task,
        "decision": decision.model_dump(mode="json"),
        "evaluations": [evaluated(name, value) for name, value in values.items()],
        "lineage": {"seal": "b2" * 32, "model": {"name": "smollm2"}},
    }
    manifest = publish(store, run_id, files, facts)
    if enter:
        with at_time(at):
            registry.register(store, task, run_id, manifest, decision, ask=ask)
    return run_id


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with two tasks, money, a question, jobs and deployments."""
    folder = tmp_path_factory.mktemp("dashboard")
    store, files = open_store(Store(uri=str(folder / "store"))), folder / "files"
    for number, verdict in enumerate(("promote", "promote", "keep_baseline", "inconclusive")):
        put_run(store, files, "triage", number, verdict, at=NOW - timedelta(days=40 - 10 * number))  # type: ignore[arg-type]
    with at_time(NOW - timedelta(days=5)):
        registry.rollback(store, "triage", reason="too curt for customers", by="maria")
    put_run(store, files, "invoices", 7, "do_not_fine_tune", at=NOW - timedelta(days=90))
    put_run(store, files, "invoices", 8, "keep_baseline", enter=False)
    spending.hold(store, "shared", "triage-0", 20, None, NOW)
    spending.settle(store, "shared", "triage-0", {"triage-0": 15.5})
    spending.hold(store, "shared", "triage-9", 80, None, NOW)
    approvals.ask(store, "invoices-9", 41.5, None)
    approvals.ask(store, "triage-3", None, None, "triage")
    approvals.ask(store, "invoices-10", 10, None)
    approvals.answer(store, "invoices-10", 10, approved=True, by="maria", reason="")
    put_jobs(store)
    token = start_retraining(store, "triage", "data", "5e1f0c", NOW - timedelta(days=30))
    note_run(store, "triage", token, "triage-1")
    finish(store, "triage", token, "promote, run triage-1")
    return folder / "store"


def start_retraining(store: ObjectStore, task: str, kind: Kind, digest: str, at: datetime) -> int:
    """Let a signal start a retraining, and return its token."""
    signal = Signal(kind=kind, task=task, digest=digest, reason=f"because of {digest}", at=at.isoformat())
    token = admit(store, spec_of(task, retrain={"cool_down_hours": 0}), signal, "a holder", at).token
    assert token is not None
    return token


def put_jobs(store: ObjectStore) -> None:
    """Order three jobs, one that ended, one that runs, one of which nobody can tell; and leave one of two deployments behind.

    The one that is in use was used by a run that died as well.
    """
    ledger = Ledger(store)
    for seed, status in enumerate(("succeeded", "running", None)):
        order = Order(
            provider="openai",
            address="https://api.example",
            model="gpt-small",
            hyperparameters=Hyperparameters(),
            seed=seed,
            name="triage",
            train_sha256="a1" * 32,
        )
        key = ledger.open(Entry(order=order, run=f"triage-job-{seed}", estimate_usd=12.5)).key
        if status is None:
            ledger.park(ledger.claim(key, "holder").key, ledger.read(key), "the connection broke")
        else:
            model = "ft:gpt-small" if status == "succeeded" else None
            ledger.found(key, Job(id=f"job-{seed}", status=status, told=status, model=model), "created")
        if status == "running":
            wait(store, spec_of("triage"), "triage-job-1", key, "f" * 64)
    for name, holder, renewed in (("alive", "a", NOW), ("alive", "b", NOW - timedelta(hours=9)), ("left", "a", NOW - timedelta(hours=5))):
        lease = Lease(
            name=name,
            holder=holder,
            provider="fireworks",
            address="account",
            options=Provider(),
            model="tuned",
            usd_per_hour=9,
            since=renewed - timedelta(hours=1),
            renewed=renewed,
        )
        store.put(key_of(name, holder), lease.model_dump_json().encode())


def seen(address: Path) -> Dashboard:
    """Return what a store in a folder knows."""
    return read_dashboard(open_store(Store(uri=str(address))), NOW)
