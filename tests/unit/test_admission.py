"""Which signal starts a retraining: each occurrence once, one at a time, not too often, within the month's budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prooftune.economics import spending
from prooftune.errors import IntegrityError, SpecError
from prooftune.retraining.admission import RESTARTS, Admission, admit, spent_usd
from prooftune.retraining.claims import fail, finish, key_of, note_run, read_retrains, renew, settle_run, wait
from prooftune.retraining.composition import Composition
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.leases import DEAD_AFTER_S, SKEW_S
from prooftune.storage.local import LocalStore
from prooftune.watching.signals import Signal
from tasks.retraining import within_budget

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
LAPSED = timedelta(seconds=DEAD_AFTER_S + SKEW_S)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def spec_of(provider: str = "local", **retrain: Any) -> RunSpec:
    """Return a spec of the task ``toy``."""
    backend = {"provider": provider, "model": "gpt-4.1-mini"} if provider != "local" else {}
    fields = {"name": "toy", "data": {"source": "toy.jsonl"}, "backend": backend, "retrain": retrain}
    return parse_spec(fields | ({"learning_curve": {"shares": []}} if backend else {}))


def signal(digest: str = "d1", kind: Any = "data") -> Signal:
    """Return a signal of the task ``toy``."""
    return Signal(kind=kind, task="toy", digest=digest, reason="120 new examples", at=NOON.isoformat())


def ask(store: LocalStore, digest: str = "d1", holder: str = "a", hours: float = 0, spec: RunSpec | None = None) -> Admission:
    """Ask for admission some hours after noon."""
    return admit(store, spec or spec_of(), signal(digest), holder, NOON + timedelta(hours=hours))


def started(told: Admission) -> int:
    """Return the token of a start."""
    assert told.decision == "start", told
    assert told.token is not None
    return told.token


def test_an_occurrence_starts_once(store: LocalStore) -> None:
    """While it is under way and for ever after, the same occurrence is a duplicate; the holder itself is told the same again."""
    token = started(ask(store))
    assert started(ask(store)) == token
    told = ask(store, holder="b", hours=0.1)
    assert told.decision == "duplicate"
    assert told.holder == "a"
    assert finish(store, "toy", token, "promote")
    for hours in (0.2, 1000):
        told = ask(store, holder="b", hours=hours)
        assert told.decision == "duplicate"
        assert told.until is None
        assert told.reason.endswith("promote")
    assert ask(store, hours=1000).decision == "duplicate", "its own holder, too"


def test_a_sign_of_life_from_the_future_keeps_nobody_waiting(store: LocalStore) -> None:
    """A clock that is wrong by days is not believed until then; a renewal by one that was set right since counts."""
    token = started(ask(store, hours=48))
    assert renew(store, "toy", token, NOON)
    assert ask(store, holder="b", hours=0.1).decision == "duplicate", "its holder has just renewed"
    assert started(ask(store, holder="b", hours=0.3)) > token


def test_one_retraining_at_a_time(store: LocalStore) -> None:
    """Another occurrence waits for the one that is under way, cool-down or not, and hears when to ask again."""
    quick = spec_of(cool_down_hours=0)
    token = started(ask(store, spec=quick))
    told = ask(store, "d2", "b", spec=quick)
    assert told.decision == "running"
    assert told.until == NOON + LAPSED
    assert finish(store, "toy", token, "keep_baseline")
    started(ask(store, "d2", "b", spec=quick))


def test_the_cool_down_counts_from_start_to_start(store: LocalStore) -> None:
    """A retraining that trained nothing counts for none of it."""
    spec = spec_of(cool_down_hours=10)
    assert finish(store, "toy", started(ask(store, spec=spec)), "promote")
    told = ask(store, "d2", hours=9.9, spec=spec)
    assert told.decision == "cooling_down"
    assert told.until == NOON + timedelta(hours=10)
    assert finish(store, "toy", started(ask(store, "d2", hours=10, spec=spec)), "nothing_new", trained=False)
    started(ask(store, "d3", hours=10.1, spec=spec))


def test_a_dead_holder_s_retraining_goes_on(store: LocalStore) -> None:
    """Once its lease has lapsed the same signal starts it again, with a new token; the old holder changes nothing any more."""
    old = started(ask(store))
    just_before = (LAPSED - timedelta(seconds=1)).total_seconds() / 3600
    assert ask(store, holder="b", hours=just_before).decision == "duplicate"
    told = ask(store, holder="b", hours=LAPSED.total_seconds() / 3600)
    assert told.resumes
    assert ask(store, holder="b", hours=LAPSED.total_seconds() / 3600).resumes, "the answer may have got lost: asked again, it is the same"
    new = started(told)
    assert new > old
    assert not renew(store, "toy", old)
    assert not finish(store, "toy", old, "promote")
    assert not fail(store, "toy", old, "x")
    assert not wait(store, "toy", old, "toy-0a1b")
    assert renew(store, "toy", new)
    assert finish(store, "toy", new, "promote")


def test_a_holder_that_comes_back_after_another_signal_started_is_fenced_off(store: LocalStore) -> None:
    """Its occurrence was not started again, but another was: it may not revive its lease beside that one."""
    quick = spec_of(cool_down_hours=0)
    old = started(ask(store, spec=quick))
    new = started(ask(store, "d2", "b", hours=1, spec=quick))
    assert not renew(store, "toy", old, NOON + timedelta(hours=1))
    assert [claim.lives(NOON + timedelta(hours=1)) for claim in read_retrains(store, "toy").claims] == [False, True]
    assert renew(store, "toy", new, NOON + timedelta(hours=1.1))


def test_a_retraining_that_keeps_dying_is_left_until_the_cool_down(store: LocalStore) -> None:
    """It is started again at once a few times, and then once a cool-down."""
    spec, hours = spec_of(cool_down_hours=24), 0.0
    for attempt in range(RESTARTS):
        assert started(ask(store, holder=f"h{attempt}", hours=hours, spec=spec))
        hours += 0.5
    told = ask(store, holder="late", hours=hours, spec=spec)
    assert told.decision == "cooling_down"
    started(ask(store, holder="late", hours=hours - 0.5 + 24, spec=spec))


def test_an_attempt_that_failed_may_be_made_again_after_the_cool_down(store: LocalStore) -> None:
    """A sensor that signals the same every ten minutes does not start what fails every ten minutes."""
    assert fail(store, "toy", started(ask(store)), "DataError: the file is empty")
    assert ask(store, hours=1).decision == "cooling_down"
    told = ask(store, hours=24)
    assert not told.resumes, "what it was made from is put together anew"
    started(told)


def test_a_retraining_that_waits_for_its_job_needs_no_holder(store: LocalStore) -> None:
    """It blocks others without a lease, and ends by its run; done again by a person after it failed, it ends after all."""
    token = started(ask(store))
    assert wait(store, "toy", token, "toy-0a1b")
    assert ask(store, holder="b", hours=100).decision == "duplicate"
    assert ask(store, "d2", "b", hours=100).decision == "running"
    assert settle_run(store, "toy", "toy-ffff", "promote") is None
    failed = settle_run(store, "toy", "toy-0a1b", "JobFailed", failed=True)
    assert failed is not None
    assert failed.state == "failed"
    ended = settle_run(store, "toy", "toy-0a1b", "promote")
    assert ended is not None
    assert ended.state == "finished"
    assert settle_run(store, "toy", "toy-0a1b", "keep_baseline") == ended, "what is finished stays as it is"


def test_a_process_that_fails_after_its_job_was_left_does_not_end_the_wait(store: LocalStore) -> None:
    """Its job goes on, and so does what keeps a second retraining from starting beside it."""
    token = started(ask(store))
    assert wait(store, "toy", token, "toy-0a1b")
    assert fail(store, "toy", token, "RuntimeError: Failed to reach API")
    assert ask(store, "d2", "b", hours=100).decision == "running"


def test_occurrences_that_came_to_the_same_run_are_told_apart(store: LocalStore) -> None:
    """Of one that failed with a run and one that waits for it, the one that waits has ended."""
    quick = spec_of(cool_down_hours=0)
    first = started(ask(store, spec=quick))
    assert note_run(store, "toy", first, "toy-0a1b")
    assert fail(store, "toy", first, "BudgetExceeded: too much")
    second = started(ask(store, "d2", hours=-0.01, spec=quick))
    assert wait(store, "toy", second, "toy-0a1b")
    settle_run(store, "toy", "toy-0a1b", "promote")
    assert [claim.state for claim in read_retrains(store, "toy").claims] == ["failed", "finished"]


def test_the_month_s_budget_is_of_the_task_s_retrainings(store: LocalStore) -> None:
    """What they held or were billed counts, and nothing else of the project; the next month begins anew; a start hears what is left."""
    spec = spec_of("openai", monthly_usd=10, cool_down_hours=0)
    spending.hold(store, "default", "toy-by-hand", 400, None, now=NOON)
    first = ask(store, spec=spec)
    assert first.left_usd == 10
    assert note_run(store, "toy", started(first), "toy-1")
    spending.hold(store, "default", "toy-1", 6, None, now=NOON)
    assert finish(store, "toy", started(first), "promote")
    second = ask(store, "d2", hours=1, spec=spec)
    assert second.left_usd == 4
    assert note_run(store, "toy", started(second), "toy-2")
    spending.hold(store, "default", "toy-2", 4, None, now=NOON)
    assert spent_usd(store, spec, NOON) == 10
    assert finish(store, "toy", started(second), "keep_baseline")
    told = ask(store, "d3", hours=2, spec=spec)
    assert told.decision == "over_budget"
    assert told.until == datetime(2026, 12, 1, tzinfo=UTC)
    assert started(ask(store, "d3", hours=24 * 21, spec=spec))


def test_an_order_that_cannot_be_read_counts_and_stops_nothing(store: LocalStore) -> None:
    """What a failed job cost is counted by the ledger's entry; one of a newer version may be of this task."""
    spec = spec_of("openai", monthly_usd=10, cool_down_hours=0)
    assert note_run(store, "toy", started(ask(store, spec=spec)), "toy-1")
    spending.hold(store, "default", "prooftune-0a1b", 6, None, now=NOON)
    store.put("ledger/jobs/prooftune-0a1b.json", b'{"a_field_of_the_next_version": 1}')
    assert spent_usd(store, spec, NOON) == 6


def test_what_a_retraining_holds_does_not_keep_it_from_going_on(store: LocalStore) -> None:
    """Its holder died, or it failed, with all of the month's money held for it: it may be paid for, and goes on; another may not start."""
    spec = spec_of("openai", monthly_usd=10, cool_down_hours=0)
    token = started(ask(store, spec=spec))
    assert note_run(store, "toy", token, "toy-1")
    spending.hold(store, "default", "toy-1", 10, None, now=NOON)
    assert ask(store, "d2", hours=1, spec=spec).decision == "over_budget"
    resumed = ask(store, holder="b", hours=1, spec=spec)
    assert (resumed.resumes, resumed.left_usd) == (True, 0)
    assert fail(store, "toy", started(resumed), "TransientError: the provider is away")
    assert started(ask(store, holder="c", hours=2, spec=spec))


def test_a_run_may_cost_what_is_left_and_what_it_holds_itself(store: LocalStore, tmp_path: Path) -> None:
    """What it held before it failed is in what the month has spent, and is not counted a second time."""
    fields = {"budget": {"max_usd": 50}, "store": {"uri": store.uri}}
    spec = parse_spec(spec_of("openai", monthly_usd=10).model_dump() | fields)
    made = Composition(champion=None, new=1, known=0, keep_old=1, same_method=False, warm=False, spec=spec)
    spending.hold(store, "default", "toy-1", 6, None)
    told = Admission(decision="start", reason="", left_usd=4)
    assert within_budget(spec, made, told, "toy-1").budget.max_usd == 10
    assert within_budget(spec, made, told, "toy-2").budget.max_usd == 4
    assert within_budget(spec, made, told.model_copy(update={"left_usd": None}), "toy-2") == spec


def test_our_own_machine_has_no_bill(store: LocalStore) -> None:
    """A limit of zero dollars keeps no local training from starting."""
    assert ask(store, spec=spec_of(monthly_usd=0)).decision == "start"
    assert ask(store, "d2", hours=48, spec=spec_of("openai", monthly_usd=0)).decision == "over_budget"


def test_a_signal_of_another_task_is_a_mistake(store: LocalStore) -> None:
    """An automation that matches too much starts nothing, and says what it did."""
    with pytest.raises(SpecError, match="about the task other"):
        admit(store, spec_of(), signal().model_copy(update={"task": "other"}), "a", NOON)


def test_a_damaged_document_is_told(store: LocalStore) -> None:
    """Nothing is started on a guess."""
    store.put(key_of("toy"), b"{}")
    with pytest.raises(IntegrityError, match=r"retrains/toy\.json is no Retrains"):
        ask(store)
