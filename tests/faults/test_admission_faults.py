"""Signals that are doubled, late and replayed, holders that die and come back, clocks that differ: what never happens all the same."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_ledger import MemoryStore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from prooftune.economics import spending
from prooftune.errors import TransientError
from prooftune.retraining.admission import RESTARTS, admit
from prooftune.retraining.claims import finish, note_run, read_retrains, renew
from prooftune.retraining.holding import holding
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage import leases
from prooftune.storage.leases import DEAD_AFTER_S, SKEW_S
from prooftune.storage.local import LocalStore
from prooftune.watching.signals import Signal

START = datetime(2026, 11, 2, tzinfo=UTC)
COOL_DOWN_H, BUDGET_USD = 6.0, 25.0
DUPLICATES, PROCESSES = 200, 8


def spec_of(task: str = "toy") -> RunSpec:
    """Return a spec with a cool-down and a budget."""
    retrain = {"cool_down_hours": COOL_DOWN_H, "monthly_usd": BUDGET_USD}
    fields = {"name": task, "data": {"source": "x.jsonl"}, "backend": {"provider": "openai", "model": "gpt-4.1"}, "retrain": retrain}
    return parse_spec(fields | {"learning_curve": {"shares": []}})


def signal_of(digest: str) -> Signal:
    """Return a signal."""
    return Signal(kind="data", task="toy", digest=digest, reason="new examples", at=START.isoformat())


@dataclass
class Holder:
    """A process that was told to start: it renews its lease while it lives, and believes that it runs until it hears otherwise."""

    digest: str
    token: int
    skew: timedelta
    began: datetime
    heard: datetime
    """Last renewal that was taken, by the true clock."""
    silent: bool = False
    """Crashed, or cut off from the store."""


class Signals(RuleBasedStateMachine):
    """Any interleaving of signals, renewals, crashes, comings-back, ends, and the passing of time."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.store, self.now, self.names = MemoryStore(), START, 0
        self.spec = spec_of()
        self.living: list[Holder] = []
        self.starts: dict[str, list[datetime]] = {}
        self.ended: dict[str, str] = {}
        self.last_start: datetime | None = None

    @rule(
        target=holders,
        digest=st.sampled_from(["d1", "d2", "d3"]),
        skew=st.integers(-150, 150),
        usd=st.integers(0, 15),
    )
    def signal(self, digest: str, skew: int, usd: int) -> Holder | None:
        """A process on a host with a clock of its own hears of an occurrence, for the first time, again, or however late."""
        self.names += 1
        by_its_clock = self.now + timedelta(seconds=skew)
        told = admit(self.store, self.spec, signal_of(digest), f"holder {self.names}", by_its_clock)
        again = admit(self.store, self.spec, signal_of(digest), f"holder {self.names}", by_its_clock)
        assert (again.decision, again.token) == (told.decision, told.token), "asking again has the same answer"
        if told.decision != "start":
            return None
        assert told.token is not None
        assert digest not in self.ended, "what is finished is never started again"
        self._cool_down_and_budget_are_kept(digest, skew)
        self.starts.setdefault(digest, []).append(self.now)
        self.last_start = self.now
        holder = Holder(digest, told.token, timedelta(seconds=skew), self.now, self.now)
        self.living.append(holder)
        run = f"toy-{digest}"
        assert note_run(self.store, "toy", told.token, run)
        assert told.left_usd is not None
        spending.hold(self.store, "default", run, min(usd, told.left_usd), None, now=self.now)
        return holder

    def _cool_down_and_budget_are_kept(self, digest: str, skew: int) -> None:
        resumed = 0 < len(self.starts.get(digest, ())) < RESTARTS
        others = [at for other, times in self.starts.items() if other != digest or not resumed for at in times]
        # A clock that is ahead of the one that wrote the start down ends the cool-down earlier by as much.
        slack = timedelta(seconds=abs(skew) + 150)
        assert all(self.now - at >= timedelta(hours=COOL_DOWN_H) - slack for at in others)

    @rule(seconds=st.sampled_from([30, 300, 601, 1200, 7 * 3600]))
    def time_passes(self, seconds: int) -> None:
        """Living holders renew every minute meanwhile; those that are silent do not."""
        end = self.now + timedelta(seconds=seconds)
        for holder in self.living:
            if not holder.silent:
                assert renew(self.store, "toy", holder.token, end + holder.skew), "a living holder is never taken for dead"
                holder.heard = end
        self.now = end

    @rule(holder=holders)
    def dies(self, holder: Holder | None) -> None:
        """A holder crashes, or its host loses the store."""
        if holder is not None:
            holder.silent = True

    @rule(holder=holders)
    def comes_back(self, holder: Holder | None) -> None:
        """A holder that was only asleep renews its lease, and hears whether it still may."""
        if holder is None or holder not in self.living:
            return
        if renew(self.store, "toy", holder.token, self.now + holder.skew):
            holder.silent, holder.heard = False, self.now
        else:
            self.living.remove(holder)

    @rule(holder=consumes(holders), outcome=st.sampled_from(["promote", "keep_baseline", "do_not_fine_tune"]))
    def ends(self, holder: Holder | None, outcome: str) -> None:
        """A holder writes down what came of it, in time or as a ghost."""
        if holder is None or holder not in self.living:
            return
        if finish(self.store, "toy", holder.token, outcome):
            assert self.ended.setdefault(holder.digest, outcome) == outcome
        self.living.remove(holder)

    @invariant()
    def never_two_at_once(self) -> None:
        """Of those whose renewal was taken within ten minutes there is at most one, by the true clock."""
        running = [holder for holder in self.living if self.now - holder.heard < timedelta(seconds=DEAD_AFTER_S)]
        assert len(running) <= 1

    @invariant()
    def the_budget_is_kept(self) -> None:
        """Whatever was held for retrainings, it is within the month's limit."""
        assert spending.read_month(self.store, "default", "2026-11").usd <= BUDGET_USD or self.now.month != START.month

    @invariant()
    def what_is_finished_stays_so(self) -> None:
        """No later signal, renewal or ghost changes how an occurrence ended."""
        kept = {claim.digest: claim.outcome for claim in read_retrains(self.store, "toy").claims if claim.state == "finished"}
        assert kept == self.ended


Signals.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_any_interleaving = Signals.TestCase


def _told(folder: str, digest: str, holder: str) -> str:
    return admit(LocalStore(Path(folder)), spec_of(), signal_of(digest), holder, START).decision


def _signals(folder: str, digest: str, holders: list[str], now: datetime) -> Counter[str]:
    """What a process with its own view of the store is told, holder by holder."""
    store, spec = LocalStore(Path(folder)), spec_of()
    return Counter(admit(store, spec, signal_of(digest), holder, now).decision for holder in holders)


def test_200_duplicates_from_8_threads_start_one() -> None:
    """One occurrence signalled 200 times at once is one start, on one host."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:
        told = Counter(pool.map(lambda holder: _told(folder, "d1", f"{holder}"), range(DUPLICATES)))
    assert told == {"start": 1, "duplicate": DUPLICATES - 1}


@pytest.mark.slow
def test_200_duplicates_from_8_processes_start_one() -> None:
    """One occurrence signalled 200 times, from eight processes at once: one start, and 199 duplicates. Replayed days later: none."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        shares = [[f"{process}-{number}" for number in range(DUPLICATES // PROCESSES)] for process in range(PROCESSES)]
        told: Counter[str] = sum(pool.starmap(_signals, [(folder, "d1", share, START) for share in shares]), Counter())
        assert told == {"start": 1, "duplicate": DUPLICATES - 1}
        [claim] = read_retrains(LocalStore(Path(folder)), "toy").claims
        assert finish(LocalStore(Path(folder)), "toy", claim.token, "promote")
        later = [(folder, "d1", share, START + timedelta(days=9)) for share in shares]
        assert sum(pool.starmap(_signals, later), Counter()) == {"duplicate": DUPLICATES}
    print(f"\n{DUPLICATES} signals from {PROCESSES} processes: {told['start']} start; replayed after it ended: 0 starts")  # noqa: T201


def test_a_start_whose_answer_got_lost_is_known_again() -> None:
    """The store took the write and its answer was lost: the holder is told to start all the same, and nobody else is."""
    store, spec = MemoryStore(), spec_of()
    store.next_puts = ["lost"]
    told = admit(store, spec, signal_of("d1"), "a", START)
    assert store.next_puts == [], "the answer was to get lost"
    assert told.decision == "start"
    assert admit(store, spec, signal_of("d1"), "b", START).decision == "duplicate"


def test_a_store_that_is_away_starts_nothing() -> None:
    """The signal's run fails for now and may be tried again; no claim was written."""
    store, spec = MemoryStore(), spec_of()
    store.next_puts = ["failed"]
    with pytest.raises(TransientError):
        admit(store, spec, signal_of("d1"), "a", START)
    assert read_retrains(store, "toy").claims == ()


def test_a_holder_without_the_store_hears_that_it_lost_its_lease() -> None:
    """Its renewals failed for long, another took over, and the first one that gets through tells it so."""
    store, spec = MemoryStore(), spec_of()
    old = admit(store, spec, signal_of("d1"), "a", START)
    new = admit(store, spec, signal_of("d1"), "b", START + timedelta(seconds=DEAD_AFTER_S + SKEW_S))
    assert (old.token, new.token) == (1, 2)
    with leases.kept_renewed("toy", lambda: renew(store, "toy", 1), every_s=0.01) as lost:
        assert lost.wait(10)


def test_a_block_that_fails_ends_the_attempt() -> None:
    """Its error is what is raised, and the claim says it; the signal may start again after the cool-down."""
    store = MemoryStore()
    told = admit(store, spec_of(), signal_of("d1"), "a", START)
    with pytest.raises(ValueError, match="no good"), holding(store, "toy", told.token or 0):
        raise ValueError("no good\nand more")
    [claim] = read_retrains(store, "toy").claims
    assert (claim.state, claim.outcome) == ("failed", "ValueError: no good")


def test_a_block_that_is_interrupted_hands_over_at_once() -> None:
    """A worker that is told to stop lets the lease lapse: its successor need not wait for it, and resumes."""
    store = MemoryStore()
    told = admit(store, spec_of(), signal_of("d1"), "a", START)
    with pytest.raises(KeyboardInterrupt), holding(store, "toy", told.token or 0):
        raise KeyboardInterrupt
    successor = admit(store, spec_of(), signal_of("d1"), "b", START + timedelta(seconds=1))
    assert (successor.decision, successor.resumes) == ("start", True)


def test_a_failure_is_told_also_where_it_cannot_be_noted() -> None:
    """What went wrong first is raised, though the store is away by then."""
    store = MemoryStore()
    told = admit(store, spec_of(), signal_of("d1"), "a", START)
    store.next_puts = ["failed"]
    with pytest.raises(ValueError, match="no good"), holding(store, "toy", told.token or 0):
        raise ValueError("no good")
    assert store.next_puts == [], "the note was to fail"
