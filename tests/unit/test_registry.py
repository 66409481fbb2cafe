"""The registry: champions by gate and by hand, back again, and no change lost."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_registry import WHY, enter
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import IntegrityError, TransientError
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import InvalidKey, NoSuchObject
from prooftune.storage.registry import (
    PromotionRefused,
    champion_met,
    history,
    promote,
    read_registry,
    register,
    rollback,
)
from prooftune.types import Decision

FORK = multiprocessing.get_context("fork")
AT_ONCE = FORK.Barrier(6)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def champions(registry: dict[str, Any]) -> list[tuple[str, str | None, str, str]]:
    """Action, from, to and author of each change."""
    return [(change["action"], change["champion_before"], change["champion"], change["by"]) for change in registry["changes"]]


def test_each_change_says_who_from_and_to(store: LocalStore) -> None:
    """Promotions by the gate and by hand, and rollbacks, are kept with author, reason and both runs."""
    enter(store, "run-a")
    enter(store, "run-b")
    promote(store, "triage", "run-a", reason="b is slow", by="ann")
    rollback(store, "triage", reason="b was not to blame", by="bob")
    found = rollback(store, "triage", reason="back to the start", by="bob")
    assert champions(found) == [
        ("register", None, "run-a", "gate"),
        ("register", "run-a", "run-b", "gate"),
        ("promote", "run-b", "run-a", "ann"),
        ("rollback", "run-a", "run-b", "bob"),
        ("rollback", "run-b", "run-a", "bob"),
    ]
    assert [change["reason"] for change in found["changes"]][2:] == ["b is slow", "b was not to blame", "back to the start"]
    assert found == history(store, "triage") == read_registry(store, "triage")
    assert found["champion"] == "run-a"


def test_without_a_former_champion_there_is_no_way_back(store: LocalStore) -> None:
    """The first champion, and a task without one, cannot be rolled back, and nothing changes."""
    with pytest.raises(PromotionRefused, match="never had any"):
        rollback(store, "triage", **WHY)
    enter(store, "run-a")
    before = history(store, "triage")
    with pytest.raises(PromotionRefused, match="run-a is the first one"):
        rollback(store, "triage", **WHY)
    assert history(store, "triage") == before


def test_two_people_who_see_the_same_fault_roll_back_once(store: LocalStore) -> None:
    """The second one names a champion that is none any more."""
    for run in ("run-a", "run-b", "run-c"):
        enter(store, run)
    rollback(store, "triage", champion="run-c", **WHY)
    with pytest.raises(PromotionRefused, match="champion of triage is run-b, no longer run-c"):
        rollback(store, "triage", champion="run-c", **WHY)
    assert history(store, "triage")["champion"] == "run-b"


class Forgetful(LocalStore):
    """A store whose next answer gets lost, after the write."""

    forgets = False

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write, and perhaps not say so."""
        version = super().put(key, data, if_absent=if_absent, if_match=if_match)
        if self.forgets:
            self.forgets = False
            raise TransientError("the store's answer got lost")
        return version


def test_a_rollback_whose_answer_got_lost_is_made_once(tmp_path: Path) -> None:
    """What is in the store says that it was made: whoever tried again would go one champion further back."""
    store = Forgetful(tmp_path / "store")
    for run in ("run-a", "run-b", "run-c"):
        enter(store, run)
    store.forgets = True
    assert rollback(store, "triage", **WHY)["champion"] == "run-b"
    assert not store.forgets
    assert read_registry(store, "triage")["champion"] == "run-b"


def test_a_champion_that_is_gone_is_not_put_back_in_use(store: LocalStore) -> None:
    """A former champion whose manifest was deleted is named."""
    enter(store, "run-a")
    enter(store, "run-b")
    store.delete("runs/run-a/manifest.json")
    with pytest.raises(NoSuchObject, match="run-a"):
        rollback(store, "triage", **WHY)
    assert history(store, "triage")["champion"] == "run-b"


def test_a_verdict_against_a_run_needs_force(store: LocalStore) -> None:
    """Without force the message holds the gate's reasons; with it the history says so."""
    enter(store, "run-a")
    enter(store, "run-b", "keep_baseline")
    with pytest.raises(PromotionRefused, match=r"ended in keep_baseline: Because of this\. .*--force"):
        promote(store, "triage", "run-b", **WHY)
    forced = promote(store, "triage", "run-b", force=True, **WHY)
    assert (forced["champion"], forced["changes"][-1]["forced"]) == ("run-b", True)
    plain = promote(store, "triage", "run-a", force=True, **WHY)
    assert plain["changes"][-1]["forced"] is False


def test_what_cannot_be_in_use_is_refused(store: LocalStore) -> None:
    """Runs of another task, runs that trained nothing, runs that do not exist and names that are none."""
    enter(store, "other-1", task="other")
    enter(store, "run-a", "do_not_fine_tune")
    with pytest.raises(PromotionRefused, match="other-1 is a run of other, not of triage"):
        promote(store, "triage", "other-1", force=True, **WHY)
    with pytest.raises(PromotionRefused, match="trained nothing"):
        promote(store, "triage", "run-a", force=True, **WHY)
    with pytest.raises(NoSuchObject, match=r"no run 'run-aa'; there are 2, such as run-a"):
        promote(store, "triage", "run-aa", **WHY)
    with pytest.raises(InvalidKey):
        promote(store, "../triage", "other-1", **WHY)
    assert read_registry(store, "triage")["champion"] is None


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ann", "  ")])
def test_nobody_changes_the_champion_for_nothing(store: LocalStore, by: str, reason: str) -> None:
    """Who and why are required."""
    enter(store, "run-a")
    with pytest.raises(PromotionRefused, match="who makes it and why"):
        promote(store, "triage", "run-a", by=by, reason=reason)


def test_promoting_the_champion_changes_nothing(store: LocalStore) -> None:
    """A repeated promotion is the same registry, byte for byte; a run that was never registered is entered by its promotion."""
    enter(store, "run-a")
    enter(store, "run-b", registered=False)
    once = promote(store, "triage", "run-b", **WHY)
    version = store.version("registry/triage.json")
    assert promote(store, "triage", "run-b", reason="again", by="bob") == once
    assert store.version("registry/triage.json") == version
    assert [entry["run_id"] for entry in once["history"]] == ["run-a", "run-b"]
    register(store, "triage", "run-b", store.measure("runs/run-b/manifest.json"), Decision(verdict="promote", reasons=("x",)))
    assert store.version("registry/triage.json") == version


def test_the_challenger_is_the_newest_inconclusive_run(store: LocalStore) -> None:
    """Only beside a champion, and only until there is a new one."""
    enter(store, "run-a", "inconclusive")
    assert read_registry(store, "triage")["challenger"] is None
    enter(store, "run-b")
    enter(store, "run-c", "inconclusive")
    enter(store, "run-d", "keep_baseline")
    assert read_registry(store, "triage")["challenger"] == "run-c"
    enter(store, "run-e")
    assert read_registry(store, "triage")["challenger"] is None


def test_a_run_that_is_not_registered_met_nobody_known(store: LocalStore) -> None:
    """None, which is not the same as a run that met no champion."""
    enter(store, "run-a")
    assert champion_met(store, "triage", "run-a") == (None,)
    assert champion_met(store, "triage", "run-b") is None


def test_documents_from_before_changes_were_kept_are_read(store: LocalStore) -> None:
    """Each promotion of an older document is a change by the gate, so that a rollback finds its way."""
    for run, verdict in (("run-a", "promote"), ("run-b", "inconclusive"), ("run-c", "promote")):
        enter(store, run, verdict)  # type: ignore[arg-type]
    new = read_registry(store, "triage")
    kept = ("run_id", "manifest", "decision", "registered_at", "champion_before")
    old = {name: value for name, value in new.items() if name != "changes"}
    old["history"] = [{name: entry[name] for name in kept} for entry in new["history"]]
    store.put("registry/triage.json", json.dumps(old).encode())
    found = read_registry(store, "triage")
    assert {**found, "history": None} == {**new, "history": None}
    assert [entry["met"] for entry in found["history"]] == [entry["met"] for entry in new["history"]]
    assert rollback(store, "triage", **WHY)["champion"] == "run-a"


def test_a_champion_that_no_change_made_is_damage(store: LocalStore) -> None:
    """A document whose champion does not follow from its changes was edited by hand."""
    enter(store, "run-a")
    enter(store, "run-b")
    document = store.get("registry/triage.json").replace(b'"champion": "run-b",\n "challenger"', b'"champion": "run-a",\n "challenger"')
    store.put("registry/triage.json", document)
    with pytest.raises(IntegrityError, match="restore it"):
        rollback(store, "triage", **WHY)


def test_an_unknown_task_names_those_there_are(store: LocalStore) -> None:
    """A typo in the task is answered with the tasks."""
    enter(store, "run-a")
    with pytest.raises(NoSuchObject, match="'triag'; it has runs of: triage"):
        history(store, "triag")


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(st.sampled_from(["a", "b", "c", "back"]), max_size=12))
def test_rollbacks_retrace_the_line_of_champions(tmp_path_factory: pytest.TempPathFactory, steps: Sequence[str]) -> None:
    """For any sequence of promotions and rollbacks the champion is the top of a stack, and every effective step is recorded."""
    store = LocalStore(tmp_path_factory.mktemp("registry") / "store")
    for run in "abc":
        enter(store, f"run-{run}", "keep_baseline")
    line: list[str] = []
    recorded = 0
    for step in steps:
        if step != "back":
            recorded += line[-1:] != [f"run-{step}"]
            line += [f"run-{step}"] if line[-1:] != [f"run-{step}"] else []
            promote(store, "triage", f"run-{step}", force=True, **WHY)
        elif len(line) > 1:
            line.pop()
            recorded += 1
            rollback(store, "triage", **WHY)
        else:
            with pytest.raises(PromotionRefused):
                rollback(store, "triage", **WHY)
    registry = read_registry(store, "triage")
    assert registry["champion"] == (line[-1] if line else None)
    assert len(registry["changes"]) == recorded


def _promote_and_roll_back(store: LocalStore, me: int) -> None:
    AT_ONCE.wait(30)
    for number in range(4):
        promote(store, "triage", f"run-{me}-{number}", reason=f"promotion {number}", by=f"process-{me}")
        rollback(store, "triage", reason=f"rollback {number}", by=f"process-{me}")


def test_six_processes_lose_no_change(store: LocalStore) -> None:
    """Six processes that promote and roll back at once: each change is there once, and from → to is an unbroken chain."""
    enter(store, "run-first")
    for me in range(6):
        for number in range(4):
            enter(store, f"run-{me}-{number}", registered=False)
    with FORK.Pool(6) as pool:
        pool.starmap(_promote_and_roll_back, [(store, me) for me in range(6)], chunksize=1)
    registry = read_registry(store, "triage")
    expected = {(f"process-{me}", f"{kind} {number}") for me in range(6) for number in range(4) for kind in ("promotion", "rollback")}
    made = [(change["by"], change["reason"]) for change in registry["changes"][1:]]
    assert (set(made), len(made)) == (expected, len(expected))
    before = [change["champion_before"] for change in registry["changes"]]
    assert before == [None, *(change["champion"] for change in registry["changes"][:-1])]
    assert registry["champion"] == "run-first"
    assert len(registry["history"]) == 25
