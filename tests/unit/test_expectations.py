"""Great Expectations on the profile table, and Data Docs that need no network."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from prooftune.data.expectations import check_expectations
from prooftune.data.validation import PROFILE
from prooftune.errors import DataError


def row(number: int, **changes: Any) -> dict[str, Any]:
    """One kept example's line of the profile."""
    good = {
        "where": f"t.jsonl:{number}",
        "id": f"{number:016x}",
        "status": "kept",
        "messages": 2,
        "roles": "user assistant",
        "prompt_chars": 60 + number,
        "target_chars": 4,
        "target_id": "ab"[number % 2],
        "class_size": 10,
        "class_share": 0.5,
        **dict.fromkeys(("is_rejected", "is_duplicate", "is_contradiction", "is_near_duplicate"), 0),
        "is_kept": 1,
    }
    return good | changes


def check(tmp_path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the table and check it."""
    with (tmp_path / "profile.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, PROFILE, restval="")
        table.writeheader()
        table.writerows(rows)
    return check_expectations(tmp_path / "profile.csv", tmp_path)


def test_good_examples_meet_every_expectation(tmp_path: Path) -> None:
    """Nothing is warned about in clean data."""
    figures = check(tmp_path, [row(number) for number in range(20)])
    assert figures["evaluated"] == figures["successful"] == 15
    assert figures["warnings"] == []


def test_free_text_targets_have_no_classes_to_judge(tmp_path: Path) -> None:
    """Empty class columns are not a failure."""
    figures = check(tmp_path, [row(number, class_size="", class_share="", target_id=f"t{number}") for number in range(20)])
    assert figures["warnings"] == []


@pytest.mark.parametrize(
    ("change", "subject", "says"),
    [
        ({"target_chars": 0}, "target_chars", "No target is empty. Found 1 of 20 otherwise."),
        ({"prompt_chars": 0}, "prompt_chars", "No prompt is empty."),
        ({"roles": "user assistant user"}, "roles", "ends with the assistant's answer"),
        ({"roles": "assistant"}, "roles", "has a user message"),
        ({"id": f"{5:016x}"}, "id", "No example stands twice."),
    ],
)
def test_a_bad_kept_example_is_critical(tmp_path: Path, change: dict[str, Any], subject: str, says: str) -> None:
    """What must never be trained on stops the run, and the Data Docs are there to look at."""
    with pytest.raises(DataError) as caught:
        check(tmp_path, [row(0, **change), *(row(number) for number in range(1, 20))])
    assert any(subject in problem.where and says in problem.reason for problem in caught.value.problems)
    assert "text-danger" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt_chars": 50_000}, "Prompts have at most"),
        ({"class_size": 2}, "99 % of examples belong to a class"),
        ({"class_share": 0.95}, "more than 90 %"),
        ({"target_id": "a"}, "more than one target"),
    ],
)
def test_a_suspicious_kept_example_is_a_warning(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """A warning is recorded with what was observed, and the run goes on."""
    figures = check(tmp_path, [row(number, **change) for number in range(20)])
    assert [says in warning["expectation"] for warning in figures["warnings"]] == [True]
    assert figures["warnings"][0]["suite"] == "kept-examples"


def test_rejected_rows_are_judged_by_their_share(tmp_path: Path) -> None:
    """An empty target that was dropped is no failure of the kept, but too many such rows are a warning."""
    bad = {"id": "", "status": "rejected", "roles": "", "prompt_chars": 0, "target_chars": 0, "is_kept": 0, "is_rejected": 1}
    figures = check(tmp_path, [*(row(number) for number in range(20)), *(row(number, **bad) for number in range(20, 23))])
    assert figures["warnings"] == [{"suite": "all-records", "expectation": "At most 5 % of the records are invalid.", "observed": "0.1304"}]


class _Loads(HTMLParser):
    """Collects what a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object") or any(name in ("src", "srcset", "href", "onload") for name, _ in attrs):
            self.found.append(tag)


def test_data_docs_are_one_page_that_loads_nothing(tmp_path: Path) -> None:
    """No script, link, picture or address: the page is whole without a network, and shows what failed."""
    check(tmp_path, [row(number, prompt_chars=50_000 + number) for number in range(20)])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    loads = _Loads()
    loads.feed(page)
    assert loads.found == []
    assert not re.search(r"https?://|url\(|@import", page)
    assert "Prompts have at most 32,000 characters." in page
    assert "9 of 10" in page


def test_it_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither progress bars nor log lines of Great Expectations reach the terminal."""
    check(tmp_path, [row(number) for number in range(20)])
    assert capfd.readouterr() == ("", "")
