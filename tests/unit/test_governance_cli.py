"""The commands after the verdict: one JSON document, exit codes, and screens that say what matters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import governance, governance_screens
from flows.cli import main
from prooftune.spec import parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.types import Decision, Verdict

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with two champions, one after the other, and a run that the gate refused."""
    store = LocalStore(tmp_path / "store")
    for run_id, verdict in (("triage-a", "promote"), ("triage-b", "promote"), ("triage-c", "keep_baseline")):
        enter(store, run_id, verdict)  # type: ignore[arg-type]
    return store


def enter(
    store: LocalStore, run_id: str, verdict: Verdict, mlflow: str | None = None, *, weights: str | None = None, met: str | None = None
) -> None:
    """Publish and register a run with its spec."""
    folder = store.root.parent / run_id
    folder.mkdir()
    (folder / "weights").write_text(weights or run_id)
    spec = parse_spec({"name": "triage", "data": {"source": "x.jsonl"}, "tracking": {"mlflow": mlflow}})
    (folder / "spec.yaml").write_text(spec.resolved_yaml())
    decision = Decision(
        verdict=verdict, reasons=("It is so.",), metric="exact_match", baseline_value=0.5, candidate_value=0.75, difference=0.25, n=100
    )
    files = {"spec.yaml": folder / "spec.yaml", "adapter/adapter_model.safetensors": folder / "weights"}
    if met is not None:
        (folder / "champion.json").write_text(json.dumps({"run_id": met}))
        files["champion.json"] = folder / "champion.json"
    facts = {"run_id": run_id, "name": "triage", "decision": decision.model_dump(mode="json"), "evaluations": []}
    register(store, "triage", run_id, publish(store, run_id, files, facts), decision)


def call(store: LocalStore, *arguments: str, **options: Any) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [*arguments, "--store", str(store.root)], **options)


def answer(store: LocalStore, *arguments: str) -> dict[str, Any]:
    """The one document on stdout of a command that succeeds."""
    result = call(store, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def words(result: Result) -> str:
    """What stands on the screen, with folded white space."""
    return " ".join(ESCAPE.sub("", result.stdout).split())


def test_a_rollback_is_told_with_who_and_why(store: LocalStore) -> None:
    """The document has the change; the author is the user unless named."""
    told = answer(store, "rollback", "triage", "--reason", "b is wrong on refunds", "--by", "ann")
    assert told["champion"] == "triage-a"
    assert {name: told["change"][name] for name in ("action", "champion_before", "by", "reason")} == {
        "action": "rollback",
        "champion_before": "triage-b",
        "by": "ann",
        "reason": "b is wrong on refunds",
    }
    assert told["mlflow"] is None
    again = answer(store, "promote", "triage", "triage-b", "--reason", "it was not b")
    assert (again["champion"], again["change"]["by"]) == ("triage-b", governance.user())


def test_hints_name_the_store_they_are_about(store: LocalStore) -> None:
    """A command that is copied finds the same registry; the default store needs no words."""
    flags = f" --store {store.root}"
    assert answer(store, "rollback", "triage", "--reason", "x")["next"] == f"prooftune history triage{flags}"
    screen = call(store, "promote", "triage", "triage-b", "--reason", "x").stdout
    assert f"prooftune history triage{flags}" in ESCAPE.sub("", screen)
    assert governance.store_flags("./prooftune-store", None) == ""
    assert governance.store_flags("s3://b/a b", "http://s3:9000") == " --store 's3://b/a b' --endpoint-url http://s3:9000"


def test_history_says_why_a_promoted_run_is_not_in_use(store: LocalStore) -> None:
    """What a person rolled back, and what met another champion, stands there with the reason."""
    answer(store, "rollback", "triage", "--reason", "bad labels", "--by", "ann")
    enter(store, "triage-b2", "promote", weights="triage-b")
    enter(store, "triage-d", "promote", met="triage-b")
    told = answer(store, "history", "triage")
    assert (told["champion"], told["challenger"]) == ("triage-a", "triage-d")
    screen = words(call(store, "history", "triage", env={"COLUMNS": "200"}))
    assert "rolled back by ann: bad labels; `prooftune promote triage triage-b2" in screen
    assert "challenger triage-d: the champion changed meanwhile (triage-b → triage-a): run again to meet it" in screen


def test_history_has_every_change_and_every_run(store: LocalStore) -> None:
    """Also those that the gate made."""
    answer(store, "promote", "triage", "triage-c", "--reason", "an experiment", "--by", "ann", "--force")
    told = answer(store, "history", "triage")
    assert [change["champion"] for change in told["changes"]] == ["triage-a", "triage-b", "triage-c"]
    assert [run["verdict"] for run in told["runs"]] == ["promote", "promote", "keep_baseline"]
    screen = words(call(store, "history", "triage", env={"COLUMNS": "120"}))
    for text in ("champion triage-c", "an experiment (against the verdict)", "promoted by the gate", "0.500 → 0.750", "+25.0"):
        assert text in screen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["promote", "triage", "triage-c", "--reason", "x"],
            2,
            "ended in keep_baseline: It is so. To put it in use all the same, say --force",
        ),
        (["promote", "triage", "triage-x", "--reason", "x"], 1, "there are 3, such as triage-"),
        (["promote", "other", "triage-a", "--reason", "x"], 2, "is a run of triage, not of other"),
        (["promote", "triage", "triage-a"], 2, "Missing option '--reason'"),
        (["rollback", "triage", "--reason", "x", "--from", "triage-a"], 2, "is triage-b, no longer triage-a"),
        (["rollback", "nothing", "--reason", "x"], 2, "never had any"),
        (["history", "triag"], 1, "it has runs of: triage"),
        (["verify", "triage-x"], 1, "such as triage-"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(store: LocalStore, arguments: list[str], code: int, message: str) -> None:
    """With its exit code, as one document with --json, and nothing is changed."""
    before = store.get("registry/triage.json")
    plain, as_json = call(store, *arguments), call(store, *arguments, "--json")
    assert (plain.exit_code, as_json.exit_code) == (code, code)
    assert message in json.loads(as_json.stdout)["message"]
    assert "Traceback" not in plain.stderr
    assert store.get("registry/triage.json") == before


def test_verify_exits_with_1_where_something_does_not_match(store: LocalStore) -> None:
    """A run without holdout and data manifest cannot be verified, and what is missing is listed."""
    result = call(store, "verify", "triage-a", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["matches"] is False
    assert {"data_manifest.json", "holdout.jsonl"} <= {one["file"] for one in told["mismatches"]}
    screen = call(store, "verify", "triage-a")
    assert screen.exit_code == 1
    assert "triage-a is not what it says" in words(screen)


def test_nobody_is_asked_for_a_name(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a user, a container say, leads to --by."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(governance.getpass, "getuser", unknown)
    result = call(store, "rollback", "triage", "--reason", "x", "--json")
    assert result.exit_code == 3
    assert "--by" in json.loads(result.stdout)["message"]


@pytest.mark.slow
def test_mlflow_follows_where_the_spec_names_it(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback to a run with a tracking server moves the alias there; a server that is gone is told, and the champion is changed."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    enter(store, "triage-d", "promote", tracking)
    told = answer(store, "promote", "triage", "triage-d", "--reason", "again", "--by", "ann")
    assert (told["mlflow"]["failed"], told["mlflow"]["aliases"]) == (None, {"champion": "triage-d"})
    enter(store, "triage-e", "promote", "http://127.0.0.1:9")
    enter(store, "triage-f", "promote")
    told = answer(store, "rollback", "triage", "--reason", "f fails", "--by", "ann")
    assert told["champion"] == "triage-e"
    assert "does not answer" in told["mlflow"]["failed"]


def test_screens_show_text_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Reasons and values are neither markup nor control codes; a long list is cut and says so."""
    made = {
        "action": "promote",
        "champion_before": None,
        "champion": "a",
        "at": "now",
        "by": "ann",
        "reason": "\x1b[2J[bold]why",
        "forced": True,
    }
    answered = {"champion": "a", "task": "t", "change": made, "mlflow": {"failed": "no server"}, "next": "prooftune history 't t'"}
    governance_screens.change(answered)
    raw = capsys.readouterr().out
    assert "\x1b[2J" not in raw
    assert "[bold]why (against the verdict)" in raw
    assert "MLflow was not told: no server" in raw
    assert "prooftune history 't t'" in raw
    wrong = [{"file": f"f{number}", "what": "w", "found": "1", "expected": "2"} for number in range(35)]
    answered = {
        "run_id": "r",
        "matches": False,
        "checked": {"files": 1200},
        "mismatches": wrong,
        "manifest_sha256": "0" * 64,
        "not_recomputed": [],
    }
    governance_screens.verification(answered)
    raw = capsys.readouterr().out
    assert "35 mismatches" in raw
    assert "5 more" in raw
    governance_screens.verification(answered | {"matches": True, "mismatches": []})
    assert "r is what it says" in (raw := capsys.readouterr().out)
    assert "1,200 files" in raw
