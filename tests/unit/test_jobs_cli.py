"""The commands on managed jobs, against a stand-in: one JSON document, exit codes, and screens that fit a terminal."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures_jobs import ESCAPE, Desk
from fixtures_stand_ins import open_stand_in

from flows import jobs_screens
from flows.cli import main
from prooftune.economics.approvals import ask
from prooftune.providers.ledger import Entry, key_of
from prooftune.providers.tuning import Files
from prooftune.storage.local import LocalStore


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """At OpenAI's stand-in."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        yield Desk(here, LocalStore(tmp_path / "store"))


def test_an_empty_ledger_is_no_error(desk: Desk) -> None:
    """It says so, as JSON and in words."""
    assert desk.answer()["jobs"] == []
    assert "no job was ever ordered" in desk.screen()


def test_orders_are_listed_with_their_jobs(desk: Desk) -> None:
    """Newest first, with the run that ordered them; nobody is asked, unless --refresh says so."""
    first, second = desk.submit(1), desk.submit(2)
    desk.settle()
    asked = len(desk.here.api.seen)
    told = desk.answer()["jobs"]
    assert [row["key"] for row in told] == [second.key, first.key]
    assert first.job is not None
    assert {name: told[1][name] for name in ("run", "provider", "model", "attempt", "state", "job", "estimate_usd", "tuned_model")} == {
        "run": "triage-1",
        "provider": "openai",
        "model": "gpt-4.1-mini",
        "attempt": 1,
        "state": "submitted",
        "job": first.job.id,
        "estimate_usd": 1.25,
        "tuned_model": None,
    }
    assert len(desk.here.api.seen) == asked
    fresh = desk.answer("list", "--refresh")["jobs"]
    assert [(row["state"], row["status"]) for row in fresh] == [("ended", "succeeded")] * 2
    assert fresh[0]["tuned_model"].startswith("ft:")
    assert fresh[0]["billed_tokens"] > 0
    assert desk.answer()["jobs"] == fresh
    screen = desk.screen()
    for words in (first.key, "triage-1", "openai gpt-4.1-mini", "ended: succeeded", "$1.25", "tokens"):
        assert words in screen


def test_a_provider_that_is_silent_is_named_beside_its_job(desk: Desk) -> None:
    """The others are refreshed all the same, and the list is not lost."""
    desk.submit(1)
    desk.submit(2)
    desk.settle()
    desk.here.api.faults.order("quota", "get_job", times=1)
    told = desk.answer("--refresh")["jobs"]
    troubled = [row for row in told if "trouble" in row]
    assert len(troubled) == 1
    assert "no credit left" in troubled[0]["trouble"]
    assert sorted(row["state"] for row in told) == ["ended", "submitted"]
    desk.here.api.faults.order("quota", "get_job", times=1)
    assert "no credit left" in desk.screen("--refresh")


def test_refreshing_takes_no_event_from_a_run_that_waits(desk: Desk) -> None:
    """Events are for the run's log; a look from the command line leaves them."""
    entry = desk.submit()
    desk.settle()
    desk.answer("--refresh")
    assert desk.ledger.read(entry.key).last_event is None


def test_a_job_that_turns_up_is_adopted(desk: Desk) -> None:
    """`reconcile` without a word asks once more, and finds what lists show by now."""
    desk.pause()
    entry = desk.parked()
    assert "settle what nobody could tell: prooftune jobs reconcile KEY --store" in desk.screen()
    told = desk.answer("reconcile", entry.key)
    assert (told["settled"], told["state"]) == (True, "submitted")
    assert [told["job"]] == desk.made
    assert desk.submit().job is not None
    assert desk.here.jobs == 1


def test_a_person_says_that_there_is_no_job(desk: Desk) -> None:
    """Without their word nothing is released; with it the next run submits, once."""
    entry = desk.parked(made=False)
    told = desk.answer("reconcile", entry.key, code=3)
    assert told["error"] == "NeedsReconciliation"
    assert "--job ID" in told["message"]
    assert "--none" in told["message"]
    released = desk.answer("reconcile", entry.key, "--none", "--reason", "the console shows none")
    assert (released["settled"], released["state"]) == (True, "intended")
    assert released["history"][-1]["what"].endswith(": the console shows none")
    assert desk.submit().state == "submitted"
    assert desk.here.jobs == 1


def test_what_is_found_counts_more_than_a_person_s_no(desk: Desk) -> None:
    """`--none` where the provider shows the job: it is adopted, and not paid for twice."""
    desk.pause()
    entry = desk.parked()
    told = desk.answer("reconcile", entry.key, "--none")
    assert (told["state"], desk.here.jobs) == ("submitted", 1)


def test_a_person_names_the_job(desk: Desk) -> None:
    """A job of the order is taken, a job of another order is not, and one that does not exist neither."""
    desk.pause()
    other, entry = desk.submit(1), desk.parked(2)
    assert other.job is not None
    job = next(name for name in desk.made if name != other.job.id)
    told = desk.answer("reconcile", entry.key, "--job", other.job.id, code=2)
    assert f"carries the run key {other.key}" in told["message"]
    assert desk.answer("reconcile", entry.key, "--job", "ftjob-none", code=2)["error"] == "NotFoundError"
    assert "exclude each other" in desk.answer("reconcile", entry.key, "--job", job, "--none", code=2)["message"]
    assert desk.ledger.read(entry.key) == entry
    told = desk.answer("reconcile", entry.key, "--job", job)
    assert (told["job"], told["state"]) == (job, "submitted")
    assert "says" in told["history"][-1]["what"]


def test_of_two_jobs_a_person_says_which_counts(desk: Desk) -> None:
    """What the error asks for is what the command does, also where the ledger knew the other one."""
    entry = desk.submit()
    assert entry.job is not None
    twin = desk.here.tuner.create(entry.order, entry.files_uploaded)
    told = desk.answer("reconcile", entry.key, code=3)
    assert entry.job.id in told["message"]
    assert twin.id in told["message"]
    assert desk.answer("reconcile", entry.key, "--job", twin.id, "--reason", "I cancelled the first")["job"] == twin.id
    assert desk.submit().job is not None
    assert desk.ledger.read(entry.key).job == desk.submit().job


def test_nothing_to_reconcile_is_said(desk: Desk) -> None:
    """An order with its job is settled; one that a run submits just now is not, and is left alone."""
    entry = desk.submit()
    assert desk.answer("reconcile", entry.key)["settled"] is True
    other = desk.ledger.open(Entry(order=desk.order(8), run="triage-8", options=desk.options))
    desk.ledger.uploaded(other.key, Files(train="file-1"))
    desk.ledger.claim(other.key, "a run")
    told = desk.answer("reconcile", other.key)
    assert (told["settled"], told["state"]) == (False, "submitting")
    assert "run its spec again" in desk.screen("reconcile", other.key)
    assert "nothing to reconcile" in desk.answer("reconcile", other.key, "--none", code=2)["message"]


def test_a_job_is_cancelled_and_done_again(desk: Desk) -> None:
    """Cancelled once, whoever asks twice; `again` opens another attempt, which the next run submits."""
    desk.pause()
    entry = desk.submit()
    assert "only a job that failed, was cancelled or left no model" in desk.answer("again", entry.key, "--reason", "x", code=2)["message"]
    told = desk.answer("cancel", entry.key)
    assert (told["state"], told["status"]) == ("ended", "cancelled")
    assert "cancelled by" in told["history"][-1]["what"]
    assert desk.answer("cancel", entry.key) == told
    assert "Missing option '--reason'" in desk.answer("again", entry.key, code=2)["message"]
    second = desk.answer("again", entry.key, "--reason", "the row is corrected")
    assert (second["attempt"], second["state"], second["job"]) == (2, "intended", None)
    assert second["key"] != entry.key
    assert second["key"] in desk.answer("again", entry.key, "--reason", "twice", code=2)["message"]
    assert "and has no job to cancel" in desk.answer("cancel", second["key"], code=2)["message"]
    assert desk.submit().key == second["key"]
    assert desk.here.jobs == 2


@pytest.mark.parametrize("command", [["reconcile"], ["cancel"], ["again", "--reason", "x"]])
def test_a_key_that_is_none_or_unknown_is_a_sentence(desk: Desk, command: list[str]) -> None:
    """With the command that lists the keys."""
    for key, code in (("../secret", 2), (desk.order().key, 1)):
        told = desk.answer(*command, key, code=code)
        assert "`prooftune jobs` lists" in told["message"]
        assert "Traceback" not in desk.call(*command, key).output


def test_a_damaged_entry_is_named(desk: Desk) -> None:
    """The list does not leave it out in silence, and shows the others; a sweep goes on, and says that it may not know every provider."""
    entry = desk.submit()
    other = desk.ledger.open(Entry(order=desk.order(seed=8), run="triage-1", options=desk.options))
    newer = json.loads(desk.store.get(key_of(entry.key))) | {"a_field_of_the_next_version": 1}
    for damage, why in ((b"{", "its beginning"), (json.dumps(newer).encode(), "a_field_of_the_next_version")):
        desk.store.put(key_of(entry.key), damage)
        told = desk.answer(code=1)
        assert ([row["key"] for row in told["jobs"]], list(told["unreadable"])) == ([other.key], [entry.key])
        assert why in told["unreadable"][entry.key]
        assert "no ledger entry of this version" in desk.screen(code=1)
        assert entry.key in desk.answer("sweep", code=3)["not_asked"][0]


@pytest.mark.parametrize("state", ["intended", "submitting", "submitted", "needs_reconciliation"])
def test_every_state_has_a_screen(desk: Desk, state: str) -> None:
    """The list and the order itself, in 80 columns."""
    desk.pause()
    entry = desk.ledger.open(Entry(order=desk.order(), run="triage-with-a-rather-long-name-0123456789abcdef", options=desk.options))
    if state in ("submitting", "needs_reconciliation"):
        entry = desk.ledger.claim(entry.key, "a run")
    if state == "needs_reconciliation":
        desk.ledger.park(entry.key, entry, "no list shows a job")
    if state == "submitted":
        desk.submit()
    assert state.replace("_", " ") in desk.screen()
    if state != "needs_reconciliation":
        assert f"{entry.key} is {state}" in desk.screen("reconcile", entry.key)


def test_words_of_a_provider_are_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor control codes."""
    row = {
        "key": "prooftune-0a",
        "run": "[bold]triage",
        "provider": "openai",
        "model": "gpt",
        "address": "https://x",
        "job": "job-1",
        "status": "\x1b[2J[red]failed",
        "state": "ended",
        "estimate_usd": None,
        "billed_usd": 2.5,
        "billed_tokens": 7,
        "history": [{"at": "now", "by": "ann@host", "what": "\x1b[2J[bold]why"}],
    }
    jobs_screens.jobs({"store": "x", "unreadable": {}, "jobs": [row], "flags": ""})
    jobs_screens.job(row)
    raw = capsys.readouterr().out
    assert "\x1b[2J" not in raw
    for words in ("[red]failed", "[bold]triage", "[bold]why", "$2.50"):
        assert words in raw


def test_nothing_runs(desk: Desk) -> None:
    """At a provider whose models answer as they are, nothing can be left."""
    desk.submit()
    assert desk.answer("sweep") == {
        "store": str(desk.store.root),
        "removed": False,
        "flags": f" --store {desk.store.root}",
        "deployments": [],
        "not_asked": [],
    }
    assert "nothing of ours runs" in desk.screen("sweep", "--remove")


def approve(desk: Desk, *arguments: str) -> Result:
    """Run `prooftune approve …` in this process, on a terminal of 80 columns."""
    return CliRunner().invoke(main, ["approve", *arguments, "--store", str(desk.store.root)], env={"COLUMNS": "80"})


def test_an_answer_is_kept_where_the_server_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends well and says that it woke no run: whoever waits looks for the answer in the store."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}/api")
        ask(desk.store, "triage-0", 31.5, "0d0b4b2e-0000-4000-8000-000000000000", "triage")
        told = approve(desk, "triage-0", "--by", "ann", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["woken"] is False
    assert json.loads(approve(desk, "--json").stdout)["waiting"] == []


def test_an_estimate_is_approved(desk: Desk) -> None:
    """What waits is listed; the first answer counts, whoever says what afterwards; a run that asked nothing is a sentence."""
    assert "no run of" in " ".join(approve(desk).stdout.split())
    ask(desk.store, "triage-0", 31.5, None)
    assert json.loads(approve(desk, "--json").stdout)["waiting"][0]["usd"] == 31.5
    assert "triage-0 asks for $31.50" in " ".join(approve(desk).stdout.split())
    told = json.loads(approve(desk, "triage-0", "--by", "ann", "--reason", "worth it", "--json").stdout)
    assert (told["answer"]["approved"], told["answer"]["by"], told["woken"]) == (True, "ann", False)
    screen = " ".join(ESCAPE.sub("", approve(desk, "triage-0", "--no", "--by", "bob").stdout).split())
    assert "$31.50 of triage-0 approved by ann" in screen
    assert "the next run of the spec finds it" in screen
    assert json.loads(approve(desk, "--json").stdout)["waiting"] == []
    unknown = approve(desk, "triage-x", "--json")
    assert (unknown.exit_code, "waiting: none" in json.loads(unknown.stdout)["message"]) == (2, True)
