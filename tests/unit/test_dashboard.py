"""Tests of the dashboard: everything a store knows on one safe page, also where the store is empty, damaged, large or hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from fixtures_dashboard import NOW, put_run, seen, start_retraining

from flows.cli import main
from flows.dashboard import PUBLISHED, write_dashboard
from prooftune.dashboard.page import render
from prooftune.dashboard.reading import read_dashboard
from prooftune.economics import spending
from prooftune.providers.deployment_leases import Lease, key_of
from prooftune.retraining.claims import fail, finish, note_run
from prooftune.retraining.claims import wait as wait_for_job
from prooftune.spec import Provider, Store
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry_approval import settle_approval
from prooftune.storage.registry_document import Change, Registry, change_registry
from tests.fixtures_report import Page

pytest_plugins = ["fixtures_s3", "fixtures_dashboard"]


def test_an_empty_store_is_a_page_that_says_how_to_begin(tmp_path: Path) -> None:
    """Where nothing was run there is nothing to show, and reading makes no store."""
    view = seen(tmp_path / "none")
    page = Page(render(view))
    assert page.open == []
    assert "The store holds no run yet" in page.text
    assert "Nothing waits for you" in page.text
    assert not (tmp_path / "none").exists()


def test_tasks_show_their_champion_and_how_it_came_to_be(address: Path) -> None:
    """The champion, its interval, since when, by whom, the challenger, and the line of champions stand at its task."""
    view = seen(address)
    triage, invoices = view.tasks
    assert (triage.name, triage.registry.champion, triage.registry.challenger) == ("triage", "triage-0", "triage-3")
    assert [change.champion for change in triage.registry.changes] == ["triage-0", "triage-1", "triage-0"]
    assert triage.in_line == {"triage-0"}
    champion = triage.run("triage-0")
    assert champion is not None
    assert (champion.value, champion.ci_low, champion.method) == (0.8, pytest.approx(0.75), "lora")
    text = Page(render(view)).text
    assert "0.800 exact match, 0.750 to 0.850" in text
    assert "put back by maria" in text
    assert "too curt for customers" in text
    assert "invoices" in text
    assert "no champion" in text
    assert [run.run_id for run in invoices.runs] == ["invoices-7", "invoices-8"]
    assert invoices.runs[1].at is None


def test_an_approved_promotion_says_who_approved(tmp_path: Path) -> None:
    """The line of champions has a promotion that a person was asked about as one that was approved, and by whom."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    run_id = put_run(store, tmp_path / "files", "triage", 1, "promote", ask=True)
    settle_approval(store, "triage", run_id, approved=True, by="maria", reason="seen")
    text = Page(render(seen(tmp_path / "store"))).text
    assert "approved by maria: the gate's verdict is promote; approved: seen" in text


@pytest.mark.parametrize("action", get_args(Change.model_fields["action"].annotation))
def test_every_change_of_a_champion_has_its_words(action: Any, tmp_path: Path) -> None:
    """Whatever a registry may say of a change, the page is made."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    run_id = put_run(store, tmp_path / "files", "triage", 1, "promote")

    def changed(registry: Registry) -> Registry:
        return registry.model_copy(update={"changes": (registry.changes[0].model_copy(update={"action": action}),)})

    change_registry(store, "triage", changed)
    assert run_id in Page(render(seen(tmp_path / "store"))).text


def test_trends_draw_what_a_task_measured(address: Path) -> None:
    """A task with several runs has a plot in the page's colours; one whose runs tell of one value has none."""
    page = Page(render(seen(address)))
    labels = [attributes["aria-label"] or "" for tag, attributes in page.elements if tag == "svg"]
    assert labels == ["exact match of 4 runs from 2026-10-13 to 2026-11-12, with 95 % intervals; the champion's went from 0.800 to 0.800."]
    styles = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", styles)) == set()


def test_a_retraining_shows_what_caused_it_and_what_came_of_it(address: Path) -> None:
    """The signal's words, kind and occurrence, the day, and the verdict with a link to the run's report."""
    rows = Page(render(seen(address), lambda key: key)).text.split("what came of it")[1].split("Line of champions")[0]
    assert " ".join(rows.split()) == "2026-10-23 because of 5e1f0c data 5e1f0c promote triage-1"


ENDS: dict[str, tuple[Callable[[ObjectStore, int], object], str]] = {
    "runs": (lambda store, token: note_run(store, "new", token, "new-1"), "under way new-1"),
    "is dead": (lambda store, token: None, "its process is dead its signal starts it again"),
    "waits": (lambda store, token: wait_for_job(store, "new", token, "new-1"), "waits for its job new-1"),
    "failed": (lambda store, token: fail(store, "new", token, "JobFailed: row 7"), "failed JobFailed: row 7"),
    "had nothing to do": (lambda store, token: finish(store, "new", token, "nothing_new", trained=False), "nothing new"),
    "promoted what is gone": (lambda store, token: finish(store, "new", token, "promote, run new-0"), "promote new-0"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_task_that_only_has_a_retraining_is_shown_with_how_that_is(end: str, tmp_path: Path) -> None:
    """In whichever state, before its first run is there; what it is made from lies beside it, and is no retraining."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    at = NOW - timedelta(hours=1 if end == "is dead" else 0)
    step, told = ENDS[end]
    step(store, start_retraining(store, "new", "request", "export-7", at))
    store.put("retrains/new/request-0123.json", b"{}")
    view = read_dashboard(store, NOW)
    assert [task.name for task in view.tasks] == ["new"]
    assert view.troubles == ()
    rows = Page(render(view)).text.split("what came of it")[1]
    assert " ".join(rows.split()).startswith(f"2026-11-22 because of export-7 request export-7 {told}")


def test_spend_stands_against_the_budget_of_the_newest_spec(address: Path) -> None:
    """What is held and billed in a project's month is set against the limit that a published spec names."""
    view = seen(address)
    [month] = view.months
    assert (month.project, month.billed_usd, month.held_usd, month.limit_usd) == ("shared", 15.5, 80, 100)
    text = Page(render(view)).text
    assert "$95.50 of $100" in text
    assert "$15.50 billed for 1 run, $80 held for 1 run; $4.50 left" in text


def test_an_evaluation_of_a_champion_is_no_run(tmp_path: Path) -> None:
    """The month says how many of each there are."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    for number in range(3):
        key = spending.evaluation_key("triage-1", NOW + timedelta(days=number))
        spending.hold(store, "shared", key, 0.25, None, NOW)
        if number:
            spending.settle(store, "shared", key, {key: 0.4})
    spending.hold(store, "shared", "triage-1", 20, None, NOW)
    spending.settle(store, "shared", "triage-1", {"triage-1": 15})
    text = " ".join(Page(render(read_dashboard(store, NOW))).text.split())
    assert "$15.80 billed for 1 run and 2 nightly evaluations, $0.25 held for 1 nightly evaluation; no published spec" in text


def test_what_waits_for_a_person_comes_first_with_the_command_that_settles_it(address: Path) -> None:
    """Open questions, jobs to reconcile, what dead runs left and budgets that are nearly spent; answered and ended ones are not there."""
    view = seen(address)
    [entry] = view.to_reconcile
    page = Page(render(view, flags=" --store here"))
    assert page.text.index("5 matters wait for you") < page.text.index("Champions")
    assert "Deployment left running. left of fireworks still runs for $9 an hour" in page.text
    for command in ("jobs sweep --remove", f"jobs reconcile {entry.key}", "approve invoices-9"):
        assert f"prooftune {command} --store here" in page.text
    assert "$95.50 of $100 of the project shared are billed or held." in page.text
    assert "Promotion to approve. triage-3 is to be the champion of triage" in page.text
    assert "invoices-10" not in page.text
    assert "job-0" not in page.text.replace("triage-job-0", "")
    assert "triage-job-1 since" in page.text
    assert [(lease.name, view.in_use(lease)) for lease in view.leases] == [("alive", True), ("left", False)]


def test_a_quiet_store_says_that_nothing_waits(tmp_path: Path) -> None:
    """With a champion and nothing else there is nothing to do."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    put_run(store, tmp_path / "files", "triage", 1, "promote")
    assert "Nothing waits for you" in Page(render(read_dashboard(store, NOW))).text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"task": 3}', b"\xff\xfe", b"[" * 5000, b"null"], ids=["empty", "list", "other", "bytes", "deep", "null"]
)
def test_a_damaged_document_is_said_and_the_rest_is_shown(content: bytes, tmp_path: Path) -> None:
    """A document of any kind that is no such document is named on the page; the runs beside it are there."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    put_run(store, tmp_path / "files", "triage", 1, "promote")
    places = (
        "registry/broken.json",
        "retrains/broken.json",
        "runs/broken/manifest.json",
        "ledger/spending/shared/2026-11.json",
        "ledger/approvals/asked/broken.json",
        f"ledger/jobs/prooftune-{'0' * 24}.json",
        "ledger/waiting/broken.json",
        "ledger/deployments/broken.json",
    )
    for place in places:
        store.put(place, content)
    view = read_dashboard(store, NOW)
    assert len(view.troubles) == len(places)
    text = Page(render(view)).text
    assert text.count("Document that cannot be read.") == len(places)
    assert "triage-1" in text


def test_figures_that_are_no_numbers_are_damage(tmp_path: Path) -> None:
    """NaN, infinity and a time that is none, which JSON readers let through, neither crash the page nor reach it."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    run_id = put_run(store, tmp_path / "files", "triage", 1, "promote")
    key = f"runs/{run_id}/manifest.json"
    store.put(key, store.get(key).replace(b'"candidate_value": 0.8', b'"candidate_value": NaN'))
    store.put("registry/triage.json", store.get("registry/triage.json").replace(b"2026-11-22T09:30:00+00:00", b"yesterday"))
    store.put("ledger/approvals/asked/a-1.json", b'{"key": "a-1", "usd": 1e999, "at": "x"}')
    lease = Lease(name="a", holder="h", provider="x", address="x", options=Provider(), model="m", usd_per_hour=1, since=NOW, renewed=NOW)
    store.put(key_of("a", "h"), lease.model_dump_json().replace("+00:00", "").replace("Z", "").encode())
    view = read_dashboard(store, NOW)
    assert {trouble.where for trouble in view.troubles} == {run_id, "ledger/approvals/asked/a-1.json"}
    assert [one.name for one in view.leases] == ["a"]
    [run] = view.runs
    assert (run.run_id, run.at, run.report) == (run_id, None, None)
    assert "nan" not in Page(render(view)).text.lower().split()


def call(*arguments: str | Path) -> dict[str, Any]:
    """Run the command and return its document."""
    result = CliRunner().invoke(main, ["dashboard", "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def links_of(page: Path) -> set[str]:
    """Return the addresses that a page links to, its own parts left out."""
    found = (attributes.get("href") or "" for _, attributes in Page(page.read_text(encoding="utf-8")).elements)
    return {link for link in found if link and not link.startswith(("#", "data:"))}


def test_links_lead_to_the_reports_from_wherever_the_page_is(address: Path, tmp_path: Path) -> None:
    """A page beside the store, in a folder of its own and in the store reaches every report by a relative address."""
    written = [call("--store", address, "--output", where)["page"] for where in (tmp_path / "a b.html", tmp_path / "folder")]
    assert written == [str(tmp_path / "a b.html"), str(tmp_path / "folder" / "index.html")]
    published = call("--store", address, "--publish")
    assert published["page"] is None
    assert published["published"] == str(address / PUBLISHED)
    for page in (*map(Path, written), address / PUBLISHED):
        links = links_of(page)
        assert len(links) == 6
        assert all((page.parent / link).resolve().read_text().startswith("report of ") for link in links)
    assert all(link.startswith("../runs/") for link in links_of(address / PUBLISHED))


def test_a_key_that_leads_out_of_the_store_is_no_link(tmp_path: Path) -> None:
    """A damaged manifest cannot make the page link anywhere else."""
    store = open_store(Store(uri=str(tmp_path / "store")))
    for number, key in enumerate(("../../etc/passwd", "javascript:alert(1)", "//host/x", "a b")):
        run_id = put_run(store, tmp_path / "files", "triage", number, "keep_baseline")
        text = json.loads(store.get(f"runs/{run_id}/manifest.json"))
        text["files"]["report.html"]["key"] = key
        store.put(f"runs/{run_id}/manifest.json", json.dumps(text).encode())
    write_dashboard(tmp_path / "page.html", False, str(tmp_path / "store"), None)
    assert links_of(tmp_path / "page.html") == set()


def test_the_command_says_what_waits_and_where_the_page_is(address: Path, tmp_path: Path) -> None:
    """The document counts runs and names champions and matters; people see the same, and a place that cannot be written is exit 3."""
    document = call("--store", address, "--output", tmp_path / "page.html")
    assert (document["runs"], document["tasks"], document["champions"]) == (6, 2, {"triage": "triage-0"})
    assert document["waits"][0]["what"] == "Deployment left running"
    shown = CliRunner().invoke(main, ["dashboard", "--store", str(address), "--output", str(tmp_path / "page.html")])
    assert shown.exit_code == 0
    assert "prooftune approve invoices-9 --store" in shown.stdout
    refused = CliRunner().invoke(main, ["dashboard", "--store", str(address), "--output", str(tmp_path / "page.html" / "x.html"), "--json"])
    assert (refused.exit_code, json.loads(refused.stdout)["error"]) == (3, "EnvironmentLacks")


@pytest.mark.slow
def test_a_published_page_of_an_s3_store_opens_in_a_browser(s3_uri: str, s3_server: Any, tmp_path: Path) -> None:
    """The page and the reports are stored as HTML, which a browser shows; a page outside such a store links to nothing."""
    store = open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))
    put_run(store, tmp_path / "files", "triage", 1, "promote")
    document = call("--store", s3_uri, "--endpoint-url", s3_server.endpoint, "--publish", "--output", tmp_path / "page.html")
    assert document["published"] == f"{s3_uri}/{PUBLISHED}"
    assert links_of(tmp_path / "page.html") == set()
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    keys = [item["Key"] for item in s3_server.client().list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    pages = [key for key in keys if key.endswith(".html")]
    assert len(pages) == 2
    for key in pages:
        assert s3_server.client().head_object(Bucket=bucket, Key=key)["ContentType"] == "text/html; charset=utf-8"
