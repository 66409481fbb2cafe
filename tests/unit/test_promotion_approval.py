"""A promotion that waits for a person: held back until somebody answers, and who said what, when and why stands in the history."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from prooftune.economics.approvals import answer, ask, open_questions, read, waiting
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import PromotionRefused, history, promote, register, rollback, standing, why_not_in_use
from prooftune.storage.registry_approval import settle_approval, waits_for_approval
from prooftune.storage.registry_document import NOBODY
from prooftune.types import Decision

TASK = "toy"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def enter(store: LocalStore, tmp_path: Path, run_id: str, *, met: str | None = None, ask_person: bool = True) -> None:
    """Publish a run that the gate would promote, and register it."""
    folder = tmp_path / run_id
    folder.mkdir()
    weights, contest, spec = folder / "weights", folder / "champion.json", folder / "spec.yaml"
    weights.write_text(run_id)
    contest.write_text(json.dumps({"run_id": met}))
    spec.write_text("tracking: {mlflow: null}\n")
    decision = Decision(verdict="promote", reasons=("It is better.",), metric="exact_match")
    facts = {"run_id": run_id, "name": TASK, "decision": decision.model_dump(mode="json")}
    files = {"adapter/adapter_model.safetensors": weights, "champion.json": contest, "spec.yaml": spec}
    manifest = publish(store, run_id, files, facts)
    register(store, TASK, run_id, manifest, decision, ask=ask_person)


def say(store: LocalStore, run_id: str, approved: bool, by: str = "ada", reason: str = "read the report") -> dict[str, Any]:
    """Answer."""
    return settle_approval(store, TASK, run_id, approved=approved, by=by, reason=reason)


def test_the_gate_s_yes_waits(store: LocalStore, tmp_path: Path) -> None:
    """A run to approve is the challenger, also where there is no champion yet, and the note says what to do."""
    enter(store, tmp_path, "toy-1")
    found = history(store, TASK)
    assert (found["champion"], found["challenger"]) == (None, "toy-1")
    assert waits_for_approval(store, TASK, "toy-1")
    assert "prooftune approve toy-1" in why_not_in_use(store, TASK, "toy-1")


def test_a_yes_puts_it_in_use_under_the_person_s_name(store: LocalStore, tmp_path: Path) -> None:
    """The change says who, when and why; a second answer changes nothing."""
    enter(store, tmp_path, "toy-1", ask_person=False)
    enter(store, tmp_path, "toy-2", met="toy-1")
    found = say(store, "toy-2", approved=True)
    assert (found["champion"], found["challenger"]) == ("toy-2", None)
    change = found["changes"][-1]
    assert (change["action"], change["by"], change["champion_before"]) == ("approve", "ada", "toy-1")
    assert "read the report" in change["reason"]
    assert found["history"][-1]["approval"] | {"at": ""} == {"approved": True, "by": "ada", "reason": "read the report", "at": ""}
    assert found["history"][-1]["approval"]["at"]
    assert say(store, "toy-2", approved=False, by="bob") == found
    assert not waits_for_approval(store, TASK, "toy-2")
    assert why_not_in_use(store, TASK, "toy-2") == ""
    assert rollback(store, TASK, reason="worse", by="bob")["champion"] == "toy-1"
    assert say(store, "toy-2", approved=True)["champion"] == "toy-1", "an old yes undoes no rollback"


def test_a_no_keeps_the_champion(store: LocalStore, tmp_path: Path) -> None:
    """It is no challenger any more, who rejected it and why is told, and a later yes by `approve` is not heard."""
    enter(store, tmp_path, "toy-1", ask_person=False)
    enter(store, tmp_path, "toy-2", met="toy-1")
    found = say(store, "toy-2", approved=False, reason="not this week")
    assert (found["champion"], found["challenger"]) == ("toy-1", None)
    note = why_not_in_use(store, TASK, "toy-2")
    assert "rejected by ada" in note
    assert "not this week" in note
    assert say(store, "toy-2", approved=True, by="bob") == found
    assert promote(store, TASK, "toy-2", reason="the week is over", by="bob")["champion"] == "toy-2", "a person may still promote it"


def test_the_clock_s_no_may_become_a_yes(store: LocalStore, tmp_path: Path) -> None:
    """Nobody's answer rejects; a person who comes late is heard."""
    enter(store, tmp_path, "toy-1")
    assert say(store, "toy-1", approved=False, by=NOBODY, reason="no answer within 24 hours")["champion"] is None
    assert "prooftune approve toy-1" in why_not_in_use(store, TASK, "toy-1")
    assert waits_for_approval(store, TASK, "toy-1")
    assert say(store, "toy-1", approved=True)["champion"] == "toy-1"


def test_a_yes_is_about_the_champion_that_was_met(store: LocalStore, tmp_path: Path) -> None:
    """Where another run became the champion meanwhile, the approved one is held back: it never met that one."""
    enter(store, tmp_path, "toy-1", ask_person=False)
    enter(store, tmp_path, "toy-2", met="toy-1")
    enter(store, tmp_path, "toy-3", met="toy-1", ask_person=False)
    found = say(store, "toy-2", approved=True)
    assert found["champion"] == "toy-3"
    assert "changed meanwhile (toy-1 → toy-3)" in why_not_in_use(store, TASK, "toy-2")


def test_a_sentence_says_whether_it_is_in_use(store: LocalStore, tmp_path: Path) -> None:
    """Since when, by whom and why; after a no, a rollback or another promotion that changes with the registry."""

    def told(run_id: str) -> str:
        return re.sub(r"\d{4}-\d\d-\d\d", "DAY", standing(store, TASK, run_id))

    enter(store, tmp_path, "toy-1", ask_person=False)
    assert told("toy-1") == "In use: it is the champion of toy, promoted by the gate on DAY."
    enter(store, tmp_path, "toy-2", met="toy-1")
    assert told("toy-2") == "Not in use: waits for approval: `prooftune approve toy-2`."
    say(store, "toy-2", approved=True)
    assert told("toy-2") == "In use: it is the champion of toy, approved by ada on DAY: read the report."
    assert told("toy-1") == "No longer in use: the champion of toy is toy-2."
    rollback(store, TASK, reason="worse.", by="bob")
    assert told("toy-1") == "In use: it is the champion of toy, put back by bob on DAY: worse."
    assert told("toy-2").startswith("Not in use: rolled back by bob: worse.; `prooftune promote toy toy-2")
    promote(store, TASK, "toy-2", reason="not worse", by="ann")
    assert told("toy-2") == "In use: it is the champion of toy, promoted by ann on DAY: not worse."
    enter(store, tmp_path, "toy-3", met="toy-2")
    say(store, "toy-3", approved=False, reason="")
    assert told("toy-3") == "Not in use: rejected by ada on DAY."
    assert told("toy-9") == ""


def test_what_waits_for_nobody_is_refused(store: LocalStore, tmp_path: Path) -> None:
    """An answer to what was not asked is a mistake that is told."""
    enter(store, tmp_path, "toy-1", ask_person=False)
    for run_id in ("toy-1", "toy-9"):
        with pytest.raises(PromotionRefused, match="prooftune promote toy"):
            say(store, run_id, approved=True)


def test_a_promotion_and_an_estimate_of_one_run_are_two_questions(store: LocalStore) -> None:
    """The answer to one is none to the other; what is not answered yet is the one that is asked for."""
    ask(store, "toy-1", 30, "flow-1")
    ask(store, "toy-1", None, "flow-2", "toy")
    assert {asked.what for asked in open_questions(store)} == {"spend", "promote"}
    assert waiting(store, "toy-1").flow_run == "flow-2"
    answer(store, "toy-1", None, approved=True, by="ada", reason="")
    assert read(store, "toy-1", 30) is None
    assert waiting(store, "toy-1").what == "spend"
    answer(store, "toy-1", 30, approved=False, by="bob", reason="")
    said = read(store, "toy-1", None)
    assert said is not None
    assert said.approved
    assert list(open_questions(store)) == []


def type_in(store: LocalStore, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [*arguments, "--store", str(store.root)], env={"COLUMNS": "120"})


def test_the_command_lists_both_kinds_and_promotes(store: LocalStore, tmp_path: Path) -> None:
    """`prooftune approve` needs no flow run that waits; `prooftune history` shows who it was."""
    enter(store, tmp_path, "toy-1")
    ask(store, "toy-1", None, None, TASK)
    ask(store, "toy-0", 31.5, None)
    listed = type_in(store, "approve")
    assert "toy-0 asks for $31.50" in listed.stdout
    assert "toy-1 is to be the champion of toy" in listed.stdout
    told = json.loads(type_in(store, "approve", "toy-1", "--by", "ada", "--reason", "good", "--json").stdout)
    assert (told["what"], told["promotion"]["champion"], told["woken"]) == ("promote", "toy-1", False)
    again = type_in(store, "approve", "toy-1", "--no", "--by", "bob").stdout
    assert "the promotion of toy-1 approved by ada" in again
    assert "the champion of toy is toy-1" in again
    shown = json.loads(type_in(store, "history", TASK, "--json").stdout)
    assert shown["runs"][0]["approval"]["by"] == "ada"
    screen = type_in(store, "history", TASK).stdout
    assert "approved" in screen
    assert "ada" in screen
