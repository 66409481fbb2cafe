"""The validate stage: every planted flaw is found, named by line and dealt with as the spec says."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from prooftune.data.lines import read_lines, write_lines
from prooftune.data.validation import validate
from prooftune.errors import DataError
from prooftune.spec import Data, digest
from prooftune.types import Example, Finding, Progress, Record

QUESTIONS = (
    "Why was my card declined at the supermarket this morning?",
    "How long does a transfer to another bank take?",
    "The machine kept my card, what now?",
    "Please change the address on my account.",
    "Is there a fee for paying in a foreign currency?",
    "I forgot my passcode and cannot log in.",
    "Where do I see last month's statement?",
    "A payment shows twice in my list.",
)
FLAWED: list[dict[str, Any]] = [
    *({"prompt": question, "completion": "ab"[number % 2]} for number, question in enumerate(QUESTIONS)),
    {"prompt": "why was my card  DECLINED at the supermarket this morning?", "completion": "a"},  # 9 exact duplicate of 1
    {"prompt": "Can I have two accounts?", "completion": "a"},  # 10 contradicts 11
    {"prompt": "Can I have two accounts?", "completion": "b"},  # 11
    {"prompt": "How long does a transfer to another bank takes?", "completion": "b"},  # 12 near-duplicate of 2
    {"prompt": "Is there any fee for paying in a foreign currency?", "completion": "b"},  # 13 near-contradiction of 5
    {"prompt": "", "completion": "a"},  # 14 empty
    {"prompt": "Only a question", "completion": " "},  # 15 empty
    {"prompt": "Write to jane.roe@example.com about the loan", "completion": "a"},  # 16 e-mail address
    {"prompt": "What was my address again?", "completion": "It is jane.roe@example.com"},  # 17 e-mail address in the target
]
INGEST = [
    Finding(where="t.jsonl:18", code="broken-line", reason="is not JSON", action="dropped"),
    Finding(where="t.jsonl:3", code="bidi-control", reason="holds a control character", action="kept"),
]


def run(tmp_path: Path, rows: list[dict[str, Any]], ingest: list[Finding] | None = None, **options: Any) -> dict[str, Any]:
    """Validate rows as if ingest had read them."""
    tmp_path.mkdir(exist_ok=True)
    write_lines(tmp_path / "records.jsonl", [Record(source=f"t.jsonl:{line}", fields=fields) for line, fields in enumerate(rows, start=1)])
    write_lines(tmp_path / "problems.jsonl", ingest or [])
    (tmp_path / "out").mkdir()
    data = Data.model_validate({"source": "t.jsonl", "on_invalid": "skip", **options})
    return validate(tmp_path / "records.jsonl", tmp_path / "problems.jsonl", data, tmp_path / "out")


def examples(tmp_path: Path) -> dict[int, Example]:
    """The kept examples by line."""
    return {int(one.source.split(":")[1]): one for one in read_lines(tmp_path / "out" / "examples.jsonl", Example)}


def findings(tmp_path: Path) -> list[tuple[int, str, str]]:
    """Line, code and action of each finding, in order."""
    return [(int(one.where.split(":")[1]), one.code, one.action) for one in read_lines(tmp_path / "out" / "findings.jsonl", Finding)]


def test_every_flaw_is_found_and_dealt_with(tmp_path: Path) -> None:
    """Exact and near duplicates, contradictions, empty fields, personal data and what ingest found, in source order."""
    figures = run(tmp_path, FLAWED, INGEST)
    assert findings(tmp_path) == [
        (2, "near-duplicate", "grouped"),
        (3, "bidi-control", "kept"),
        (5, "near-contradiction", "kept"),
        (5, "near-duplicate", "grouped"),
        (9, "exact-duplicate", "dropped"),
        (10, "contradiction", "dropped"),
        (11, "contradiction", "dropped"),
        (12, "near-duplicate", "grouped"),
        (13, "near-contradiction", "kept"),
        (13, "near-duplicate", "grouped"),
        (14, "empty-prompt", "dropped"),
        (15, "empty-target", "dropped"),
        (16, "pii-email", "redacted"),
        (17, "pii-email", "redacted"),
        (18, "broken-line", "dropped"),
    ]
    kept = examples(tmp_path)
    assert list(kept) == [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17]
    assert kept[2].group == kept[12].group != kept[5].group == kept[13].group != ""
    assert kept[1].group == ""
    assert (figures["rows"], figures["valid"], figures["kept"]) == (18, 15, 12)
    assert figures["findings"]["near-duplicate"] == {"grouped": 4}
    assert (figures["clusters"], figures["clustered"], figures["largest_cluster"], figures["shape"]) == (2, 4, 2, "prompt_completion")
    assert figures["target_values"] == {"distinct": 3, "top": {"b": 6, "a": 5, "It is [EMAIL]": 1}}
    json.dumps(figures)


def test_findings_name_the_other_lines(tmp_path: Path) -> None:
    """A duplicate, a contradiction and a near-contradiction say with which line."""
    run(tmp_path, FLAWED)
    reasons = {(one.where, one.code): one.reason for one in read_lines(tmp_path / "out" / "findings.jsonl", Finding)}
    assert "t.jsonl:1;" in reasons["t.jsonl:9", "exact-duplicate"]
    assert "t.jsonl:11 " in reasons["t.jsonl:10", "contradiction"]
    assert "t.jsonl:5 " in reasons["t.jsonl:13", "near-contradiction"]


def test_redaction_reaches_target_and_metadata_and_renews_the_id(tmp_path: Path) -> None:
    """No stage after this one sees the address; equal metadata values stay equal; the id is that of the new content."""
    rows = [{**row, "customer": "max@example.org"} for row in FLAWED]
    run(tmp_path, rows)
    for path in sorted((tmp_path / "out").rglob("*")):
        assert path.is_dir() or not re.search(rb"jane|max@|example\.(com|org)", path.read_bytes())
    kept = examples(tmp_path)
    assert kept[16].messages[0].content == "Write to [EMAIL] about the loan"
    assert kept[17].target == "It is [EMAIL]"
    assert len({one.metadata["customer"] for one in kept.values()}) == 1
    assert kept[17].id == digest([message.model_dump() for message in kept[17].messages])[:16]


@pytest.mark.parametrize(("policy", "lines", "action"), [("allow", {16, 17}, "kept"), ("drop", set(), "dropped")])
def test_pii_policies(tmp_path: Path, policy: str, lines: set[int], action: str) -> None:
    """``allow`` keeps the text and says so; ``drop`` takes the example out."""
    run(tmp_path, FLAWED, pii=policy)
    kept = examples(tmp_path)
    assert {16, 17} & set(kept) == lines
    assert [(line, done) for line, code, done in findings(tmp_path) if code == "pii-email"] == [(16, action), (17, action)]
    assert all("jane.roe@" in kept[line].model_dump_json() for line in lines)


def test_pii_stop_lists_every_row(tmp_path: Path) -> None:
    """``stop`` raises with each row, and without the personal data."""
    with pytest.raises(DataError, match="2 examples hold personal data") as caught:
        run(tmp_path, FLAWED, pii="stop")
    assert [problem.where for problem in caught.value.problems] == ["t.jsonl:16", "t.jsonl:17"]
    assert "jane" not in str(caught.value)


def test_rows_that_differ_only_in_personal_data_are_duplicates(tmp_path: Path) -> None:
    """Redaction comes before duplicates are looked for."""
    rows = [*FLAWED[:8], *({"prompt": f"Write to {name}@example.com", "completion": "a"} for name in ("ann", "bob"))]
    run(tmp_path, rows)
    assert (10, "exact-duplicate", "dropped") in findings(tmp_path)


def test_contradictions_can_be_kept(tmp_path: Path) -> None:
    """``keep`` lists them all the same, and puts them into one group."""
    run(tmp_path, FLAWED, contradictions="keep")
    kept = examples(tmp_path)
    assert kept[10].group == kept[11].group != ""
    assert [(line, done) for line, code, done in findings(tmp_path) if code == "contradiction"] == [(10, "kept"), (11, "kept")]


def test_json_targets_that_say_the_same_do_not_contradict(tmp_path: Path) -> None:
    """Key order and spaces in a JSON target are no difference."""
    rows = [*FLAWED[:8], {"prompt": "Loan?", "completion": '{"a": 1, "b": 2}'}, {"prompt": "Loan?", "completion": '{"b":2,"a":1}'}]
    run(tmp_path, rows)
    assert findings(tmp_path) == [(10, "exact-duplicate", "dropped")]


def test_fail_lists_every_invalid_row_at_once(tmp_path: Path) -> None:
    """``fail`` names what ingest and conversion rejected together, but no duplicate: cleaning is not an error."""
    with pytest.raises(DataError, match=r"3 of 18 rows are invalid.*on_invalid: skip") as caught:
        run(tmp_path, FLAWED, INGEST, on_invalid="fail")
    assert [problem.where for problem in caught.value.problems] == ["t.jsonl:14", "t.jsonl:15", "t.jsonl:18"]
    assert run(tmp_path / "clean", FLAWED[:13], on_invalid="fail")["kept"] == 10


def test_nothing_valid_is_an_error_with_reasons(tmp_path: Path) -> None:
    """Where every row is invalid even ``skip`` stops, and says why each is."""
    with pytest.raises(DataError, match="none of 2 rows is a valid example of shape prompt_completion") as caught:
        run(tmp_path, FLAWED[13:15])
    assert len(caught.value.problems) == 2


def test_everything_dropped_is_an_error(tmp_path: Path) -> None:
    """Contradictions alone leave nothing to learn from."""
    with pytest.raises(DataError, match="all 2 valid examples were dropped"):
        run(tmp_path, FLAWED[9:11])


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """Outputs hold no time and no path of this run, the Data Docs included."""
    for name in ("one", "two"):
        run(tmp_path / name, FLAWED, INGEST)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / "out").rglob("*") if path.is_file())
    assert {path.name for path in files} == {"examples.jsonl", "findings.jsonl", "profile.csv", "index.html"}
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)


def test_the_profile_has_a_row_a_record_and_no_text(tmp_path: Path) -> None:
    """Kept, dropped and rejected rows each have their line in the table, in source order."""
    run(tmp_path, FLAWED, INGEST)
    text = (tmp_path / "out" / "profile.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [int(row["where"].split(":")[1]) for row in rows] == list(range(1, 19))
    status = {int(row["where"].split(":")[1]): row["status"] for row in rows}
    assert {line for line, value in status.items() if value == "rejected"} == {14, 15, 18}
    assert {line for line, value in status.items() if value == "dropped"} == {9, 10, 11}
    assert rows[4]["codes"] == "near-contradiction near-duplicate"
    assert "card" not in text


def test_progress_is_reported(tmp_path: Path) -> None:
    """The last report says that all rows are done."""
    seen: list[Progress] = []
    run(tmp_path, FLAWED)
    (tmp_path / "again").mkdir()
    validate(tmp_path / "records.jsonl", tmp_path / "problems.jsonl", Data(source="x", on_invalid="skip"), tmp_path / "again", seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (17, 17, "rows")
