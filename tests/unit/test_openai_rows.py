"""Training rows in OpenAI's form: what is written, what is refused, and how hyperparameters are sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_stand_ins import example
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, SpecError
from prooftune.providers.openai_rows import Rules, check_rows, method, openai_tokens, write_rows
from prooftune.providers.tuning import Order
from prooftune.types import Example, Message


def an_order(objective: str = "supervised", seed: int = 7, grader: str | None = None, **chosen: Any) -> Order:
    """Return an order."""
    return Order.model_validate(
        {
            "provider": "openai",
            "address": "here",
            "model": "gpt-4.1",
            "objective": objective,
            "hyperparameters": {"epochs": 2, **chosen},
            "seed": seed,
            "name": "triage",
            "train_sha256": "0" * 64,
            "grader": grader,
        }
    )


def test_hyperparameters_are_sent_as_they_are() -> None:
    """What is set is sent, what is not is left to the provider, and each objective has its own block."""
    assert method(an_order()) == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    assert method(an_order("preference", beta=0.2, batch_size=8)) == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 2, "batch_size": 8, "beta": 0.2}},
    }
    grader = {"type": "string_check", "name": "g"}
    assert method(an_order("reinforcement", grader=json.dumps(grader)))["reinforcement"]["grader"] == grader


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (an_order(learning_rate=1e-4), "provider.hyperparameters.learning_rate "),
        (an_order(adapter_rank=8), "provider.hyperparameters.adapter_rank"),
        (an_order(adapter_alpha=8), "provider.hyperparameters.adapter_alpha"),
        (an_order(batch_size=257), "provider.hyperparameters.batch_size is 257"),
        (an_order(beta=0.1), "provider.hyperparameters.beta"),
        (an_order("preference", beta=3.0), "provider.hyperparameters.beta is 3"),
        (an_order(seed=-1), "the seed is -1"),
        (an_order(seed=2**31), "the seed is"),
        (an_order("reinforcement"), "provider.grader"),
        (an_order("reinforcement", grader='{"type": "vibes"}'), "provider.grader"),
    ],
)
def test_what_the_provider_does_not_take_is_refused(order: Order, field: str) -> None:
    """A hyperparameter is never dropped in silence: the error names it."""
    with pytest.raises(SpecError, match=field):
        method(order)


# Rows

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
PAIR: dict[str, Any] = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}
GRADED: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "reference_answer": "b"}
GRADER = json.dumps({"type": "string_check", "reference": "{{ item.reference_answer }}"})


def written(path: Path, *rows: object) -> Path:
    """Write rows, as JSON or as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    """Return a row."""
    return {"messages": list(messages)}


USER, ASSISTANT = GOOD["messages"]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        said({"role": "system", "content": "s"}, USER, ASSISTANT),
        said(USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT | {"weight": 1}),
        said(USER, CALL, {"role": "tool", "tool_call_id": "c", "content": "1"}, ASSISTANT),
        GOOD | {"tools": [], "parallel_tool_calls": False},
        said({"role": "user", "content": [{"type": "text", "text": "a"}]}, ASSISTANT),
    ],
)
def test_good_rows_pass(row: dict[str, Any], tmp_path: Path) -> None:
    """Every form that the guide shows is taken."""
    assert check_rows(written(tmp_path / "r.jsonl", *[row] * 10), an_order(), "train", Rules()) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"", "blank-line"),
        (b'{"messages": "\xff"}', "not-utf8"),
        (b'{"messages": [', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b"[]", "not-an-object"),
        ({}, "missing-field"),
        (GOOD | {"id": 1}, "unknown-field"),
        ({"messages": []}, "no-messages"),
        ({"messages": "a"}, "no-messages"),
        (said(USER, "b"), "bad-role"),
        (said(USER, {"role": "model", "content": "b"}), "bad-role"),
        (said(USER, {"role": "assistant", "content": ""}), "no-content"),
        (said({"role": "user", "content": None}, ASSISTANT), "no-content"),
        (said(USER, {"role": "tool", "content": "1"}, ASSISTANT), "tool-without-call"),
        (said(USER, ASSISTANT | {"weight": 2}), "bad-weight"),
        (said(USER | {"weight": 1}, ASSISTANT), "bad-weight"),
        (said(ASSISTANT, USER), "wrong-last-role"),
        (said(USER, ASSISTANT | {"weight": 0}), "nothing-to-learn"),
    ],
)
def test_bad_rows_are_found_by_line(row: Any, code: str, tmp_path: Path) -> None:
    """Each rule has a code, and its problem a line; text of the row is not quoted."""
    path = written(tmp_path / "r.jsonl", *[GOOD] * 10, row)
    [problem] = check_rows(path, an_order(), "train", Rules())
    assert (problem.where, problem.code) == ("r.jsonl:11", code)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (PAIR | {"extra": 1}, "unknown-field"),
        ({name: PAIR[name] for name in ("input", "preferred_output")}, "missing-field"),
        (PAIR | {"input": []}, "bad-input"),
        (PAIR | {"input": {"messages": PAIR["input"]["messages"], "more": 1}}, "bad-input"),
        (PAIR | {"input": {"messages": [USER, ASSISTANT]}}, "wrong-last-role"),
        (PAIR | {"preferred_output": [USER]}, "bad-output"),
        (PAIR | {"non_preferred_output": [ASSISTANT, ASSISTANT]}, "bad-output"),
        (PAIR | {"non_preferred_output": []}, "no-messages"),
    ],
)
def test_bad_pairs_are_found_by_line(row: Any, code: str, tmp_path: Path) -> None:
    """Preference rows have rules of their own."""
    path = written(tmp_path / "r.jsonl", *[PAIR] * 10, row)
    assert [(one.where, one.code) for one in check_rows(path, an_order("preference"), "train", Rules())] == [("r.jsonl:11", code)]


@pytest.mark.parametrize(
    ("row", "code"),
    [(said(USER, ASSISTANT) | {"reference_answer": "b"}, "wrong-last-role"), (said(USER), "missing-field"), ({}, "missing-field")],
)
def test_bad_rows_for_a_grader_are_found(row: Any, code: str, tmp_path: Path) -> None:
    """A reinforcement row ends with the user, and has every field that the grader reads."""
    order = an_order("reinforcement", grader=GRADER)
    path = written(tmp_path / "r.jsonl", *[GRADED] * 10, row)
    assert [(one.where, one.code) for one in check_rows(path, order, "train", Rules())] == [("r.jsonl:11", code)]


def test_whole_files_have_rules(tmp_path: Path) -> None:
    """Too few rows, too many bytes, and a byte-order mark where none belongs, or none where one does."""
    few = written(tmp_path / "few.jsonl", *[GOOD] * 9)
    assert [one.code for one in check_rows(few, an_order(), "train", Rules())] == ["too-few-rows"]
    assert check_rows(few, an_order(), "validation", Rules()) == []
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules(file_bytes=99))] == ["file-too-large"]
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules(byte_order_mark=True))] == ["byte-order-mark"]
    few.write_bytes(b"\xef\xbb\xbf" + few.read_bytes())
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules())] == ["byte-order-mark"]
    assert check_rows(few, an_order(), "validation", Rules(byte_order_mark=True)) == []
    assert [one.code for one in check_rows(written(tmp_path / "no.jsonl"), an_order(), "validation", Rules())] == ["too-few-rows"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(texts=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4), system=st.text("ab ", max_size=3), marked=st.booleans())
def test_rows_are_the_examples(
    texts: list[tuple[str, str, str]], system: str, marked: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the text, each line is its example, in order, and passes its own check, in all three forms."""
    folder = tmp_path_factory.mktemp("rows")
    examples = [
        Example(
            id=f"{n:016x}",
            source=f"t:{n}",
            messages=(Message(role="user", content=ask), Message(role="assistant", content=chosen)),
            rejected=rejected,
        )
        for n, (ask, chosen, rejected) in enumerate(texts)
    ]
    write_lines(folder / "examples.jsonl", examples)
    rules = Rules(rows_min=1, byte_order_mark=marked)
    head = [{"role": "system", "content": system}] if system else []
    for objective, order in (
        ("supervised", an_order()),
        ("preference", an_order("preference")),
        ("reinforcement", an_order("reinforcement", grader=GRADER)),
    ):
        out = folder / f"{objective}.jsonl"
        write_rows(folder / "examples.jsonl", system, objective, out, rules)
        assert check_rows(out, order, "train", rules) == []
        assert out.read_bytes().startswith(b"\xef\xbb\xbf") is marked
        rows = [json.loads(line) for line in out.read_bytes().decode("utf-8-sig" if marked else "utf-8").split("\n")[:-1]]
        assert len(rows) == len(examples)
        for row, (ask, chosen, rejected) in zip(rows, texts, strict=True):
            prompt = [*head, {"role": "user", "content": ask}]
            wanted: dict[str, Any] = {"messages": [*prompt, {"role": "assistant", "content": chosen}]}
            if objective == "preference":
                outputs = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
                wanted = {"input": {"messages": prompt}, "preferred_output": outputs[0], "non_preferred_output": outputs[1]}
            elif objective == "reinforcement":
                wanted = {"messages": prompt, "reference_answer": chosen}
            assert row == wanted


def test_an_example_without_a_rejected_answer_is_no_pair(tmp_path: Path) -> None:
    """Preference tuning on plain examples is refused, with where the example came from."""
    write_lines(tmp_path / "e.jsonl", [example(0)])
    with pytest.raises(DataError, match=r"e\.jsonl:1: has no rejected answer.*tickets\.jsonl:1"):
        write_rows(tmp_path / "e.jsonl", "", "preference", tmp_path / "out.jsonl", Rules())


def test_tokens_are_counted_as_documented() -> None:
    """Three a message, its role and text, and three for the example; text that looks like a mark is text."""
    assert openai_tokens([{"role": "user", "content": "hello world"}]) == 3 + 3 + 1 + 2
    assert openai_tokens([{"role": "assistant", "content": None}]) == 3 + 3 + 1
    assert openai_tokens([{"role": "user", "content": "<|endoftext|>"}]) > 3 + 3 + 1 + 1
