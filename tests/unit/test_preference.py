"""Preference pairs: which records are pairs, what cleaning does to them, and the files that trainers get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data import shapes
from prooftune.data.cleaning import drop_exact_duplicates, handle_pii, settle_contradictions
from prooftune.data.formatting import format_splits
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.shapes import convert, detect_shape, example_id, resolve_shape
from prooftune.data.validation import validate
from prooftune.evaluation.champion import Learnt
from prooftune.spec import Columns, Data
from prooftune.training.encoding import with_system
from prooftune.types import Example, Finding, Message, Record

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(lambda text: text.strip() != "")
USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "good"), ("assistant", "bad")))


def one(fields: dict[str, object], shape: str = "preference") -> Example | Finding:
    """What a single record becomes."""
    return next(convert([Record(source="x.jsonl:1", fields=fields)], Data.model_validate({"source": "x.jsonl", "shape": shape})))


def pair(prompt: str, chosen: str, rejected: str | None, number: int = 1) -> Example:
    """Return an example with a rejected answer."""
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=chosen))
    return Example(id=example_id(messages, rejected), source=f"x.jsonl:{number}", messages=messages, rejected=rejected)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"question": "Q", "chosen": "good", "rejected": "bad"},
        {"messages": [USER], "chosen": "good", "rejected": [BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Q", "messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"input": {"messages": [USER], "tools": []}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    ],
)
def test_every_form_becomes_the_same_pair(fields: dict[str, Any]) -> None:
    """TRL's explicit and implicit prompts and OpenAI's rows give equal messages, rejected answer and id, also under ``auto``."""
    found = one(fields)
    assert isinstance(found, Example), found
    assert [(message.role, message.content) for message in found.messages] == [("user", "Q"), ("assistant", "good")]
    assert (found.target, found.rejected, found.metadata) == ("good", "bad", {})
    assert found.id == pair("Q", "good", "bad").id
    assert one(fields, "auto") == found
    assert detect_shape(fields, Columns()) == "preference"


def test_the_id_counts_the_rejected_answer() -> None:
    """Pairs that differ in it alone are two examples; an example without one keeps the id that it always had."""
    assert len({pair("Q", "good", rejected).id for rejected in (None, "bad", "worse")}) == 3
    chat = one({"messages": [USER, GOOD]}, "chat")
    assert isinstance(chat, Example)
    assert chat.id == pair("Q", "good", None).id
    assert "rejected" not in json.loads(chat.model_dump_json())


def test_texts_that_begin_alike_share_their_prompt() -> None:
    """The prompt ends at the last word that both have in common, and nothing of the answers is lost."""
    found = one({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert isinstance(found, Example), found
    assert (found.prompt[0].content, found.target, found.rejected) == ("The sky is", " blue.", " black.")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": "Q", "chosen": "same ", "rejected": " same"}, "equal-answers"),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "equal-answers"),
        ({"prompt": "Q", "chosen": "good", "rejected": " "}, "empty-rejected"),
        ({"prompt": "Q", "chosen": " ", "rejected": "bad"}, "empty-target"),
        ({"prompt": " ", "chosen": "good", "rejected": "bad"}, "empty-prompt"),
        ({"prompt": "Q", "chosen": "good"}, "missing-field"),
        ({"prompt": "Q", "chosen": "good", "rejected": None}, "wrong-type"),
        ({"prompt": 7, "chosen": "good", "rejected": "bad"}, "wrong-type"),
        ({"prompt": "Q", "chosen": [], "rejected": "bad"}, "not-one-answer"),
        ({"prompt": "Q", "chosen": "good", "rejected": [USER, BAD]}, "not-one-answer"),
        ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "P"}, BAD]}, "not-one-answer"),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "not-one-answer"),
        ({"chosen": [USER, GOOD], "rejected": [USER, USER]}, "ends-with-user"),
        ({"chosen": "good", "rejected": "bad"}, "no-prompt"),
        ({"input": [USER], "preferred_output": [GOOD], "non_preferred_output": [BAD]}, "wrong-type"),
        ({"input": {"messages": [USER]}, "preferred_output": [USER, GOOD], "non_preferred_output": [BAD]}, "not-one-answer"),
    ],
)
def test_what_is_no_pair_is_a_finding(fields: dict[str, Any], code: str) -> None:
    """Each with its code and where it stands, and without a word of its text."""
    found = one(fields)
    assert isinstance(found, Finding), found
    assert (found.code, found.where, found.action) == (code, "x.jsonl:1", "dropped")
    assert "good" not in found.reason


def test_other_shapes_stay_what_they_were() -> None:
    """One column of a pair does not make a pair."""
    records = [Record(source="x.jsonl:1", fields={"prompt": "Q", "completion": "A", "rejected": True})]
    assert resolve_shape(records, Data(source="x.jsonl")) == "prompt_completion"


def test_personal_data_is_redacted_in_the_rejected_answer_too() -> None:
    """It is counted, and the id is that of the redacted pair."""
    kept, findings = handle_pii([pair("Q", "good", "write to a@b.example")], "redact")
    assert kept == [pair("Q", "good", "write to [EMAIL]")]
    assert [(finding.code, finding.action) for finding in findings] == [("pii-email", "redacted")]
    assert handle_pii([pair("Q", "good", "write to a@b.example")], "drop")[0] == []


def test_a_pair_that_differed_in_personal_data_alone_is_dropped() -> None:
    """Redacted, chosen and rejected are the same, and there is nothing to prefer."""
    kept, findings = handle_pii([pair("Q", "write to a@b.example", "write to c@d.example")], "redact")
    assert kept == []
    assert [(finding.code, finding.action) for finding in findings] == [("pii-email", "redacted"), ("equal-answers", "dropped")]


def test_duplicates_are_the_same_prompt_and_chosen_answer() -> None:
    """As without a rejected answer; the first is kept."""
    kept, findings = drop_exact_duplicates([pair("Q", "good", "bad", 1), pair("Q", "good", "worse", 2), pair("Q", "better", "bad", 3)])
    assert [example.source for example in kept] == ["x.jsonl:1", "x.jsonl:3"]
    assert [finding.code for finding in findings] == ["exact-duplicate"]


def test_pairs_contradict_where_one_rejects_what_the_other_has_chosen() -> None:
    """Several pairs of one prompt may agree; each contradiction names the other row once."""
    pairs = [pair("Q", "a", "b", 1), pair("q", "b", "a", 2), pair("Q", "c", "d", 3), pair("R", "b", "a", 4)]
    kept, findings = settle_contradictions(pairs, "drop")
    assert [example.source for example in kept] == ["x.jsonl:3", "x.jsonl:4"]
    assert [(finding.where, finding.code) for finding in findings] == [("x.jsonl:1", "contradiction"), ("x.jsonl:2", "contradiction")]
    assert findings[0].reason.count("x.jsonl:2") == 1


@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT).filter(lambda row: row[1].strip() != row[2].strip()), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_both_files_read_back_as_the_same_pairs(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    """Our own reader turns each trainer's rows back into the pairs that went in, system message added."""
    out = tmp_path_factory.mktemp("format")
    pairs = [pair(*row) for row in rows]
    write_lines(out / "t.jsonl", pairs)
    format_splits(out / "t.jsonl", out / "t.jsonl", "Be kind.", out)
    for name in ("train.openai", "train.trl", "validation.openai", "validation.trl"):
        lines = (out / f"{name}.jsonl").read_bytes().splitlines()
        records = [Record(source="x:1", fields=json.loads(line)) for line in lines]
        read = [found for found in shapes.convert(records, Data(source="x")) if isinstance(found, Example)]
        assert [(found.messages, found.rejected) for found in read] == [(with_system(p.messages, "Be kind."), p.rejected) for p in pairs]


def test_the_files_hold_what_openai_and_trl_document(tmp_path: Path) -> None:
    """Field for field; and a later champion's contest finds the prompt in them."""
    write_lines(tmp_path / "t.jsonl", [pair("Q", "good", "bad")])
    format_splits(tmp_path / "t.jsonl", tmp_path / "t.jsonl", "", tmp_path)
    assert json.loads((tmp_path / "train.openai.jsonl").read_text()) == {
        "input": {"messages": [USER]},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    }
    assert json.loads((tmp_path / "train.trl.jsonl").read_text()) == {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    [learnt] = read_lines(tmp_path / "train.openai.jsonl", Learnt)
    assert learnt.messages == (Message(role="user", content="Q"),)


def test_a_file_of_pairs_is_validated(tmp_path: Path) -> None:
    """From records to examples.jsonl: the shape is told, flawed pairs are listed, the others keep their rejected answer."""
    rows = [{"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}" if n else "good 0"} for n in range(6)]
    write_lines(tmp_path / "records.jsonl", [Record(source=f"x.jsonl:{n + 1}", fields=row) for n, row in enumerate(rows)])
    write_lines(tmp_path / "problems.jsonl", [])
    out = tmp_path / "out"
    out.mkdir()
    data = Data.model_validate({"source": "x.jsonl", "on_invalid": "skip"})
    figures: Any = validate(tmp_path / "records.jsonl", tmp_path / "problems.jsonl", data, out)
    assert (figures["shape"], figures["kept"]) == ("preference", 5)
    assert figures["findings"]["equal-answers"] == {"dropped": 1}
    assert {example.rejected for example in read_lines(out / "examples.jsonl", Example)} == {f"bad {n}" for n in range(1, 6)}
