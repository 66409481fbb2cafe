"""What the tests of the ledger, of submission and of serving share: a store in memory that can misbehave, and a provider in memory."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Patience, Rows, submit
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order
from prooftune.spec import Hyperparameters, Objective, Provider
from prooftune.storage import objects

ROWS = Rows(Path("train.jsonl"), Path("validation.jsonl"))
QUICK = Patience(first_pause_s=0.001, longest_pause_s=0.002, search_s=0.03, request_s=0.03)
RUNNING = Job(id="job-1", status="running", told="running")
SUCCEEDED = Job(id="job-1", status="succeeded", told="succeeded", model="tuned-1", billed_tokens=600)
FAILED = Job(id="job-1", status="failed", told="failed", error="row 7 is too long")


class MemoryStore:
    """An object store in memory, with the conditions of the real ones.

    ``next_puts`` says what happens to the next writes: ``lost``, it is written and the answer gets lost; ``failed``, it is not written.
    """

    uri = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.next_puts: list[Literal["fine", "lost", "failed"]] = []
        self._lock = threading.Lock()
        self._work = Path(tempfile.mkdtemp(prefix="prooftune-memory-"))
        weakref.finalize(self, shutil.rmtree, self._work)

    def work_dir(self) -> Path:
        return self._work

    def get(self, key: str) -> bytes:
        try:
            return self.objects[objects.check_key(key)]
        except KeyError:
            raise objects.missing(self.uri, key) from None

    def version(self, key: str) -> str | None:
        data = self.objects.get(objects.check_key(key))
        return None if data is None else hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        return key in self.objects

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        with self._lock:
            outcome = self.next_puts.pop(0) if self.next_puts else "fine"
            if outcome == "failed":
                raise TransientError("the store did not answer")
            if if_absent and key in self.objects:
                raise objects.already_there(self.uri, key)
            if if_match is not None and self.version(key) != if_match:
                raise objects.version_changed(self.uri, key)
            self.objects[objects.check_key(key)] = data
        if outcome == "lost":
            raise TransientError("the store's answer got lost")
        return hashlib.sha256(data).hexdigest()

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nothing of what is tested here uses {name}")


@dataclass
class MemoryTuner:
    """A provider in memory. ``creates`` says what comes of the next requests to create: an error, before or after a job is made."""

    provider: str = "openai"
    address: str = "https://api.example"
    creates_once: bool = False
    jobs: list[Job] = field(default_factory=list)
    hidden: bool = False
    """Whether lists lag, and show no job."""
    creates: list[tuple[Literal["before", "after"], Exception]] = field(default_factory=list)
    asked: list[Job | Exception] = field(default_factory=list)
    """What the next looks at a job answer; the last one stays."""
    told: list[Event] = field(default_factory=list)
    uploads: int = 0
    requests: int = 0
    """To create."""
    running: dict[str, Deployment] = field(default_factory=dict)
    needs_deployment: bool = True
    ready_after: int = 0
    """Looks until a deployment is ready."""
    take_downs: list[Exception] = field(default_factory=list)
    """What the next requests to take down raise."""

    def probe(self, model: str, objective: Objective) -> Capability:
        return Capability(tunable=True, why="it is")

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        raise NotImplementedError

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        return []

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        self.uploads += 1
        return f"file-{role}"

    def estimate(self, order: Order, files: Files) -> float | None:
        return None

    def create(self, order: Order, files: Files) -> Job:
        self.requests += 1
        when, error = self.creates.pop(0) if self.creates else (None, None)
        if when == "before" and error is not None:
            raise error
        known = next((job for job in self.jobs if job.key == order.key), None) if self.creates_once else None
        job = known or Job(id=f"job-{len(self.jobs) + 1}", status="running", told="running", key=order.key)
        if known is None:
            self.jobs.append(job)
        if error is not None:
            raise error
        return job

    def find(self, order: Order, files: Files) -> list[Job]:
        return [] if self.hidden else [job for job in self.jobs if job.key == order.key]

    def job(self, job: str) -> Job:
        if self.asked:
            answer = self.asked.pop(0) if len(self.asked) > 1 else self.asked[0]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return next(one for one in self.jobs if one.id == job)

    def events(self, job: str, after: str | None) -> list[Event]:
        ids = [event.id for event in self.told]
        return self.told[ids.index(after) + 1 if after in ids else 0 :]

    def checkpoints(self, job: str) -> list[Checkpoint]:
        return [Checkpoint(id="checkpoint-1", step=1)]

    def download(self, job: str, out: Path) -> list[str]:
        (out / "metrics.csv").write_text("step\n1\n")
        return ["metrics.csv"]

    def cancel(self, job: str) -> Job:
        raise NotImplementedError

    def deploy(self, model: str, name: str) -> Deployment | None:
        if not self.needs_deployment:
            return None
        self.running[name] = Deployment(name=name, model=model, ready=self.ready_after == 0, told="starting", chat=f"{model}#{name}")
        return self.running[name]

    def deployments(self) -> list[Deployment]:
        self.ready_after -= 1
        if self.ready_after <= 0:
            self.running = {name: one.model_copy(update={"ready": True, "told": "ready"}) for name, one in self.running.items()}
        return list(self.running.values())

    def take_down(self, name: str) -> None:
        if self.take_downs:
            raise self.take_downs.pop(0)
        self.running.pop(name, None)

    def chat(self, model: str) -> Any:
        return f"chat with {model}"


def order_of(seed: int = 7, **changes: Any) -> Order:
    """Return an order, another one for each seed."""
    order = Order(
        provider="openai",
        address="https://api.example",
        model="gpt-4.1-mini",
        hyperparameters=Hyperparameters(epochs=2),
        seed=seed,
        name="triage",
        train_sha256="0" * 64,
    )
    return order.model_copy(update=changes)


def intent_of(order: Order) -> Entry:
    """Return what is written down before anything is sent."""
    return Entry(order=order, run="triage-0", options=Provider(hyperparameters=order.hyperparameters), estimate_usd=1.5)


STATES = ("intended", "submitting", "submitted", "ended", "failed", "needs_reconciliation")


def submitted(tuner: MemoryTuner, ledger: Ledger, patience: Patience = QUICK) -> Entry:
    """Run the command once."""
    return submit(tuner, ledger, intent_of(order_of()), ROWS, patience)


def entry_in(ledger: Ledger, state: str, order: Order) -> Entry:
    """Bring an order into a state (``failed``: ended by a job that failed) as runs do it, and return its entry."""
    ledger.open(intent_of(order))
    entry = ledger.uploaded(order.key, Files(train="file-train"))
    if state in ("submitting", "needs_reconciliation"):
        entry = ledger.claim(order.key, "first")
    if state == "needs_reconciliation":
        entry = ledger.park(order.key, entry, "no list shows a job")
    if state in ("submitted", "ended", "failed"):
        entry = ledger.found(order.key, {"submitted": RUNNING, "ended": SUCCEEDED, "failed": FAILED}[state], "created")
    return entry
