"""The ledger: who may create a job, and that a job which is known is never forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fixtures_ledger import FAILED, RUNNING, STATES, SUCCEEDED, MemoryStore, entry_in, intent_of, order_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prooftune.errors import IntegrityError, NeedsReconciliation, SpecError, TransientError
from prooftune.providers import ledger as ledger_module
from prooftune.providers.ledger import Entry, Ledger, key_of
from prooftune.providers.tuning import Files, Job, Order
from prooftune.storage.objects import NoSuchObject

Step = Callable[[Ledger, Entry], Entry]


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def ledger(store: MemoryStore) -> Ledger:
    """The store's ledger."""
    return Ledger(store)


STEPS: dict[str, tuple[Step, dict[str, str]]] = {
    "claim": (lambda ledger, entry: ledger.claim(entry.key, "second"), {"intended": "submitting"}),
    "unclaim by who claimed": (lambda ledger, entry: ledger.unclaim(entry.key, "first", "refused"), {"submitting": "intended"}),
    "unclaim by another": (lambda ledger, entry: ledger.unclaim(entry.key, "second", "refused"), {}),
    "a job that runs": (
        lambda ledger, entry: ledger.found(entry.key, RUNNING, "adopted"),
        {"intended": "submitted", "submitting": "submitted", "needs_reconciliation": "submitted"},
    ),
    "a job that succeeded": (
        lambda ledger, entry: ledger.found(entry.key, SUCCEEDED, "adopted"),
        dict.fromkeys(("intended", "submitting", "submitted", "failed", "needs_reconciliation"), "ended"),
    ),
    "another job": (
        lambda ledger, entry: ledger.found(entry.key, RUNNING.model_copy(update={"id": "job-2"}), "adopted"),
        {"intended": "submitted", "submitting": "submitted", "needs_reconciliation": "submitted"}
        | dict.fromkeys(("submitted", "ended", "failed"), "NeedsReconciliation"),
    ),
    "a person names another job": (
        lambda ledger, entry: ledger.said(entry.key, RUNNING.model_copy(update={"id": "job-2"}), "ann", "I cancelled the other"),
        dict.fromkeys(STATES, "submitted"),
    ),
    "park what moved on": (
        lambda ledger, entry: ledger.park(entry.key, intent_of(entry.order).noted("x", holder="y"), "nothing found"),
        {},
    ),
    "release": (
        lambda ledger, entry: ledger.release(entry.key, "ann", "the console shows none"),
        {"needs_reconciliation": "intended"} | dict.fromkeys(("intended", "submitting", "submitted", "ended", "failed"), "SpecError"),
    ),
    "again": (
        lambda ledger, entry: ledger.again(entry.key, "ann", "the row is corrected"),
        {"failed": "intended"} | dict.fromkeys(("intended", "submitting", "submitted", "ended", "needs_reconciliation"), "SpecError"),
    ),
}
"""What each step makes of an entry: the state after it, or the error; a state that is not named stays as it is."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", STEPS)
def test_every_step_from_every_state(ledger: Ledger, name: str, state: str) -> None:
    """The whole table of transitions: those allowed, those that change nothing, and those refused without a change."""
    before = entry_in(ledger, state, order_of())
    step, outcomes = STEPS[name]
    expected = outcomes.get(state, before.state)
    if expected in ("SpecError", "NeedsReconciliation"):
        with pytest.raises({"SpecError": SpecError, "NeedsReconciliation": NeedsReconciliation}[expected]):
            step(ledger, before)
        assert ledger.read(before.key) == before
        return
    after = step(ledger, before)
    assert after.state == expected
    assert ledger.read(after.key) == after
    assert (after.holder == "") == (after.state not in ("submitting", "needs_reconciliation"))
    if name != "again":
        assert after.history[: len(before.history)] == before.history
        assert (after == before) == (len(after.history) == len(before.history))


def test_what_waits_for_a_request_is_parked_unless_it_moved_on(ledger: Ledger) -> None:
    """Only the claim that was looked at is parked: a job that turned up meanwhile, or another claim, is left."""
    seen = entry_in(ledger, "submitting", order_of())
    ledger.unclaim(seen.key, "first", "refused")
    ledger.claim(seen.key, "second")
    assert ledger.park(seen.key, seen, "nothing found").holder == "second"
    parked = ledger.park(seen.key, ledger.read(seen.key), "nothing found")
    assert (parked.state, parked.history[-1].what) == ("needs_reconciliation", "needs reconciliation: nothing found")


def test_a_job_that_has_ended_stays_so(ledger: Ledger) -> None:
    """A replica that lags shows it as running again; its model is not forgotten."""
    ended = entry_in(ledger, "ended", order_of())
    late = ledger.found(ended.key, RUNNING, "seen")
    assert (late.state, late.job) == ("ended", SUCCEEDED)


def test_a_model_that_is_named_late_is_waited_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that succeeded and shows no model goes on for a while; its name ends it, and so does the time. A name is not lost again."""
    nameless = SUCCEEDED.model_copy(update={"model": None})
    for seed, within_s, outcome in ((1, ledger_module.NAMED_WITHIN_S, "submitted"), (2, 0.0, "ended")):
        monkeypatch.setattr(ledger_module, "NAMED_WITHIN_S", within_s)
        key = entry_in(ledger, "submitted", order_of(seed)).key
        seen = ledger.found(key, nameless, "seen")
        assert (seen.state, seen.history[-1].what) == ("submitted", "seen: succeeded")
        assert ledger.found(key, nameless, "seen").state == outcome
        assert ledger.found(key, SUCCEEDED, "seen").job == SUCCEEDED
        ended = ledger.read(key)
        assert ended.state == "ended"
        assert ledger.found(key, nameless, "seen") == ended


def test_words_of_the_provider_are_noted_once_each(ledger: Ledger) -> None:
    """Every new status is a line of history with how it became known; the same one seen again is none."""
    key = entry_in(ledger, "submitted", order_of()).key
    for _ in range(3):
        ledger.found(key, RUNNING.model_copy(update={"told": "validating"}), "seen")
    last = ledger.found(key, FAILED.model_copy(update={"told": "cancelled"}), "cancelled by ann")
    assert [note.what for note in last.history[2:]] == ["created: job-1", "seen: validating", "cancelled by ann: cancelled"]


def test_of_two_threads_one_may_create(ledger: Ledger) -> None:
    """Fifty times two runs claim the same order at the same moment: exactly one of them finds its own name in the answer."""
    for seed in range(50):
        key = ledger.open(intent_of(order_of(seed))).key
        start, won = threading.Barrier(2), list[bool]()

        def claim(me: str, key: str = key, start: threading.Barrier = start, won: list[bool] = won) -> None:
            start.wait()
            won.append(ledger.claim(key, me).holder == me)

        threads = [threading.Thread(target=claim, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, True]


def test_an_entry_is_found_again_by_its_order(ledger: Ledger) -> None:
    """An intent is written once; whoever comes later gets what was written, and what differs between runs does not count."""
    first = ledger.open(intent_of(order_of()))
    again = ledger.open(intent_of(order_of()).model_copy(update={"run": "another", "estimate_usd": 9.0}))
    assert again == first
    assert [entry.key for entry in ledger.entries()] == [first.key]
    assert ledger.open(intent_of(order_of(seed=8))).key != first.key


def test_files_of_who_uploads_first_count(ledger: Ledger) -> None:
    """A job is known again by its files, so they do not change."""
    key = ledger.open(intent_of(order_of())).key
    with pytest.raises(ValueError, match="no uploaded files"):
        _ = ledger.read(key).files_uploaded
    ledger.uploaded(key, Files(train="first"))
    assert ledger.uploaded(key, Files(train="second")).files_uploaded == Files(train="first")


@pytest.mark.parametrize("key", ["../../etc/passwd", "prooftune-", "prooftune-0a/../x", "other-0a1b", "prooftune-é", "", "prooftune-0a\n"])
def test_what_cannot_be_a_run_key_is_refused(ledger: Ledger, key: str) -> None:
    """A key becomes a path: what comes from the command line leads nowhere else."""
    with pytest.raises(SpecError, match="is no run key"):
        ledger.read(key)


def test_an_unknown_key_leads_to_the_list(ledger: Ledger) -> None:
    """A typo is answered with the command that lists the keys."""
    with pytest.raises(NoSuchObject, match="`prooftune jobs` lists"):
        ledger.read(order_of().key)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"run": "x"}', None])
def test_a_damaged_entry_is_told(ledger: Ledger, store: MemoryStore, damage: bytes | None) -> None:
    """Bytes that are no entry, an unknown state, and an entry under another's name: nothing is guessed, and nothing is written."""
    entry = entry_in(ledger, "submitted", order_of())
    place = key_of(entry.key)
    store.objects[place] = damage if damage is not None else key_swapped(store.objects[place])
    before = dict(store.objects)
    for call in (lambda: ledger.read(entry.key), lambda: ledger.claim(entry.key, "me"), lambda: ledger.open(intent_of(order_of()))):
        with pytest.raises(IntegrityError, match="restore it from a copy"):
            call()
    assert store.objects == before


def key_swapped(data: bytes) -> bytes:
    """Return the entry with another order."""
    return data.replace(b'"seed": 7', b'"seed": 8')


def test_a_run_key_lasts() -> None:
    """Orders that were placed keep their key in later versions, or their jobs would be ordered and paid for again.

    Where this fails, a field of ``Order`` or ``Hyperparameters`` was added or renamed: a new one needs the default None.
    """
    assert order_of().key == "prooftune-3c5dede05707fba88b12b459"


@pytest.mark.parametrize("lost", ["open", "claim", "unclaim", "found", "park", "release", "again"])
def test_an_answer_of_the_store_that_gets_lost(ledger: Ledger, store: MemoryStore, lost: str) -> None:
    """The write came through and its answer did not: the step has been done, once."""
    calls: dict[str, tuple[str, Step]] = {
        "claim": ("intended", lambda ledger, entry: ledger.claim(entry.key, "me")),
        "unclaim": ("submitting", lambda ledger, entry: ledger.unclaim(entry.key, "first", "refused")),
        "found": ("submitting", lambda ledger, entry: ledger.found(entry.key, RUNNING, "created")),
        "park": ("submitting", lambda ledger, entry: ledger.park(entry.key, entry, "nothing found")),
        "release": ("needs_reconciliation", lambda ledger, entry: ledger.release(entry.key, "ann", "none there")),
        "again": ("failed", lambda ledger, entry: ledger.again(entry.key, "ann", "corrected")),
    }
    if lost == "open":
        store.next_puts = ["lost"]
        entry = ledger.open(intent_of(order_of()))
    else:
        state, step = calls[lost]
        before = entry_in(ledger, state, order_of())
        store.next_puts = ["lost"]
        entry = step(ledger, before)
    assert not store.next_puts
    assert ledger.read(entry.key) == entry
    assert len({note.at + note.what for note in entry.history}) == len(entry.history)


@pytest.mark.parametrize("step", ["open", "claim", "again"])
def test_a_write_that_fails_is_worth_another_try(ledger: Ledger, store: MemoryStore, step: str) -> None:
    """Nothing was written, nothing is claimed, and the next call does it."""
    key = entry_in(ledger, "failed", order_of()).key
    call: Callable[[], Any] = {
        "open": lambda: ledger.open(intent_of(order_of(8))),
        "claim": lambda: ledger.claim(ledger.open(intent_of(order_of(9))).key, "me"),
        "again": lambda: ledger.again(key, "ann", "corrected"),
    }[step]
    if step == "claim":
        ledger.open(intent_of(order_of(9)))
    before = dict(store.objects)
    store.next_puts = ["failed"]
    with pytest.raises(TransientError):
        call()
    assert store.objects == before
    call()
    assert store.objects != before


def test_others_that_keep_changing_an_entry_end_in_an_error(ledger: Ledger, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a hundred lost races it is told, and not tried for ever."""
    monkeypatch.setattr("prooftune.storage.documents.time.sleep", lambda seconds: None)
    key = ledger.open(intent_of(order_of())).key

    def meanwhile(entry: Entry) -> Entry:
        store.objects[key_of(key)] += b"\n"
        return entry.noted("mine")

    with pytest.raises(TransientError, match="100 times in a row"):
        ledger.change(key, meanwhile)


class Runs(RuleBasedStateMachine):
    """Three runs, a person and a store that loses answers, in any order: at most one may create, and a known job stays known."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)
        self.order: Order = order_of()
        self.may_create: set[str] = set()
        self.seen: dict[str, Entry] = {}
        self.known: dict[str, Job] = {}
        self.history: dict[str, tuple[Any, ...]] = {}
        self.claims = 0
        self.ledger.open(intent_of(self.order))

    @property
    def entry(self) -> Entry:
        return self.ledger.read(self.order.key)

    def attempt(self, step: Callable[[], Entry]) -> Entry | None:
        try:
            return step()
        except (SpecError, NeedsReconciliation, TransientError):
            return None

    @rule(outcomes=st.lists(st.sampled_from(["fine", "lost", "failed"]), max_size=3))
    def misbehave(self, outcomes: list[Any]) -> None:
        """The store's next answers."""
        self.store.next_puts = outcomes

    @rule()
    def claim(self) -> None:
        """A run wants to submit."""
        self.claims += 1
        me = f"run-{self.claims}"
        entry = self.attempt(lambda: self.ledger.claim(self.order.key, me))
        if entry is not None and entry.holder == me:
            self.may_create.add(me)

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        """The provider refused a run's request, which ends its claim; or a dead one's holder says so late."""
        holder = data.draw(st.sampled_from(sorted(self.may_create) or ["nobody"]))
        # What it may do ends before the ledger says so: it creates nothing after it was refused.
        self.may_create.discard(holder)
        self.attempt(lambda: self.ledger.unclaim(self.order.key, holder, "refused"))

    @rule(job=st.sampled_from([RUNNING, SUCCEEDED, FAILED, RUNNING.model_copy(update={"id": "job-2"})]))
    def found(self, job: Job) -> None:
        """A job turned up, or was created."""
        self.attempt(lambda: self.ledger.found(self.order.key, job, "adopted"))

    @rule()
    def watch(self) -> None:
        """A run reads the entry, to park it later."""
        self.seen[self.order.key] = self.entry

    @rule()
    def park(self) -> None:
        """A run gives up looking for a job. By then the request is surely over."""
        seen = self.seen.get(self.order.key)
        if seen is not None and seen.state == "submitting":
            entry = self.attempt(lambda: self.ledger.park(self.order.key, seen, "nothing found"))
            if (entry or self.entry).state == "needs_reconciliation":
                self.may_create.clear()

    @rule()
    def release(self) -> None:
        """A person says that there is no job."""
        self.attempt(lambda: self.ledger.release(self.order.key, "ann", "none there"))

    @precondition(lambda self: self.entry.job is not None)
    @rule()
    def again(self) -> None:
        """A person wants a failed job done again."""
        entry = self.attempt(lambda: self.ledger.again(self.order.key, "ann", "corrected"))
        if entry is not None:
            assert self.entry.job is not None
            assert self.entry.job.status == "failed"
            self.order = entry.order
            self.may_create.clear()

    @invariant()
    def one_may_create(self) -> None:
        """Of all runs at most one."""
        entry = self.entry
        assert len(self.may_create) <= 1
        assert (entry.state == "submitting") == (entry.holder != "") or entry.state == "needs_reconciliation"

    @invariant()
    def what_is_known_stays(self) -> None:
        """The job, its end, and every line of history."""
        for entry in self.ledger.entries():
            before = self.known.get(entry.key)
            if before is not None:
                assert entry.job is not None
                assert entry.job.id == before.id
                assert entry.job.ended >= before.ended
            assert (entry.job is not None) == (entry.state in ("submitted", "ended"))
            assert (entry.state == "ended") == (entry.job is not None and entry.job.ended)
            if entry.job is not None:
                self.known[entry.key] = entry.job
            assert entry.history[: len(self.history.get(entry.key, ()))] == self.history.get(entry.key, ())
            self.history[entry.key] = entry.history


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
