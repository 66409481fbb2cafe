"""The dashboard as a page: safe with hostile texts, structured, and short where there is much."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures_dashboard import NOW, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.dashboard.page import SHOWN_MONTHS, SHOWN_RETRAININGS, SHOWN_RUNS, SHOWN_TASKS, render
from prooftune.dashboard.view import Dashboard, Run, Task, newest_first
from prooftune.economics import approvals, spending
from prooftune.providers.deployment_leases import Lease
from prooftune.retraining.claims import Claim, State
from prooftune.spec import Provider
from prooftune.storage.registry_document import Change, Registry
from tests.fixtures_report import HOSTILE, Page

pytest_plugins = ["fixtures_dashboard"]
LOADING = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}


def hostile_view(text: str) -> Dashboard:
    """Return a view in which ``text`` stands wherever a document can put text."""
    run = Run(
        run_id=f"run{text}",
        task="t",
        verdict="inconclusive",
        at=NOW,
        reason=text,
        metric=f"metric{text}",
        trained=True,
        value=0.5,
        ci_low=0.4,
        ci_high=0.6,
        baseline=text,
        baseline_value=0.4,
        difference=0.1,
        provider=text,
        model=text,
        method=text,
        report="runs/x/report.html",
        held_back=text,
    )
    change = Change(action="promote", champion_before=None, champion=run.run_id, at=NOW.isoformat(), by=text, reason=text)
    known = Registry(task="t", champion=run.run_id, challenger=f"other{text}", changes=(change,))
    lease = Lease(
        name=text, holder="h", provider=text, address="", options=Provider(), model=text, usd_per_hour=None, since=NOW, renewed=NOW
    )
    later = run.model_copy(update={"run_id": f"later{text}", "at": NOW + timedelta(days=2)})
    claim = Claim(kind="data", digest=text, reason=text, token=1, holder=text, started=NOW, renewed=NOW, runs=(text,), outcome=text)
    states: tuple[State, ...] = ("running", "waiting", "finished", "failed")
    claims = tuple(claim.model_copy(update={"state": state}) for state in states)
    item = spending.Item(key=text, held_usd=1, at=text)
    month = {"project": text, "month": text, "billed_usd": 0, "held_usd": 1, "limit_usd": None, "limit_known": False, "items": (item,)}
    return Dashboard.model_validate(
        {
            "store": text,
            "made_at": NOW,
            "tasks": (Task(name="t", registry=known, runs=(later, run), retrainings=claims),),
            "months": (month,),
            "asked": (approvals.Asked(key=text, usd=3, at=text),),
            "leases": (lease,),
            "troubles": ({"where": text, "what": text},),
        }
    )


def shape(page: Page) -> list[tuple[str, list[str]]]:
    """Return the page's elements with the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in page.elements]


@given(text=st.text(min_size=1) | st.sampled_from([HOSTILE, '"><script>alert(1)</script>', "</style>", "{{ 7 * 7 }}", "' onload='x"]))
@settings(max_examples=30)
def test_text_of_documents_is_text_on_the_page(text: str) -> None:
    """Whatever names and reasons hold, the page has the same elements and attributes as with a harmless word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prooftune.dashboard.page.trend", lambda *_: None)  # a plot takes long, and is asked of below
        page = render(hostile_view(text), lambda key: key)
        harmless = render(hostile_view("word"), lambda key: key)
    assert shape(Page(page)) == shape(Page(harmless))


def test_a_hostile_plot_is_the_same_plot() -> None:
    """The name of a metric reaches the plot as text."""
    page, harmless = (Page(render(hostile_view(text))) for text in ('"><script>alert(1)</script>$x^2$', "word"))
    assert shape(page) == shape(harmless)
    assert "\u202e" not in render(hostile_view(HOSTILE))


def test_the_page_loads_nothing_and_runs_only_its_own_script(address: Path) -> None:
    """No element asks for anything outside the file, and the policy allows the one script by its digest."""
    text = render(seen(address))
    page = Page(text)
    assert not [key for _, attributes in page.elements for key in attributes if key in LOADING or key.startswith("on")]
    links = [attributes["href"] or "" for _, attributes in page.elements if "href" in attributes]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not {tag for tag, _ in page.elements} & {"iframe", "object", "embed", "img", "base"}
    [script] = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [attributes["content"] or "" for _, attributes in page.elements if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "url(" not in " ".join(page.css)


def test_the_page_is_structured_for_readers_of_all_kinds(address: Path) -> None:
    """Headings go down one level at a time, ids are unique, the language is set, and the same view gives the same bytes."""
    text = render(seen(address))
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in page.elements
    assert text == render(seen(address))


def test_many_runs_and_tasks_are_folded() -> None:
    """Of five hundred runs the newest are shown and the others folded by month; retrainings, tasks and months alike; all are there."""
    started = NOW - timedelta(days=499)
    claim = Claim(kind="data", digest="d", reason="r", token=1, holder="h", started=NOW, renewed=NOW)
    retrainings = tuple(claim.model_copy(update={"digest": f"d{at}"}) for at in range(20))
    runs = [
        Run(run_id=f"r{at}", task=f"t{at % 20}", verdict="keep_baseline", at=started + timedelta(days=at), reason="r") for at in range(500)
    ]
    tasks = tuple(
        Task(
            name=name,
            registry=Registry(task=name),
            runs=tuple(newest_first(run for run in runs if run.task == name)),
            retrainings=retrainings if name == "t0" else (),
        )
        for name in (f"t{at}" for at in range(20))
    )
    months = tuple(
        {"project": "p", "month": f"20{at}-01", "billed_usd": 1, "held_usd": 0, "limit_usd": None, "limit_known": True, "items": ()}
        for at in range(30, 10, -1)
    )
    text = render(Dashboard.model_validate({"store": "s", "made_at": NOW, "tasks": tasks, "months": months}))
    shown, *folded = text.split('<section id="runs">')[1].split("<details>")
    assert shown.count("data-verdict=") == SHOWN_RUNS
    assert sum(part.count("data-verdict=") for part in folded) == 500 - SHOWN_RUNS
    assert "<summary>August 2026: 31 runs</summary>" in folded[3] + folded[2] + folded[1]
    shown, folded, *_ = text.split('<article class="task">')[1].split("<details>")
    assert (shown.count("under way"), folded.count("under way")) == (SHOWN_RETRAININGS, 20 - SHOWN_RETRAININGS)
    assert f"<summary>{20 - SHOWN_RETRAININGS} earlier retrainings</summary>" in folded
    assert f"<summary>{20 - SHOWN_TASKS} tasks that were active longer ago</summary>" in text
    assert f"<summary>{20 - SHOWN_MONTHS} earlier</summary>" in text
