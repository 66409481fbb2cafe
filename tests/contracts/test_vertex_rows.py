"""Rows in Gemini's form: what is written passes the checks and the stand-in, and each way to be wrong is found at its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, SpecError
from prooftune.providers import vertex_rows
from prooftune.providers.tuning import Order
from prooftune.providers.vertex_rows import METHODS, check_rows, settings, write_rows
from prooftune.sandbox.vertex_rows import Unfit, read_examples
from prooftune.spec import Hyperparameters, Objective
from prooftune.types import Example, Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
USER = {"role": "user", "parts": [{"text": "hello"}]}
MODEL = {"role": "model", "parts": [{"text": "good day"}]}
ROW = {"contents": [USER, MODEL]}
ASKED = {"contents": [USER], "references": {"reference_answer": "good day"}}
GRADER = json.dumps(
    {
        "stringMatchRewardScorer": {
            "stringMatchExpression": {"matchOperation": "EXACT_MATCH", "expression": "{{references.reference_answer}}"}
        }
    }
)
PAIR = {"contents": [USER], "completions": [{"score": 1, "completion": MODEL}, {"score": 0, "completion": MODEL}]}


def order(objective: Objective = "supervised", **chosen: Any) -> Order:
    """Return an order."""
    return Order(
        provider="vertex",
        address="-",
        model="gemini-3.5-flash",
        objective=objective,
        hyperparameters=Hyperparameters(**chosen),
        seed=7,
        name="triage",
        train_sha256="0" * 64,
        grader=GRADER if objective == "reinforcement" else None,
    )


def codes(path: Path, *rows: object, objective: Objective = "supervised") -> list[tuple[str, str]]:
    """Return where each problem of the rows is, and its code."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return [(problem.where, problem.code) for problem in check_rows(path, order(objective), "train")]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Draw a conversation that begins with the user and ends with the assistant, roles in between as they come; with a rejected answer."""
    roles = ["user", *draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=4)), "user", "assistant"]
    system = [Message(role="system", content=draw(TEXT))] if draw(st.booleans()) else []
    messages = (*system, *(Message(role=role, content=draw(TEXT)) for role in roles))
    return Example(id="0" * 16, source="drawn:1", messages=messages, rejected=draw(TEXT))


@given(drawn=st.lists(examples(), min_size=1, max_size=3), objective=st.sampled_from(list(METHODS)), system=st.just("Sort."))
def test_what_is_written_is_fit_and_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Example], objective: Objective, system: str
) -> None:
    """Rows written from any conversation pass the checks, and the stand-in reads the same answers from them, in their order."""
    folder = tmp_path_factory.mktemp("rows")
    write_lines(folder / "examples.jsonl", drawn)
    write_rows(folder / "examples.jsonl", system, objective, folder / "rows.jsonl")
    assert check_rows(folder / "rows.jsonl", order(objective), "train") == []
    read = read_examples((folder / "rows.jsonl").read_bytes(), objective)
    assert [example.target for example in read] == [example.target for example in drawn]
    assert [example.rejected for example in read] == [example.rejected if objective == "preference" else None for example in drawn]
    assert all(example.messages[0].role == "system" for example in read)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("", "blank-line"),
        ("{", "not-json"),
        ("[]", "not-an-object"),
        ({}, "missing-field"),
        ({**ROW, "messages": []}, "unknown-field"),
        ({**ROW, "systemInstruction": MODEL, "system_instruction": MODEL}, "two-system-instructions"),
        ({**ROW, "systemInstruction": {"parts": []}}, "no-parts"),
        ({"contents": []}, "no-contents"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "hello"}]}]}, "bad-role"),
        ({"contents": [MODEL]}, "wrong-turn"),
        ({"contents": [USER, USER, MODEL]}, "wrong-turn"),
        ({"contents": [USER]}, "wrong-last-role"),
        ({"contents": [{"role": "user"}, MODEL]}, "no-parts"),
        ({"contents": [{"role": "user", "parts": [{"text": ""}]}, MODEL]}, "no-text"),
    ],
)
def test_a_row_that_would_be_refused_is_found_at_its_line(tmp_path: Path, row: object, code: str) -> None:
    """Each way to be wrong has its code, and good rows around it have none."""
    assert codes(tmp_path / "rows.jsonl", ROW, row, ROW) == [("rows.jsonl:2", code)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"contents": [USER, MODEL]}, "wrong-last-role"),
        ({"completions": PAIR["completions"][:1]}, "no-pair"),
        ({"completions": [{"score": 1, "completion": USER}, PAIR["completions"][1]]}, "bad-completion"),
        ({"completions": [PAIR["completions"][1]] * 2}, "bad-score"),
        ({"completions": [{**PAIR["completions"][0], "score": True}, PAIR["completions"][1]]}, "bad-score"),
        ({"completions": [{**PAIR["completions"][0], "score": 0.5}, PAIR["completions"][1]]}, "bad-score"),
        ({"tools": []}, "unknown-field"),
    ],
)
def test_a_pair_that_would_be_refused_is_found_at_its_line(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """A pair has a prompt that ends with the user, a preferred and a dispreferred answer."""
    assert codes(tmp_path / "rows.jsonl", PAIR, {**PAIR, **changes}, objective="preference") == [("rows.jsonl:2", code)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"contents": [USER, MODEL]}, "wrong-last-role"),
        ({"references": {"answer": "good day"}}, "missing-reference"),
        ({"references": {"reference_answer": 4}}, "bad-references"),
        ({"references": []}, "bad-references"),
        ({"completions": []}, "unknown-field"),
    ],
)
def test_a_prompt_that_would_be_refused_is_found_at_its_line(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """A reinforcement row has a prompt that ends with the user, and the references that the grader reads; the stand-in refuses it too."""
    assert codes(tmp_path / "rows.jsonl", ASKED, {**ASKED, **changes}, objective="reinforcement") == [("rows.jsonl:2", code)]
    with pytest.raises(Unfit, match="Line 1"):
        read_examples(json.dumps({**ASKED, **changes}).encode(), "reinforcement", {"reference_answer"})
    assert len(read_examples(json.dumps(ASKED).encode(), "reinforcement", {"reference_answer"})) == 1


def test_bytes_that_are_no_text_and_limits_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UTF-8, bytes of a file, rows, and words of an example, which are tokens at least."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\n")
    assert [problem.code for problem in check_rows(path, order(), "train")] == ["not-utf8"]
    path.write_bytes(b"")
    assert [problem.code for problem in check_rows(path, order(), "train")] == ["too-few-rows"]
    monkeypatch.setattr(vertex_rows, "FILE_BYTES", 10)
    monkeypatch.setitem(vertex_rows.TOKENS_PER_EXAMPLE, "supervised", 2)
    monkeypatch.setitem(vertex_rows.VALIDATION_ROWS_MAX, "supervised", 1)
    assert codes(path, ROW) == [("rows.jsonl", "file-too-large"), ("rows.jsonl:1", "too-long")]
    path.write_text((json.dumps({"contents": [USER, USER | {"role": "model"}]}) + "\n") * 2)
    found = [(problem.where, problem.code) for problem in check_rows(path, order(), "validation")]
    assert found == [("rows.jsonl", "file-too-large"), ("rows.jsonl:2", "too-many-rows")]


def test_examples_that_have_no_such_row_are_refused(tmp_path: Path) -> None:
    """A tool's answer, and a preference without a rejected answer."""
    said = (Message(role="user", content="hello"), Message(role="tool", content="42"), Message(role="assistant", content="good"))
    write_lines(tmp_path / "tool.jsonl", [Example(id="0" * 16, source="t:1", messages=said)])
    write_lines(tmp_path / "plain.jsonl", [Example(id="0" * 16, source="t:1", messages=(said[0], said[2]))])
    with pytest.raises(DataError, match=r"tool\.jsonl:1"):
        write_rows(tmp_path / "tool.jsonl", "", "supervised", tmp_path / "out")
    with pytest.raises(DataError, match=r"plain\.jsonl:1: has no rejected answer"):
        write_rows(tmp_path / "plain.jsonl", "", "preference", tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value"), [("learning_rate", 0.001), ("batch_size", 8), ("adapter_alpha", 8), ("adapter_rank", 3), ("beta", 0.1)]
)
def test_a_hyperparameter_that_vertex_does_not_take_is_refused_by_name(field: str, value: float) -> None:
    """None is dropped in silence."""
    with pytest.raises(SpecError, match=rf"provider\.hyperparameters\.{field}"):
        settings(order(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 0.001), ("adapter_rank", 3), ("beta", 0.1), ("batch_size", 513), ("learning_rate_multiplier", 0.2)],
)
def test_reinforcement_has_bounds_of_its_own(field: str, value: float) -> None:
    """What is out of them is refused by name, what is in them is passed on, and it learns with as little thought as it is asked with."""
    with pytest.raises(SpecError, match=rf"provider\.hyperparameters\.{field}"):
        settings(order("reinforcement", **{field: value}))
    found = settings(order("reinforcement", batch_size=512, learning_rate_multiplier=4.0, adapter_rank=16))
    assert (found["batch_size"], found["learning_rate_multiplier"], found["thinking_level"]) == (512, 4.0, "MINIMAL")
    assert "thinking_level" not in settings(order("reinforcement").model_copy(update={"model": "gemini-2.5-flash"}))
