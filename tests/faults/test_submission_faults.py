"""Whatever happens while a job is submitted: never two jobs of one order, and never one that nobody knows of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_stand_ins import PROVIDERS, StandIn, open_stand_in

from prooftune.errors import NeedsReconciliation, ProoftuneError, TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Patience, Rows, submit
from prooftune.storage.local import LocalStore

if TYPE_CHECKING:
    from prooftune.providers.tuning import Order
    from prooftune.storage.objects import ObjectStore

QUICK = Patience(first_pause_s=0.0, longest_pause_s=0.0, search_s=0.0, request_s=0.0)
OPERATIONS = ("upload_file", "get_file", "list_jobs", "create_job", "get_job")
KINDS = ("rate_limit", "error_before", "error_after", "reset_before", "reset_after", "cut", "lost_id", "stale", "quota", "refuse")
MOST_CALLS = 12
"""Of the same command until it has to have ended well."""


class Crash(BaseException):
    """The process dies: nothing that catches errors catches this."""


@dataclass
class CrashingStore:
    """An object store whose process dies at the ``at``-th write: before it reaches the store, or after."""

    store: ObjectStore
    at: int
    after: bool
    writes: int = 0
    crashed: bool = False

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        """Write, or die."""
        self.writes += 1
        if self.writes == self.at:
            self.crashed = True
            if self.after:
                self.store.put(key, data, **conditions)
            raise Crash
        return self.store.put(key, data, **conditions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class Submission:
    """One order at one stand-in, with a ledger of its own."""

    here: StandIn
    rows: Path
    order: Order
    store: LocalStore
    calls: int = 0
    parked: int = 0
    outcomes: list[str] = field(default_factory=list)

    def call(self, store: Any = None) -> Entry:
        """Run the command once, in a process that knows nothing of earlier ones."""
        self.calls += 1
        return submit(self.here.tuner, Ledger(store or self.store), Entry(order=self.order, run="triage-0"), Rows(self.rows), QUICK)

    def until_done(self) -> Entry:
        """Run the command again and again, as a scheduler would; a parked order is settled as a person would: by looking."""
        for _ in range(MOST_CALLS):
            try:
                return self.call()
            except NeedsReconciliation:
                self.parked += 1
                if self.jobs == 0:
                    Ledger(self.store).release(self.order.key, "tester", "the list of jobs is empty")
            except (TransientError, ProoftuneError) as error:
                self.outcomes.append(type(error).__name__)
        raise AssertionError(f"not done after {MOST_CALLS} calls: {self.outcomes}")

    @property
    def jobs(self) -> int:
        return self.here.jobs - self.before

    before: int = 0


@pytest.fixture(scope="module", params=PROVIDERS)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A provider's stand-in, shared by the tests of this file: each order there is another one."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        open_stand_in(request.param, tmp_path_factory.mktemp(request.param), monkeypatch) as found,
    ):
        shorten_timeouts(found, monkeypatch)
        yield found


def shorten_timeouts(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no retry wait: the waits have tests of their own."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)


@pytest.fixture
def new_submission(here: StandIn, tmp_path: Path) -> Callable[[], Submission]:
    """Makes orders that differ in nothing but their seed and name."""
    rows = here.rows()
    numbers = itertools.count()

    def make() -> Submission:
        number = next(numbers)
        here.api.faults.clear()
        order = here.order(rows, name=f"triage-{tmp_path.name[-8:].strip('_0').lower() or 'x'}-{number}".replace("_", "-"), seed=number)
        return Submission(here, rows, order, LocalStore(tmp_path / f"store-{number}"), before=here.jobs)

    return make


def writes_of(submission: Submission) -> int:
    """Return how many writes an undisturbed submission makes."""
    counted = CrashingStore(submission.store, at=0, after=False)
    submission.call(counted)
    return counted.writes


def check(submission: Submission) -> None:
    """One job, and the ledger knows it."""
    entry = submission.until_done()
    assert submission.jobs == 1, f"{submission.jobs} jobs after {submission.outcomes}"
    assert entry.job is not None
    assert submission.here.tuner.job(entry.job.id).id == entry.job.id
    again = submission.call()
    assert again.job is not None
    assert again.job.id == entry.job.id
    assert submission.jobs == 1


def test_an_undisturbed_submission_makes_one_job(new_submission: Callable[[], Submission]) -> None:
    """One order is one job, also when it is submitted again, and also when the ledger is lost."""
    submission = new_submission()
    check(submission)
    submission.store = LocalStore(submission.store.root.parent / "another")
    check(submission)
    other = new_submission()
    check(other)


def test_a_crash_at_every_write(new_submission: Callable[[], Submission], record_faults: Callable[[int], None]) -> None:
    """The process dies before or after each write to the ledger."""
    for at, after in itertools.product(range(1, writes_of(new_submission()) + 1), (False, True)):
        submission = new_submission()
        store = CrashingStore(submission.store, at, after)
        with pytest.raises(Crash):
            submission.call(store)
        assert store.crashed
        check(submission)
        record_faults(1)


def test_a_fault_of_every_kind_at_every_request(new_submission: Callable[[], Submission], record_faults: Callable[[int], None]) -> None:
    """The provider misbehaves once or several times in a row, at each operation."""
    for kind, operation, times in itertools.product(KINDS, OPERATIONS, (1, 7)):
        submission = new_submission()
        fault = submission.here.api.faults.order(kind, operation, times=times)
        try:
            submission.call()
        except ProoftuneError as error:
            submission.outcomes.append(type(error).__name__)
        met = fault.fired
        submission.here.api.faults.clear()
        check(submission)
        record_faults(met)


@pytest.mark.slow
def test_a_crash_upon_a_fault(new_submission: Callable[[], Submission], record_faults: Callable[[int], None]) -> None:
    """The provider misbehaves when the job is created, and then the process dies at each of its writes; the next one meets a fault too."""
    kinds = ("error_after", "reset_after", "cut", "lost_id", "rate_limit", "error_before", "reset_before")
    for kind, at, after, later in itertools.product(kinds, range(1, 5), (False, True), ("reset_after", "stale", "error_before")):
        submission = new_submission()
        faults = submission.here.api.faults
        first = faults.order(kind, "create_job")
        store = CrashingStore(submission.store, at, after)
        try:
            submission.call(store)
        except Crash:
            pass
        except ProoftuneError as error:
            submission.outcomes.append(type(error).__name__)
        second = faults.order(later, "list_jobs" if later == "stale" else "create_job")
        try:
            submission.call()
        except ProoftuneError as error:
            submission.outcomes.append(type(error).__name__)
        met = first.fired + second.fired + store.crashed
        faults.clear()
        check(submission)
        record_faults(met)


FAULTS = {"met": 0}


@pytest.fixture
def record_faults(here: StandIn) -> Callable[[int], None]:
    """Counts the faults that happened; the figure is printed at the end."""

    def record(count: int) -> None:
        FAULTS["met"] += count

    return record


@pytest.fixture(scope="module", autouse=True)
def figure() -> Iterator[None]:
    """Print how many crashes and errors were survived."""
    yield
    print(f"\n{FAULTS['met']} injected crashes and errors: never two jobs, never a lost one")  # noqa: T201 - the figure is the result
