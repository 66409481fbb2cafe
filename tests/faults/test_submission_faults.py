"""Whatever happens while a job is submitted: never two jobs of one order, and never one that nobody knows of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_crashes import Crash, CrashingStore
from fixtures_stand_ins import PROVIDERS, StandIn, open_stand_in

from prooftune.errors import NeedsReconciliation, ProoftuneError, TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Patience, Rows, submit
from prooftune.sandbox.faults import Kind
from prooftune.storage.local import LocalStore

if TYPE_CHECKING:
    from prooftune.providers.tuning import Order

QUICK = Patience(first_pause_s=0.0, longest_pause_s=0.0, search_s=0.0, request_s=0.0)
_OPENAI = ("list_files", "upload_file", "get_file", "list_jobs", "create_job")
STEPS: Mapping[str, tuple[str, ...]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "bedrock": ("upload_file", "list_jobs", "get_job", "create_job"),
    "vertex": ("upload_file", "list_jobs", "create_job"),
    "together": ("upload_file", "put_file", "check_file", "get_file", "list_jobs", "estimate", "create_job"),
    "fireworks": ("create_dataset", "get_file", "upload_file", "get_job", "create_job"),
}
"""The operations of a submission, as each provider's API has them."""
KINDS: tuple[Kind, ...] = ("rate_limit", "error_before", "error_after", "reset_before", "reset_after", "cut", "lost_id", "duplicate")
REFUSALS: tuple[Kind, ...] = ("quota", "refuse")
"""No attempt follows one, so that several in a row are one."""
MADE_BY = {"list_jobs": "create_job", "list_files": "upload_file"}
"""What makes that which a list may not show yet."""
EMPTY = {("bedrock", "upload_file"), ("together", "upload_file"), ("together", "put_file")}
"""Answers that hold nothing to cut."""
NAMELESS = {("bedrock", "upload_file"), ("together", "put_file"), ("fireworks", "upload_file")}
"""Answers that name nothing; nor do those of ``ASKING``."""
ASKING = {"list_files", "list_jobs", "estimate", "get_job"}
"""Operations before there is a job: lists, the price, and whether a job of that name is there."""
FLOOR = 80
"""Crashes and errors that each provider's submission survives at least, without the slow tests."""
NUMBERS = itertools.count()
"""Of orders: each is another one."""
LIMIT_S = 0.5
"""That a client waits for an answer, where a provider is silent."""
CLIENTS = ("openai", "bedrock_connection", "bedrock_files", "vertex_connection", "vertex_files", "together", "fireworks")
"""Files with the limit."""
MOST_CALLS = 12
"""Of the same command until it has to have ended well."""


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
    """A provider's stand-in, shared by the tests of this file: each order there is another one. No retry waits."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        open_stand_in(request.param, tmp_path_factory.mktemp(request.param), monkeypatch) as found,
    ):
        monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
        yield found


@pytest.fixture
def new_submission(here: StandIn, tmp_path: Path) -> Callable[[], Submission]:
    """Makes orders, each of other rows."""
    return maker(here, tmp_path)


def maker(here: StandIn, folder: Path) -> Callable[[], Submission]:
    """Return what makes orders at a stand-in, each with a ledger of its own."""
    examples = here.examples()

    def make() -> Submission:
        number = next(NUMBERS)
        name = f"triage-{number}"
        here.api.faults.clear()
        rows = folder / f"rows-{number}.jsonl"  # other ones each time: some providers take the same bytes once
        here.tuner.write_rows(examples, f"Sort the ticket of {name}.", "supervised", rows)
        order = here.order(rows, name=name, seed=number)
        return Submission(here, rows, order, LocalStore(folder / f"store-{number}"), before=here.jobs)

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


def test_the_steps_of_a_submission_are_known(here: StandIn, new_submission: Callable[[], Submission]) -> None:
    """The faults below are injected at each request that is made, and at none that is not."""
    before = len(here.api.seen)
    new_submission().call()
    assert {name for name, _, _ in here.api.seen[before:]} == set(STEPS[here.tuner.provider])


def test_a_crash_at_every_write(new_submission: Callable[[], Submission], record_faults: Callable[[str, int], None]) -> None:
    """The process dies before or after each write to the ledger."""
    for at, after in itertools.product(range(1, writes_of(new_submission()) + 1), (False, True)):
        submission = new_submission()
        store = CrashingStore(submission.store, at, after)
        with pytest.raises(Crash):
            submission.call(store)
        assert store.crashed
        check(submission)
        record_faults(submission.here.tuner.provider, 1)


def faults_of(provider: str) -> Iterator[tuple[Kind, str, int]]:
    """Yield each fault that a request of the provider's submission can meet, with how often in a row."""
    for operation in STEPS[provider]:
        for kind in KINDS:
            if kind == "cut" and (provider, operation) in EMPTY:
                continue
            if kind == "lost_id" and (operation in ASKING or (provider, operation) in NAMELESS):
                continue
            yield from ((kind, operation, times) for times in (1, 7))
        yield from ((kind, operation, 1) for kind in REFUSALS)
        if operation in MADE_BY:
            yield from (("stale", operation, times) for times in (1, 7))


def test_a_fault_of_every_kind_at_every_request(
    here: StandIn, new_submission: Callable[[], Submission], record_faults: Callable[[str, int], None]
) -> None:
    """The provider misbehaves once or several times in a row, at each operation; a list lags behind what was made and not answered."""
    provider, met = here.tuner.provider, 0
    for kind, operation, times in faults_of(provider):
        submission = new_submission()
        ordered = [here.api.faults.order("reset_after", MADE_BY[operation])] if kind == "stale" else []
        ordered.append(here.api.faults.order(kind, operation, times=times))
        try:
            submission.call()
        except ProoftuneError as error:
            submission.outcomes.append(type(error).__name__)
        assert all(fault.fired for fault in ordered), f"{kind}@{operation}*{times} did not happen at {provider}: {submission.outcomes}"
        met += sum(fault.fired for fault in ordered)
        here.api.faults.clear()
        check(submission)
    assert met >= FLOOR
    record_faults(provider, met)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_that_is_silent(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_faults: Callable[[str, int], None]
) -> None:
    """Each request is done, and no answer comes while the client waits."""
    for name in CLIENTS:
        monkeypatch.setattr(f"prooftune.providers.{name}.TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.0)
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        new_submission = maker(here, tmp_path)
        for operation in STEPS[provider]:
            submission = new_submission()
            fault = here.api.faults.order("timeout_after", operation, value="600")
            check(submission)
            assert fault.fired == 1, f"{operation} was not asked"
            record_faults(provider, 1)


@pytest.mark.slow
def test_a_crash_upon_a_fault(new_submission: Callable[[], Submission], record_faults: Callable[[str, int], None]) -> None:
    """The provider misbehaves when the job is created, and then the process dies at each of its writes; the next one meets a fault too."""
    kinds: tuple[Kind, ...] = ("error_after", "reset_after", "cut", "lost_id", "rate_limit", "error_before", "reset_before", "duplicate")
    laters: tuple[Kind, ...] = ("reset_after", "stale", "error_before")
    for kind, at, after, later in itertools.product(kinds, range(1, 5), (False, True), laters):
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
        # Where the process died first, or had found its job, there was no request that could have met the other fault.
        assert first.fired or store.crashed, f"neither {kind} nor a crash at write {at} happened"
        met = first.fired + second.fired + store.crashed
        faults.clear()
        check(submission)
        record_faults(submission.here.tuner.provider, met)
