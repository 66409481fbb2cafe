"""Which champion a candidate has to meet, and what the gate does not put back in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_registry import PROMOTE, WHY, enter, handed_on

from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import (
    champion_met,
    promote,
    register,
    rollback,
    why_not_in_use,
)
from prooftune.storage.registry_contest import champion_to_meet


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def test_a_repeated_run_meets_the_champion_it_met_first(store: LocalStore) -> None:
    """The same key with the same files: so its results, and its id, are those of the first time."""
    for run in ("run-a", "run-b", "run-b-f00", "run-c"):
        enter(store, run)
    assert champion_to_meet(store, "triage", "run-a", handed_on(store, "run-a")) is None
    assert champion_to_meet(store, "triage", "run-b", handed_on(store, "run-b")) == "run-a"
    assert champion_to_meet(store, "triage", "run-b", handed_on(store, "run-b-f00")) == "run-b"
    assert champion_to_meet(store, "unknown", "run-a", handed_on(store, "run-a")) is None


def test_old_weights_under_a_new_spec_meet_the_champion_in_use(store: LocalStore) -> None:
    """A's spec with an irrelevant field changed is another run: it does not walk past B, which beat A."""
    enter(store, "run-a")
    enter(store, "run-b")
    assert champion_to_meet(store, "triage", "run-a2", handed_on(store, "run-a")) == "run-b"
    assert champion_to_meet(store, "triage", "run-a", handed_on(store, "run-b")) == "run-a", "B's weights are in use: they met A"


def test_a_run_that_measures_anew_meets_the_champion_in_use(store: LocalStore) -> None:
    """The same key with other results (``--fresh``) is not the same run."""
    enter(store, "run-a")
    enter(store, "run-b")
    enter(store, "other", registered=False, weights="newly trained")
    assert champion_to_meet(store, "triage", "run-a", handed_on(store, "other")) == "run-b"


def test_the_champions_weights_do_not_meet_themselves(store: LocalStore) -> None:
    """They meet the champion that they met before, as often as they come under another spec."""
    enter(store, "run-a")
    enter(store, "run-b")
    for run in ("run-b2", "run-b3"):
        opponent = champion_to_meet(store, "triage", run, handed_on(store, "run-b"))
        assert opponent == "run-a"
        found = enter(store, run, weights="run-b", met=opponent)
        assert (found["champion"], found["note"]) == (run, "")


def test_of_two_runs_at_once_the_second_has_to_meet_the_first(store: LocalStore) -> None:
    """Both beat A; B was registered first, so C becomes the challenger, and meets B when it is run again."""
    enter(store, "run-a")
    enter(store, "run-b", met="run-a")
    found = enter(store, "run-c", met="run-a")
    assert (found["champion"], found["challenger"]) == ("run-b", "run-c")
    assert found["note"] == "the champion changed meanwhile (run-a → run-b): run again to meet it"
    assert why_not_in_use(store, "triage", "run-c") == found["note"] == found["history"][-1]["held_back"]
    assert champion_met(store, "triage", "run-c") == ("run-a",)
    opponent = champion_to_meet(store, "triage", "run-c", handed_on(store, "run-c"))
    assert opponent == "run-b"
    found = enter(store, "run-c-f00", weights="run-c", met=opponent)
    assert (found["champion"], found["challenger"], found["note"]) == ("run-c-f00", None, "")
    assert champion_to_meet(store, "triage", "run-c", handed_on(store, "run-c-f00")) == "run-b", "the same results once more"


def test_the_first_champion_of_two_at_once_is_met_too(store: LocalStore) -> None:
    """A run that met nobody does not replace the champion that there is by now."""
    enter(store, "run-a")
    assert enter(store, "run-b", met=None)["champion"] == "run-a"


def test_the_gate_does_not_undo_a_persons_rollback(store: LocalStore) -> None:
    """Neither by the same run nor by its weights under another spec, until a person puts them back."""
    enter(store, "run-a")
    enter(store, "run-b")
    rollback(store, "triage", reason="bad labels", by="ann")
    found = enter(store, "run-b2", weights="run-b")
    assert (found["champion"], found["challenger"]) == ("run-a", None)
    note = "rolled back by ann: bad labels; `prooftune promote triage run-b2 --reason …` puts it back"
    assert found["note"] == f"its weights, as run-b, were {note}"
    assert register(store, "triage", "run-b", store.measure("runs/run-b/manifest.json"), PROMOTE)["champion"] == "run-a"
    assert why_not_in_use(store, "triage", "run-b") == note.replace("run-b2", "run-b")
    promote(store, "triage", "run-b", reason="the labels were right", by="bob")
    assert why_not_in_use(store, "triage", "run-b") == ""
    assert enter(store, "run-b3", weights="run-b", met="run-a")["champion"] == "run-b3"


def test_other_weights_are_promoted_after_a_rollback(store: LocalStore) -> None:
    """Only what was rolled back is held back."""
    enter(store, "run-a")
    enter(store, "run-b")
    rollback(store, "triage", **WHY)
    assert enter(store, "run-c")["champion"] == "run-c"
    assert why_not_in_use(store, "triage", "run-a") == "", "another run replaced it"


def test_a_model_at_its_provider_is_known_by_its_name_there(store: LocalStore, tmp_path: Path) -> None:
    """Rolled back by a person, it stays so where its run is repeated and the provider names another last day by then."""

    def enter_managed(run_id: str, model: str, met: str | None, until: str) -> dict[str, Any]:
        told = {
            "provider": "openai",
            "address": "-",
            "base_model": "base",
            "job": f"job-{model}",
            "key": "prooftune-1",
            "owns_weights": False,
        }
        (tmp_path / "managed.json").write_text(json.dumps(told | {"model": model, "shutdown": until}))
        (tmp_path / "champion.json").write_text(json.dumps({"run_id": met, "rivals": []}))
        files = {"model/managed.json": tmp_path / "managed.json", "champion.json": tmp_path / "champion.json"}
        manifest = publish(store, run_id, files, {"name": "triage", "decision": PROMOTE.model_dump(mode="json")})
        return register(store, "triage", run_id, manifest, PROMOTE)

    enter_managed("run-a", "ft:old", None, "2027-01-14")
    assert enter_managed("run-b", "ft:bad", "run-a", "2027-01-14")["champion"] == "run-b"
    rollback(store, "triage", **WHY)
    found = enter_managed("run-c", "ft:bad", "run-a", "2027-02-01")
    assert (found["champion"], "rolled back" in found["note"]) == ("run-a", True)
    assert enter_managed("run-d", "ft:new", "run-a", "2027-02-01")["champion"] == "run-d"
