"""The data stages on the example's tickets, held against the answer key of the flaws planted in them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_support import ROOT

from prooftune.data import splitting
from prooftune.data.lines import read_lines
from prooftune.data.reading import read_source
from prooftune.data.splitting import verify_seal
from prooftune.data.validation import validate
from prooftune.spec import load_spec
from prooftune.types import Example, Finding

FOLDER = ROOT / "examples" / "support-triage"
KEY: dict[str, list[Any]] = json.loads((FOLDER / "flaws.json").read_text())


@dataclass(frozen=True)
class Ran:
    """What the three stages wrote, and their figures."""

    folder: Path
    ingested: dict[str, Any]
    validated: dict[str, Any]
    divided: dict[str, Any]

    def findings(self, *codes: str) -> dict[tuple[int, str, str], str]:
        """Reason by line, code and action, of the findings with these codes; none given = all."""
        rows = read_lines(self.folder / "validate" / "findings.jsonl", Finding)
        return {(line_of(row.where), row.code, row.action): row.reason for row in rows if not codes or row.code in codes}

    def examples(self, name: str = "validate/examples") -> dict[int, Example]:
        """Examples of a file by line."""
        return {line_of(row.source): row for row in read_lines(self.folder / f"{name}.jsonl", Example)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Ingest, validate and split as the example's spec asks."""
    data = load_spec(FOLDER / "spec.yaml").data
    folder = tmp_path_factory.mktemp("support-triage")
    outs = ingest, clean, parts = [folder / name for name in ("ingest", "validate", "split")]
    for out in outs:
        out.mkdir()
    ingested = read_source(data.source, ingest, on_invalid="skip")
    validated = validate(ingest / "records.jsonl", ingest / "problems.jsonl", data, clean)
    return Ran(folder, ingested, validated, splitting.split(clean / "examples.jsonl", data.split.model_copy(update={"train": None}), parts))


def line_of(name: str) -> int:
    """The line that ``tickets.jsonl:417`` and ``T-0417`` stand for."""
    return int(re.split(r"[:-]", name)[-1])


def pairs(kind: str) -> list[tuple[int, int]]:
    """Lines of the planted row and of the row it was made from."""
    return [(line_of(entry["id"]), line_of(entry["of"])) for entry in KEY[kind]]


def expected() -> set[tuple[int, str, str]]:
    """Line, code and action of every finding that the answer key calls for."""
    found = {(line, "exact-duplicate", "dropped") for line, _ in pairs("exact_duplicate")}
    for pair in pairs("contradiction"):
        found |= {(line, "contradiction", "dropped") for line in pair}
    for pair in pairs("near_duplicate") + pairs("near_contradiction"):
        found |= {(line, "near-duplicate", "grouped") for line in pair}
    for pair in pairs("near_contradiction"):
        found |= {(line, "near-contradiction", "kept") for line in pair}
    found |= {(line_of(name), "empty-prompt", "dropped") for name in KEY["empty_text"]}
    blank, absent = (line_of(name) for name in KEY["missing_target"])
    found |= {(blank, "empty-target", "dropped"), (absent, "missing-field", "dropped")}
    found |= {(entry["line"], "wrong-type", "dropped") for entry in KEY["wrong_type"]}
    found |= {(line, "broken-line", "dropped") for line in KEY["broken_line"]}
    for kind in ("email", "phone"):
        found |= {(line_of(name), f"pii-{kind}", "redacted") for name in KEY[kind]}
    return found


def test_every_planted_flaw_is_found_and_nothing_else(ran: Ran) -> None:
    """Findings and answer key agree to the line, the code and the action: nothing is missed, nothing made up."""
    found = set(ran.findings())
    assert found - expected() == set()
    assert expected() - found == set()
    assert len(list(read_lines(ran.folder / "validate" / "findings.jsonl", Finding))) == len(found)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("exact_duplicate", "exact-duplicate"),
        ("contradiction", "contradiction"),
        ("near_duplicate", "near-duplicate"),
        ("near_contradiction", "near-duplicate"),
        ("near_contradiction", "near-contradiction"),
    ],
)
def test_the_other_row_is_named(ran: Ran, kind: str, code: str) -> None:
    """A finding about a pair names the line of the partner: for a duplicate that of the first, otherwise each names the other."""
    reasons = {line: reason for (line, _, _), reason in ran.findings(code).items()}
    for line, of in pairs(kind):
        assert f"tickets.jsonl:{of} " in f"{reasons[line]} ".replace(";", " ")
        if code != "exact-duplicate":
            assert f"tickets.jsonl:{line} " in f"{reasons[of]} ".replace(";", " ")


def test_what_goes_on_is_what_the_key_leaves(ran: Ran) -> None:
    """Every row is accounted for: 715 read, 707 with text and target, and those that no finding dropped are the examples."""
    dropped = {line for line, _, action in ran.findings() if action == "dropped"}
    assert set(ran.examples()) == set(range(1, 716)) - dropped
    assert (ran.validated["rows"], ran.validated["valid"], ran.validated["kept"]) == (715, 707, 715 - len(dropped))
    assert ran.ingested["rejected"] == len(KEY["broken_line"]) + 1  # the row that is an array
    firsts = {of for _, of in pairs("exact_duplicate")}
    assert firsts <= set(ran.examples())


def test_personal_data_is_gone_and_the_rest_is_untouched(ran: Ran) -> None:
    """Where the key names an address or a number a placeholder stands, and every other text is the ticket's to the letter."""
    lines = raw_lines()
    redacted = {(line, code) for line, code, _ in ran.findings("pii-email", "pii-phone")}
    for line, example in ran.examples().items():
        text = example.messages[0].content
        assert ("[EMAIL]" in text, "[PHONE]" in text) == ((line, "pii-email") in redacted, (line, "pii-phone") in redacted)
        assert "@example" not in text
        ticket = json.loads(lines[line - 1])
        if not {(line, "pii-email"), (line, "pii-phone")} & redacted:
            assert text == ticket["text"]
        assert json.loads(example.target) == ticket["target"]
        assert example.metadata == {name: ticket[name] for name in ("id", "created", "channel", "product")}


def test_the_counts_of_the_readme_hold(ran: Ran) -> None:
    """The table in the example's README counts the labels, products and channels of the usable tickets."""
    with (ran.folder / "validate" / "profile.csv").open(newline="") as file:
        usable = [line_of(row["where"]) for row in csv.DictReader(file) if row["is_rejected"] == "0"]
    lines = raw_lines()
    tickets = [json.loads(lines[line - 1]) for line in usable]
    columns = {
        **{label: Counter(ticket["target"][label] for ticket in tickets) for label in ("category", "priority", "sentiment")},
        **{column: Counter(ticket[column] for ticket in tickets) for column in ("product", "channel")},
    }
    readme = (FOLDER / "README.md").read_text()
    for name, counts in columns.items():
        [row] = re.findall(rf"^\| {name} \| (\w+ \d+(?: · \w+ \d+)+) \|$", readme, re.MULTILINE)
        assert {label: int(count) for label, count in (entry.split() for entry in row.split(" · "))} == counts
    assert len(tickets) == 707


def test_the_split_divides_no_group_and_seals_the_holdout(ran: Ran) -> None:
    """Pairs of near-duplicates stand in one split, each example in exactly one, and the holdout has the digest that was sealed."""
    split_of = {line: name for name in ("train", "validation", "holdout") for line in ran.examples(f"split/{name}")}
    assert set(split_of) == set(ran.examples())
    assert sum(ran.divided["counts"].values()) == len(split_of)
    for one, other in pairs("near_duplicate") + pairs("near_contradiction"):
        assert split_of[one] == split_of[other]
        assert ran.examples()[one].group == ran.examples()[other].group != ""
    assert ran.divided["counts"]["holdout"] == round(0.2 * len(split_of))
    verify_seal(ran.folder / "split" / "holdout.jsonl", ran.divided["holdout_sha256"])


def raw_lines() -> list[str]:
    """The export's lines as text."""
    return (FOLDER / "tickets.jsonl").read_text(encoding="utf-8").split("\n")
