"""The month's budget: held once, never above the limit, settled with the bill, whoever asks and however often."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fixtures_ledger import MemoryStore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from prooftune.economics.spending import BudgetExceeded, Item, find, hold, read_month, release, settle, spent
from prooftune.errors import IntegrityError, TransientError
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import ObjectStore

NOVEMBER, DECEMBER = datetime(2026, 11, 30, 23, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def bill(store: ObjectStore, key: str, usd: float) -> Item | None:
    """Settle a run of the project p that bought one thing, its own."""
    return settle(store, "p", key, {f"job of {key}": usd})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def test_a_hold_above_the_limit_is_refused_with_every_amount(store: ObjectStore) -> None:
    """Limit, billed, held and asked are named, and the exit code is that of a spec that cannot be met."""
    hold(store, "p", "first", 30, 100, NOVEMBER)
    hold(store, "p", "second", 40, 100, NOVEMBER)
    bill(store, "first", 25)
    with pytest.raises(BudgetExceeded) as caught:
        hold(store, "p", "third", 40, 100, NOVEMBER)
    assert all(amount in str(caught.value) for amount in ("$100.00", "$25.00 are billed", "$40.00 are held", "third may cost $40.00"))
    assert caught.value.exit_code == 2
    assert hold(store, "p", "third", 35, 100, NOVEMBER).usd == 35


def test_what_fills_the_limit_exactly_fits(store: ObjectStore) -> None:
    """Sums of binary fractions do not refuse a cent that is there; a limit of nothing allows nothing but nothing."""
    for key in ("a", "b", "c"):
        hold(store, "p", key, 0.1, 0.3, NOVEMBER)
    with pytest.raises(BudgetExceeded):
        hold(store, "p", "d", 0.01, 0.3, NOVEMBER)
    assert hold(store, "empty", "free", 0, 0, NOVEMBER).usd == 0
    with pytest.raises(BudgetExceeded):
        hold(store, "empty", "dear", 0.01, 0, NOVEMBER)


def test_a_run_holds_once_in_whichever_month(store: ObjectStore) -> None:
    """Asked again, later and for another amount, it holds what it held, also where nothing more would fit."""
    first = hold(store, "p", "run", 10, 10, NOVEMBER)
    assert hold(store, "p", "run", 99, 10, NOVEMBER) == first
    assert hold(store, "p", "run", 10, 10, DECEMBER) == first
    assert read_month(store, "p", "2026-12").items == ()


def test_projects_and_months_are_apart(store: ObjectStore) -> None:
    """What one project or month holds leaves another's limit alone; no limit is no limit."""
    hold(store, "p", "a", 10, 10, NOVEMBER)
    hold(store, "q", "b", 10, 10, NOVEMBER)
    hold(store, "p", "c", 10, 10, DECEMBER)
    hold(store, "p", "d", 1e9, None, DECEMBER)
    assert spent(store, "p", "2026-11").usd == 10
    assert spent(store, "p", "2026-12").usd == 1e9 + 10
    assert spent(store, "nobody").usd == 0


def test_a_bill_replaces_what_was_held_in_its_month(store: ObjectStore) -> None:
    """Settled a month later it counts where it was held; settled again, the last bill counts."""
    hold(store, "p", "run", 20, 100, NOVEMBER)
    assert (spent(store, "p", "2026-11").held_usd, spent(store, "p", "2026-11").billed_usd) == (20, 0)
    bill(store, "run", 25)
    item = bill(store, "run", 22)
    assert item is not None
    assert item.usd == 22
    assert (spent(store, "p", "2026-11").held_usd, spent(store, "p", "2026-11").billed_usd) == (0, 22)
    assert bill(store, "unknown", 1) is None


def test_a_settled_run_holds_anew_within_the_limit(store: ObjectStore) -> None:
    """What the clock refused and a person approves late finds the month as it is by then; with nothing left to buy nothing is held."""
    hold(store, "p", "run", 80, 100, NOVEMBER)
    settle(store, "p", "run", {})
    hold(store, "p", "other", 90, 100, NOVEMBER)
    with pytest.raises(BudgetExceeded, match=r"run may cost \$80.00"):
        hold(store, "p", "run", 80, 100, NOVEMBER)
    settled = hold(store, "p", "run", 0, 100, NOVEMBER)
    assert not settled.holds
    release(store, "p", "other")
    assert hold(store, "p", "run", 80, 100, NOVEMBER).usd == 80
    assert hold(store, "p", "run", 99, 100, NOVEMBER).usd == 80


def test_what_is_bought_after_a_bill_is_added_to_it(store: ObjectStore) -> None:
    """Answers that are paid for again count beside the first ones, in their own month; a run that is given up keeps its bill."""
    hold(store, "p", "run", 20, 100, NOVEMBER)
    settle(store, "p", "run", {"job": 10, "answers, first": 5})
    hold(store, "p", "run", 8, 100, NOVEMBER)
    assert (spent(store, "p", "2026-11").held_usd, spent(store, "p", "2026-11").billed_usd) == (8, 15)
    release(store, "p", "run")
    assert spent(store, "p", "2026-11").usd == 15
    hold(store, "p", "run", 8, 100, DECEMBER)
    settle(store, "p", "run", {"job": 11, "answers, again": 6})
    assert (spent(store, "p", "2026-11").usd, spent(store, "p", "2026-12").usd) == (16, 6)


def test_what_runs_share_counts_once(store: ObjectStore) -> None:
    """Whoever asks: another run of the same order and answers, in this month or a later one, adds only what it bought itself."""
    hold(store, "p", "first", 20, 100, NOVEMBER)
    hold(store, "p", "second", 20, 100, NOVEMBER)
    hold(store, "p", "third", 20, 100, DECEMBER)
    settle(store, "p", "first", {"job": 10, "answers": 5})
    settle(store, "p", "second", {"job": 10, "answers": 5})
    settle(store, "p", "third", {"job": 10, "answers": 5, "verdicts": 1})
    assert (spent(store, "p", "2026-11").usd, spent(store, "p", "2026-12").usd) == (15, 1)


def test_a_month_of_before_is_read(store: ObjectStore) -> None:
    """An item had one sum, and null until it was settled; settled ones may hold anew."""
    settled = {"key": "done", "held_usd": 20, "billed_usd": 15.5, "at": "then"}
    items = [settled, settled | {"key": "held", "held_usd": 8, "billed_usd": None}]
    old = {"project": "p", "month": "2026-11", "items": items}
    store.put("ledger/spending/p/2026-11.json", json.dumps(old).encode())
    assert (spent(store, "p", "2026-11").billed_usd, spent(store, "p", "2026-11").held_usd) == (15.5, 8)
    hold(store, "p", "done", 20, None, NOVEMBER)
    settle(store, "p", "done", {"job": 19})
    assert spent(store, "p", "2026-11").billed_usd == 34.5


def test_a_run_that_was_given_up_holds_nothing(store: ObjectStore) -> None:
    """Released, its amount is free and it may hold anew; a bill is never released."""
    hold(store, "p", "run", 10, 10, NOVEMBER)
    release(store, "p", "run")
    release(store, "p", "run")
    assert find(store, "p", "run") is None
    hold(store, "p", "other", 10, 10, NOVEMBER)
    bill(store, "other", 9)
    release(store, "p", "other")
    assert spent(store, "p", "2026-11").usd == 9


def test_a_run_held_twice_at_the_turn_of_a_month_is_billed_once(store: ObjectStore, tmp_path: Path) -> None:
    """Two processes that looked back before either had written hold it in two months; settling leaves the earlier one."""
    hold(store, "p", "run", 10, None, NOVEMBER)
    apart = LocalStore(tmp_path / "apart")
    hold(apart, "p", "run", 10, None, DECEMBER)
    store.put("ledger/spending/p/2026-12.json", apart.get("ledger/spending/p/2026-12.json"))
    bill(store, "run", 8)
    assert (spent(store, "p", "2026-11").usd, spent(store, "p", "2026-12").usd) == (8, 0)


@pytest.mark.parametrize("usd", [-1.0, float("nan"), float("inf")])
def test_what_is_no_amount_is_held_by_nobody(store: ObjectStore, usd: float) -> None:
    """NaN is below every limit, and a negative amount would make room."""
    with pytest.raises(ValidationError):
        hold(store, "p", "run", usd, 10, NOVEMBER)
    hold(store, "p", "run", 1, 10, NOVEMBER)
    with pytest.raises(ValidationError):
        bill(store, "run", usd)
    assert spent(store, "p", "2026-11").usd == 1


def test_a_damaged_month_is_told_and_left(store: ObjectStore) -> None:
    """A document that cannot be read lets nobody spend."""
    store.put("ledger/spending/p/2026-11.json", b"{")
    with pytest.raises(IntegrityError, match=r"2026-11.json is no Month"):
        hold(store, "p", "run", 1, 10, NOVEMBER)


@pytest.mark.parametrize("step", ["hold", "settle", "release"])
def test_an_answer_of_the_store_that_gets_lost(step: str) -> None:
    """The write came through and its answer did not: it is done, once; one that did not come through is worth another try."""
    store = MemoryStore()
    if step != "hold":
        hold(store, "p", "run", 10, 100, NOVEMBER)
    calls = {
        "hold": lambda: hold(store, "p", "run", 10, 100, NOVEMBER),
        "settle": lambda: bill(store, "run", 8),
        "release": lambda: release(store, "p", "run"),
    }
    store.next_puts = ["failed"]
    before = dict(store.objects)
    with pytest.raises(TransientError):
        calls[step]()
    assert store.objects == before
    store.next_puts = ["lost"]
    calls[step]()
    assert store.next_puts == []
    assert spent(store, "p", "2026-11").usd == {"hold": 10, "settle": 8, "release": 0}[step]


def test_concurrent_runs_never_hold_more_than_the_limit(tmp_path: Path) -> None:
    """In 200 races of three runs each the limit holds at every moment, and a run holds once."""
    limit = 10.0
    for race in range(200):
        rng = random.Random(race)
        store = LocalStore(tmp_path / f"store-{race % 4}")
        project = f"p{race}"
        gate = threading.Barrier(3)
        asks = [(f"run-{rng.randrange(3)}", rng.uniform(1, 6)) for _ in range(3)]

        def run(ask: tuple[str, float], store: LocalStore = store, project: str = project, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            try:
                hold(store, project, *ask, limit, NOVEMBER)
            except BudgetExceeded:
                return False
            assert spent(store, project, "2026-11").usd <= limit
            return True

        with ThreadPoolExecutor(3) as pool:
            held = list(pool.map(run, asks))
        month = spent(store, project, "2026-11")
        assert month.usd <= limit
        assert len({item.key for item in month.items}) == len(month.items)
        assert any(held)


def _hold_many(arguments: tuple[str, int]) -> int:
    """Hold a dollar under many keys of a process's own; return how many fitted."""
    folder, process = arguments
    store, fitted = LocalStore(Path(folder)), 0
    for number in range(12):
        try:
            hold(store, "p", f"{process}-{number}", 1.0, 20.0, NOVEMBER)
        except BudgetExceeded:
            continue
        fitted += 1
    return fitted


def test_processes_share_the_limit(tmp_path: Path) -> None:
    """Of 48 dollars that four processes want, exactly the 20 of the limit are held."""
    import multiprocessing

    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        fitted = list(pool.map(_hold_many, [(str(tmp_path / "store"), process) for process in range(4)]))
    assert sum(fitted) == 20
    assert spent(LocalStore(tmp_path / "store"), "p", "2026-11").usd == 20


class Budget(RuleBasedStateMachine):
    """Any sequence of holds, bills and releases, against sums in a dict."""

    limit = 50.0

    def __init__(self) -> None:
        """Begin with an empty store."""
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = LocalStore(Path(self.folder.name))
        self.held: dict[str, float] = {}
        self.billed: dict[str, float] = {}

    keys = st.sampled_from(["a", "b", "c", "d"])
    amounts = st.integers(0, 4000).map(lambda cents: cents / 100)

    @rule(key=keys, usd=amounts)
    def ask(self, key: str, usd: float) -> None:
        """Hold."""
        known = key in self.held or (key in self.billed and usd == 0)
        fits = round(self.total + usd - self.limit, 6) <= 0
        try:
            hold(self.store, "p", key, usd, self.limit, NOVEMBER)
        except BudgetExceeded:
            assert not known
            assert not fits
        else:
            assert known or fits
            if not known:
                self.held[key] = usd

    @rule(key=keys, usd=amounts)
    def bill(self, key: str, usd: float) -> None:
        """Settle; a bill may be above what was held, and what is told last counts."""
        if bill(self.store, key, usd) is not None:
            self.held.pop(key, None)
            self.billed[key] = usd

    @rule(key=keys)
    def give_up(self, key: str) -> None:
        """Release."""
        release(self.store, "p", key)
        self.held.pop(key, None)

    @property
    def total(self) -> float:
        """What counts against the limit."""
        return sum(self.held.values()) + sum(self.billed.values())

    @invariant()
    def the_month_is_the_sum(self) -> None:
        """What the store says is what was asked of it."""
        assert spent(self.store, "p", "2026-11").usd == pytest.approx(self.total)

    def teardown(self) -> None:
        """Remove the store."""
        self.folder.cleanup()


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
