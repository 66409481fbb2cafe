"""Submission and waiting: one request that may create, whatever happens around it, and events that are told once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_ledger import FAILED, QUICK, ROWS, RUNNING, SUCCEEDED, MemoryStore, MemoryTuner, entry_in, intent_of, order_of, submitted
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import EnvironmentLacks, NeedsReconciliation, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers import submission
from prooftune.providers.collection import failed
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import POLLS_FAILED_AT_MOST, Patience, Rows, follow, look, submit
from prooftune.providers.tuning import Event, Files, Job
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore

UNKNOWN = OutcomeUnknown("no answer")
LOSSES = [Event(id=f"event-{step}", at=None, text=f"step {step}", metrics={"step": step, "train_loss": 1 / step}) for step in range(1, 7)]


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger in memory."""
    return Ledger(MemoryStore())


@pytest.fixture
def tuner() -> MemoryTuner:
    """A provider in memory that takes no idempotency key."""
    return MemoryTuner()


def test_one_order_is_one_request(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Files are uploaded and the job is created once; the same command again sends nothing."""
    entry = submitted(tuner, ledger)
    assert (entry.state, entry.job, entry.files) == ("submitted", tuner.jobs[0], Files(train="file-train", validation="file-validation"))
    assert [note.what for note in entry.history] == ["intended", "files uploaded", "submitting", "created: job-1"]
    assert submitted(tuner, ledger) == entry
    assert (tuner.requests, tuner.uploads) == (1, 2)


def test_two_runs_at_once_make_one_job(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Thirty times two processes submit the same order at the same moment: both get the one job."""
    for seed in range(30):
        found: list[str] = []
        start = threading.Barrier(2)

        def run(seed: int = seed, start: threading.Barrier = start, found: list[str] = found) -> None:
            start.wait()
            job = submit(tuner, ledger, intent_of(order_of(seed)), ROWS, Patience(0.001, 0.002, search_s=5, request_s=5)).job
            assert job is not None
            found.append(job.id)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [f"job-{seed + 1}"] * 2
    assert tuner.requests == 30


def test_another_process_that_is_at_it_is_waited_for(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Its request takes a while; the job that comes of it is this run's job, and no second request is sent."""
    entry = entry_in(ledger, "submitting", order_of())
    thread = threading.Timer(0.1, lambda: ledger.found(entry.key, RUNNING, "created"))
    thread.start()
    entry = submitted(tuner, ledger, Patience(0.01, 0.02, search_s=60, request_s=60))
    assert (entry.job, entry.state, tuner.requests) == (RUNNING, "submitted", 0)  # not parked: its patience was not used up


def test_another_process_whose_request_was_refused_leaves_the_order_free(tuner: MemoryTuner, ledger: Ledger) -> None:
    """The claim that was waited for ended without a job: this call says so, and the next one creates."""
    entry = entry_in(ledger, "submitting", order_of())
    thread = threading.Timer(0.05, lambda: ledger.unclaim(entry.key, "first", "SpecError"))
    thread.start()
    with pytest.raises(TransientError, match="may be submitted again"):
        submitted(tuner, ledger, Patience(0.01, 0.02, search_s=10, request_s=10))
    assert submitted(tuner, ledger).job == tuner.jobs[0]


def test_a_live_claim_is_given_the_time_of_a_request(ledger: Ledger, tuner: MemoryTuner) -> None:
    """An order that another run claims is parked only when its request is surely over and the lists had time to show a job."""
    entry_in(ledger, "submitting", order_of())
    started = time.monotonic()
    with pytest.raises(NeedsReconciliation):
        submitted(tuner, ledger, Patience(0.01, 0.02, search_s=0.1, request_s=0.2))
    assert time.monotonic() - started >= 0.3
    assert ledger.read(order_of().key).state == "needs_reconciliation"


@pytest.mark.parametrize("made", ["before", "after"])
def test_a_request_without_an_answer_is_searched_for_and_never_repeated(tuner: MemoryTuner, ledger: Ledger, made: str) -> None:
    """A job that turns up is adopted; where none does the order waits for a person, and further calls send nothing."""
    tuner.creates = [(made, UNKNOWN)]  # type: ignore[list-item]  # one of the two words
    if made == "after":
        assert submitted(tuner, ledger).history[-1].what == "adopted: job-1"
        return
    for _ in range(3):
        with pytest.raises(NeedsReconciliation) as told:
            submitted(tuner, ledger)
    key = order_of().key
    for words in (key, "might pay twice", f"jobs reconcile {key} --job ID", f"jobs reconcile {key} --none"):
        assert words in str(told.value)
    assert told.value.exit_code == 3
    assert (tuner.requests, ledger.read(key).state) == (1, "needs_reconciliation")
    ledger.release(key, "ann", "the console shows none")
    assert submitted(tuner, ledger).job == tuner.jobs[0]
    assert tuner.requests == 2


def test_a_parked_order_adopts_the_job_that_turns_up_late(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Lists that lagged show it a day later: the same command goes on by itself."""
    tuner.creates, tuner.hidden = [("after", UNKNOWN)], True
    with pytest.raises(NeedsReconciliation):
        submitted(tuner, ledger)
    tuner.hidden = False
    entry = submitted(tuner, ledger)
    assert (entry.job, entry.state, tuner.requests) == (tuner.jobs[0], "submitted", 1)


@pytest.mark.parametrize("made", ["before", "after"])
def test_a_provider_with_idempotency_keys_is_asked_again(tuner: MemoryTuner, ledger: Ledger, made: str) -> None:
    """Nobody has to look: the same request under the same key gives the job there is, or makes the first one."""
    tuner.creates_once, tuner.hidden = True, True
    tuner.creates = [(made, UNKNOWN), (made, UNKNOWN)]  # type: ignore[list-item]  # one of the two words
    assert submitted(tuner, ledger, Patience(0.001, 0.002, search_s=5)).job == tuner.jobs[0]
    assert (tuner.requests, len(tuner.jobs)) == (3, 1)


def test_a_dead_run_at_a_provider_with_idempotency_keys_is_taken_over_at_once(tuner: MemoryTuner, ledger: Ledger) -> None:
    """There is no need to wait for its request to be over."""
    tuner.creates_once = True
    entry_in(ledger, "submitting", order_of())
    started = time.monotonic()
    assert submitted(tuner, ledger, Patience(60, 60, search_s=600, request_s=600)).job == tuner.jobs[0]
    assert time.monotonic() - started < 45  # less than one pause


def test_a_provider_with_idempotency_keys_that_stays_silent_is_asked_later(tuner: MemoryTuner, ledger: Ledger) -> None:
    """That is no matter for a person: the same command asks again."""
    tuner.creates_once, tuner.creates = True, [("before", UNKNOWN)] * 1000
    with pytest.raises(TransientError, match="run the same command again") as told:
        submitted(tuner, ledger)
    assert not isinstance(told.value, OutcomeUnknown)
    tuner.creates = []
    assert submitted(tuner, ledger).job == tuner.jobs[0]


@pytest.mark.parametrize("error", [SpecError("no such model"), EnvironmentLacks("no credit"), TransientError("rate limit")])
def test_a_refusal_leaves_the_order_free(tuner: MemoryTuner, ledger: Ledger, error: ProoftuneError) -> None:
    """The provider surely made nothing: the error is told as it is, and the next call may create."""
    tuner.creates = [("before", error)]
    with pytest.raises(type(error)):
        submitted(tuner, ledger)
    entry = ledger.read(order_of().key)
    assert (entry.state, entry.holder) == ("intended", "")
    assert f"no job was made: {type(error).__name__}" in [note.what for note in entry.history]
    assert submitted(tuner, ledger).job == tuner.jobs[0]


def test_a_job_that_is_older_than_the_ledger_is_adopted(tuner: MemoryTuner, ledger: Ledger) -> None:
    """The store was lost, or is another one: what the provider has is not ordered a second time."""
    tuner.jobs = [RUNNING.model_copy(update={"key": order_of().key})]
    assert submitted(tuner, ledger).job == tuner.jobs[0]
    assert tuner.requests == 0


def test_two_jobs_of_one_order_are_for_a_person(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Both are named; once one is cancelled, or a person says which one counts, the same command goes on."""
    key = order_of().key
    one, other = (RUNNING.model_copy(update={"id": name, "key": key}) for name in ("job-1", "job-2"))
    tuner.jobs = [one, other]
    with pytest.raises(NeedsReconciliation, match=r"job-1, job-2.*reconcile") as told:
        submitted(tuner, ledger)
    assert key in str(told.value)
    ledger.said(key, other, "ann", "the newer one")
    assert submitted(tuner, ledger).job == other
    assert tuner.requests == 0


def test_a_store_that_fails_after_the_job_was_made_forgets_no_job(tuner: MemoryTuner) -> None:
    """The ledger could not be written; the next call finds the job at the provider."""
    store = MemoryStore()
    store.next_puts = ["fine", "fine", "fine", "failed"]
    with pytest.raises(TransientError):
        submitted(tuner, Ledger(store))
    assert len(tuner.jobs) == 1
    assert submitted(tuner, Ledger(store)).job == tuner.jobs[0]
    assert tuner.requests == 1


class Listener:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.events: list[str] = []

    def __call__(self, job: Job, events: list[Event]) -> None:
        self.words.append(job.told)
        self.events += [event.id for event in events]


def test_events_are_told_once_over_restarts(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Each event in its order, though the run ends in between, lists come twice, and a store write fails."""
    entry = entry_in(ledger, "submitted", order_of())
    heard = Listener()
    tuner.asked = [RUNNING]
    tuner.told = LOSSES[:2]
    assert follow(tuner, ledger, entry.key, heard, hold_s=0, patience=QUICK).state == "submitted"
    tuner.told = LOSSES[:4]
    follow(tuner, ledger, entry.key, heard, hold_s=0.01, patience=QUICK)
    store = ledger._store
    assert isinstance(store, MemoryStore)
    store.next_puts = ["failed", "lost"]
    tuner.told, tuner.asked = LOSSES, [RUNNING, RUNNING, SUCCEEDED]
    ended = follow(tuner, ledger, entry.key, heard, patience=QUICK)
    assert heard.events == [event.id for event in LOSSES]
    assert (ended.state, ended.job, ended.last_event) == ("ended", SUCCEEDED, LOSSES[-1].id)
    assert heard.words[-1] == "succeeded"
    follow(tuner, ledger, entry.key, heard, patience=QUICK)
    assert len(heard.events) == len(LOSSES)


def test_a_look_to_which_nobody_listens_takes_no_event_away(tuner: MemoryTuner, ledger: Ledger) -> None:
    """`prooftune jobs --refresh` beside a run that waits: the run still hears of everything."""
    entry = entry_in(ledger, "submitted", order_of())
    tuner.asked, tuner.told = [SUCCEEDED], LOSSES
    assert look(tuner, ledger, entry).state == "ended"
    heard = Listener()
    follow(tuner, ledger, entry.key, heard, patience=QUICK)
    assert heard.events == [event.id for event in LOSSES]


def test_waiting_goes_on_after_failures_and_gives_up_in_the_end(tuner: MemoryTuner, ledger: Ledger) -> None:
    """Fewer failures in a row than the limit are passed over, however often; as many as the limit are told."""
    entry = entry_in(ledger, "submitted", order_of())
    silence: list[Job | Exception] = [TransientError("503")] * (POLLS_FAILED_AT_MOST - 1)
    tuner.asked = [*silence, RUNNING, *silence, SUCCEEDED]
    assert follow(tuner, ledger, entry.key, Listener(), patience=QUICK).state == "ended"
    other = entry_in(ledger, "submitted", order_of(8))
    tuner.asked = [*silence, TransientError("the last"), RUNNING]
    with pytest.raises(TransientError, match="the last"):
        follow(tuner, ledger, other.key, Listener(), patience=QUICK)
    tuner.asked = [EnvironmentLacks("the key is not accepted"), RUNNING]
    with pytest.raises(EnvironmentLacks):
        follow(tuner, ledger, other.key, Listener(), patience=QUICK)


@pytest.mark.parametrize("silent", [False, True])
def test_a_run_holds_on_no_longer_than_it_may(tuner: MemoryTuner, ledger: Ledger, silent: bool) -> None:
    """After hold_s the entry is returned as it is, and pauses are cut to what is left; the job goes on without us."""
    entry = entry_in(ledger, "submitted", order_of())
    tuner.asked = [TransientError("503")] if silent else [RUNNING]
    started = time.monotonic()
    held = follow(tuner, ledger, entry.key, Listener(), hold_s=0.1, patience=Patience(first_pause_s=60, longest_pause_s=60))
    assert (held.state, held.job) == ("submitted", RUNNING)
    assert time.monotonic() - started < 30  # less than the shortest pause there is without a cut


def test_the_name_of_a_model_is_waited_for(tuner: MemoryTuner, ledger: Ledger) -> None:
    """A job is shown as succeeded a moment before its model is: waiting ends with the name, and an entry without one is looked at again."""
    nameless = SUCCEEDED.model_copy(update={"model": None})
    entry = entry_in(ledger, "submitted", order_of())
    tuner.asked = [nameless, nameless, SUCCEEDED]
    assert follow(tuner, ledger, entry.key, Listener(), patience=QUICK).job == SUCCEEDED
    ended = ledger.said(entry.key, nameless.model_copy(update={"id": "job-2"}), "ann", "the console shows it")
    assert (ended.state, ended.job and ended.job.model) == ("ended", None)
    tuner.asked = [SUCCEEDED.model_copy(update={"id": "job-2"})]
    assert submitted(tuner, ledger).job == tuner.asked[0]


def test_an_unknown_word_is_waited_for(tuner: MemoryTuner, ledger: Ledger) -> None:
    """A status that no table has is no end."""
    entry = entry_in(ledger, "submitted", order_of())
    tuner.asked = [RUNNING.model_copy(update={"status": "unknown", "told": "reticulating"}), SUCCEEDED]
    ended = follow(tuner, ledger, entry.key, Listener(), patience=QUICK)
    assert [note.what for note in ended.history[-2:]] == ["seen: reticulating", "seen: succeeded"]


def test_an_order_without_a_job_cannot_be_looked_at(tuner: MemoryTuner, ledger: Ledger) -> None:
    """That is a fault of the caller's, and said so."""
    with pytest.raises(ValueError, match="has no job"):
        look(tuner, ledger, entry_in(ledger, "intended", order_of()))


def test_pauses_grow_to_the_longest_and_stay_there() -> None:
    """Also after a week of looking, in which 1.5 to the number of looks outgrows a float."""
    patience = Patience()
    assert 1.6 <= patience.pause(0) <= 2.4
    assert all(48 <= patience.pause(number) <= 72 for number in (20, 2_000, 10**6))


def test_a_failed_job_is_told_with_what_to_do() -> None:
    """Provider, base model, job, its own words, and the command that lets it be tried again."""
    entry = intent_of(order_of()).noted("created: job-1", job=FAILED, state="ended")
    told = str(failed(entry))
    for words in ("openai made no model of gpt-4.1-mini", "job-1 is failed: row 7 is too long", f"`prooftune jobs again {entry.key}"):
        assert words in told
    assert "no reason given" in str(failed(entry.model_copy(update={"job": FAILED.model_copy(update={"error": ""})})))
    assert failed(entry).exit_code == 1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """OpenAI's stand-in."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in("openai", tmp_path, monkeypatch) as found:
        yield found


SUBMIT = """
import sys
from pathlib import Path
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Rows, submit
from prooftune.providers.tuning import Order, open_tuner
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore

order, options = Order.model_validate_json(sys.argv[1]), Provider(base_url=sys.argv[2])
intent = Entry(order=order, run="triage-0", options=options)
submit(open_tuner("openai", options), Ledger(LocalStore(Path(sys.argv[3]))), intent, Rows(Path(sys.argv[4])))
"""


@pytest.mark.parametrize("lag", [0, 2])
def test_a_process_killed_while_it_creates_the_job(here: StandIn, tmp_path: Path, lag: int) -> None:
    """SIGKILL while the request is under way: the next run adopts the job that came of it, also where lists show it late."""
    rows = here.rows()
    order, store = here.order(rows), LocalStore(tmp_path / "store")
    fault = here.api.faults.order("timeout_after", "create_job", value="60")
    command = [sys.executable, "-c", SUBMIT, order.model_dump_json(), here.tuner.address, str(store.root), str(rows)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: here.jobs == 1 or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert (process.returncode, fault.fired) == (-signal.SIGKILL, 1)
    assert Ledger(store).read(order.key).state == "submitting"

    late = here.api.faults.order("stale", "list_jobs", times=lag)
    intent = Entry(order=order, run="triage-0", options=Provider(base_url=here.tuner.address))
    entry = submit(here.tuner, Ledger(store), intent, Rows(rows), Patience(0.01, 0.05, search_s=20))
    assert entry.job is not None
    assert (entry.job.id, entry.history[-1].what) == (next(iter(here.api.works.jobs)), f"adopted: {entry.job.id}")  # type: ignore[attr-defined]
    assert (here.jobs, late.fired) == (1, lag)
    assert [name for name, _, _ in here.api.seen].count("create_job") == 1


def test_a_job_at_a_stand_in_from_order_to_end(here: StandIn, tmp_path: Path) -> None:
    """Submitted, followed and ended, with the losses of its events told once."""
    rows = here.rows()
    ledger, heard = Ledger(LocalStore(tmp_path / "store")), Listener()
    entry = submit(here.tuner, ledger, Entry(order=here.order(rows), run="triage-0"), Rows(rows), QUICK)
    ended = follow(here.tuner, ledger, entry.key, heard, patience=QUICK)
    assert ended.job is not None
    assert ended.job.status == "succeeded"
    assert len(heard.events) == len(set(heard.events)) >= 4
    assert submit(here.tuner, ledger, Entry(order=here.order(rows), run="triage-1"), Rows(rows), QUICK) == ended


def wait_for(done: object, within_s: float = 60.0) -> None:
    """Wait until ``done()`` is true."""
    assert callable(done)
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < within_s, "it did not come about"
        time.sleep(0.01)


def test_the_usual_patience_covers_a_request_and_lists_that_lag() -> None:
    """Another run's request may begin some time after its claim, and be under way as long as one may take; then lists get minutes."""
    from prooftune.providers.calls import TIMEOUT_S

    assert submission.PATIENCE.request_s >= submission.PATIENCE.claim_s + TIMEOUT_S
    assert submission.PATIENCE.search_s >= 60
