"""Together's rows: each rule with a good row and each way to break it, told with file and line; and what an order may ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_stand_ins import example
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, Problem, SpecError
from prooftune.providers import together_rows as rows
from prooftune.providers.tuning import Files, Order
from prooftune.sandbox.together_files import Unfit, examples_of
from prooftune.spec import Hyperparameters, Objective
from prooftune.types import Example, Message

USER, ANSWER, SYSTEM = ({"role": role, "content": "text"} for role in ("user", "assistant", "system"))
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
RESULT = {"role": "tool", "content": "18", "tool_call_id": "1"}
GOOD_PAIR = {"input": {"messages": [SYSTEM, USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}


def order(objective: Objective = "supervised", **hyperparameters: Any) -> Order:
    """Return an order."""
    return Order(
        provider="together",
        address="https://api.together.ai/v1",
        model="m",
        objective=objective,
        hyperparameters=Hyperparameters(**hyperparameters),
        seed=7,
        name="triage",
        train_sha256="0",
    )


def check(folder: Path, objective: Objective, *lines: object) -> list[Problem]:
    """Check rows, given as values or as bytes."""
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return rows.check_rows(path, order(objective), "train")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]},
        {"messages": [USER, CALL, RESULT, ANSWER], "tools": []},
        {"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}]},
    ],
)
def test_a_good_conversation(row: dict[str, Any], tmp_path: Path) -> None:
    """What Together documents as right is right."""
    assert check(tmp_path, "supervised", row) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"", "blank-line"),
        (b"\xff{}", "not-utf8"),
        (b"{", "not-json"),
        (b"[" * 100_000, "not-json"),
        ([], "not-an-object"),
        ({"text": "x"}, "missing-field"),
        ({"messages": [USER, ANSWER], "text": "x"}, "unknown-field"),
        ({"messages": []}, "no-messages"),
        ({"messages": "x"}, "no-messages"),
        ({"messages": [USER, {"role": "critic", "content": "x"}]}, "bad-role"),
        ({"messages": [USER, "x"]}, "bad-role"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "no-content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "no-content"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "system-not-first"),
        ({"messages": [USER, USER, ANSWER]}, "roles-not-alternating"),
        ({"messages": [ANSWER]}, "wrong-first-role"),
        ({"messages": [SYSTEM, USER, ANSWER, USER]}, "wrong-last-role"),
        ({"messages": [USER, CALL, {"role": "tool", "content": "18"}, ANSWER]}, "tool-without-call"),
        ({"messages": [USER | {"weight": 1}, ANSWER]}, "bad-weight"),
        ({"messages": [USER, ANSWER | {"weight": 2}]}, "bad-weight"),
    ],
)
def test_a_bad_conversation(row: object, code: str, tmp_path: Path) -> None:
    """Each way to be wrong has its own code and is found at its line, and the good row before it is no problem."""
    problems = check(tmp_path, "supervised", {"messages": [USER, ANSWER]}, row)
    assert [(problem.where, problem.code) for problem in problems] == [("rows.jsonl:2", code)]


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"input": {"messages": [ANSWER, USER]}}, []),
        ({"input": {"messages": [USER], "tools": []}}, []),
        ({"messages": [USER]}, ["unknown-field"]),
        ({"input": [USER]}, ["bad-input"]),
        ({"input": {"messages": [USER], "parallel_tool_calls": True}}, ["bad-input"]),
        ({"input": {"messages": [USER, ANSWER]}}, ["wrong-last-role"]),
        ({"preferred_output": []}, ["bad-output"]),
        ({"preferred_output": ANSWER}, ["bad-output"]),
        ({"non_preferred_output": [ANSWER, ANSWER]}, ["bad-output"]),
        ({"non_preferred_output": [USER], "preferred_output": [{"role": "assistant", "content": ""}]}, ["no-content", "bad-output"]),
    ],
)
def test_pairs(change: dict[str, Any], codes: list[str], tmp_path: Path) -> None:
    """A pair has a conversation that ends with the user, and two answers of one message each."""
    assert [problem.code for problem in check(tmp_path, "preference", GOOD_PAIR | change)] == codes


def test_a_file_has_rows_and_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file and one too large to be uploaded at once are found before the upload."""
    assert [problem.code for problem in check(tmp_path, "supervised")] == ["too-few-rows"]
    monkeypatch.setattr(rows, "FILE_BYTES", 10)
    assert [problem.code for problem in check(tmp_path, "supervised", {"messages": [USER, ANSWER]})] == ["file-too-large"]


@pytest.mark.parametrize(
    ("objective", "chosen", "match"),
    [
        ("reinforcement", {}, r"backend\.objective"),
        ("supervised", {"learning_rate_multiplier": 2}, r"learning_rate_multiplier .* set learning_rate"),
        ("supervised", {"adapter_alpha": 32}, r"adapter_alpha .* adapter_rank"),
        ("supervised", {"beta": 0.1}, r"beta is 0\.1"),
    ],
)
def test_what_cannot_be_ordered(objective: Objective, chosen: dict[str, Any], match: str, tmp_path: Path) -> None:
    """A setting that Together does not take is refused by name, before the upload and again before the order."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [USER, ANSWER]}))
    made = order(objective, **chosen)
    with pytest.raises(SpecError, match=match):
        rows.check_rows(path, made, "train")
    with pytest.raises(SpecError, match=match):
        rows.request_of(made, Files(train="file-1"))


def test_every_setting_is_sent() -> None:
    """Nothing of an order is dropped in silence, and the suffix fits whatever the task is called."""
    chosen = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-4, "adapter_rank": 8, "adapter_alpha": 24, "beta": 0.3}
    made = order("preference", **chosen).model_copy(update={"name": "n" * 64})
    body = rows.request_of(made, Files(train="file-1", validation="file-2"))
    assert {name: body[name] for name in ("model", "training_file", "validation_file", "n_epochs", "n_evals", "random_seed")} == {
        "model": "m",
        "training_file": "file-1",
        "validation_file": "file-2",
        "n_epochs": 4,
        "n_evals": 4,
        "random_seed": 7,
    }
    assert (body["batch_size"], body["learning_rate"]) == (16, 2e-4)
    assert body["training_type"] == {"type": "Lora", "lora_r": 8, "lora_alpha": 24}
    assert body["training_method"] == {"method": "dpo", "dpo_beta": 0.3}
    assert len(body["suffix"]) == rows.SUFFIX_MAX
    assert body["suffix"].endswith(made.key.removeprefix("prooftune-")[:10])


def test_examples_without_a_rejected_answer_are_no_pairs(tmp_path: Path) -> None:
    """Each is named with its line and where it came from."""
    examples = tmp_path / "e.jsonl"
    write_lines(examples, [example(0).model_copy(update={"rejected": "no"}), example(1)])
    with pytest.raises(DataError, match="1 of the examples cannot be written as rows") as caught:
        rows.write_rows(examples, "", "preference", tmp_path / "out.jsonl")
    assert [(problem.where, problem.code) for problem in caught.value.problems] == [("e.jsonl:2", "no-rejected-answer")]
    assert "tickets.jsonl:2" in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


@given(turns=TURNS, system=st.one_of(st.just(""), TEXT), rejected=TEXT)
def test_what_is_written_is_right_and_read_back(turns: list[tuple[str, str]], system: str, rejected: str, tmp_path_factory: Any) -> None:
    """Rows that we write pass our own check and the stand-in's, which is another, and hold the examples word for word."""
    folder = tmp_path_factory.mktemp("rows")
    said = tuple(Message(role=role, content=text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True))
    one = Example(id="0" * 16, source="t.jsonl:1", messages=said, rejected=rejected)
    write_lines(folder / "e.jsonl", [one])
    forms: dict[Objective, str] = {"supervised": "CONVERSATION", "preference": "PREFERENCE_OPENAI"}
    for objective, form in forms.items():
        out = folder / f"{objective}.jsonl"
        rows.write_rows(folder / "e.jsonl", system, objective, out)
        assert rows.check_rows(out, order(objective), "train") == []
        [found] = examples_of(out.read_bytes(), form)
        assert found.messages == ((Message(role="system", content=system),) if system else ()) + said
        assert found.rejected == (rejected if objective == "preference" else None)


@given(roles=st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=6))
def test_our_check_and_the_stand_ins_agree(roles: list[str], tmp_path_factory: Any) -> None:
    """Of conversations of text alone, the stand-in takes those that our check lets through, and no other."""
    row = {"messages": [{"role": role, "content": "text"} for role in roles]}
    ours = check(tmp_path_factory.mktemp("rows"), "supervised", row) == []
    try:
        examples_of(json.dumps(row).encode(), "CONVERSATION")
        theirs = True
    except (Unfit, ValueError):
        theirs = False
    assert ours == theirs
