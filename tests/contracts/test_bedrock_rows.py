"""Rows in Bedrock's forms: what is written is accepted, and each way to be wrong is found with its line and its code."""

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
from prooftune.providers import bedrock_rows
from prooftune.providers.bedrock_models import FAMILIES, asked_as, base_of, family_of, settings
from prooftune.providers.bedrock_rows import RESERVED, check_rows, row_form, write_rows
from prooftune.providers.tuning import Order
from prooftune.sandbox.bedrock_rows import Unfit, read_examples
from prooftune.spec import Hyperparameters
from prooftune.types import Example, Message

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0:200k"
NOVA = "amazon.nova-micro-v1:0:128k"
NOVA_2 = "amazon.nova-2-lite-v1:0:256k"
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
LLAMA_2 = "meta.llama3-2-3b-instruct-v1:0:128k"
MODELS = {CLAUDE: "claude", NOVA: "conversation", LLAMA: "completion", LLAMA_2: "conversation"}
TURN = {"role": "user", "content": "hello"}
REPLY = {"role": "assistant", "content": "good"}
NOVA_TURN = {"role": "user", "content": [{"text": "hello"}]}
NOVA_REPLY = {"role": "assistant", "content": [{"text": "good"}]}
GOOD: dict[str, dict[str, Any]] = {
    CLAUDE: {"system": "Sort.", "messages": [TURN, REPLY]},
    NOVA: {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Sort."}], "messages": [NOVA_TURN, NOVA_REPLY]},
    LLAMA: {"prompt": "hello", "completion": "good"},
    NOVA_2: {"messages": [{"role": "system", "content": "Sort."}, TURN], "reference_answer": "good"},
}


def an_order(model: str, **chosen: Any) -> Order:
    """Return an order; for ``NOVA_2`` one of reinforcement."""
    return Order(
        provider="bedrock",
        address="https://bedrock",
        model=model,
        objective="reinforcement" if model == NOVA_2 else "supervised",
        hyperparameters=Hyperparameters(**{"epochs": 2} | chosen),
        seed=7,
        name="triage",
        train_sha256="0" * 64,
    )


def problems(path: Path, model: str, *lines: Any, role: Any = "validation") -> list[tuple[str, str]]:
    """Return place and code of what is wrong with lines: rows, or text as it is."""
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return [(problem.where, problem.code) for problem in check_rows(path, an_order(model), role)]


@pytest.mark.parametrize("model", GOOD)
def test_a_good_row_has_no_problem(model: str, tmp_path: Path) -> None:
    """Of each form; a system text may be missing."""
    row = GOOD[model]
    bare = {name: value for name, value in row.items() if name not in ("system", "schemaVersion")}
    assert problems(tmp_path / "rows.jsonl", model, row, bare) == []


@pytest.mark.parametrize(
    ("model", "change", "code"),
    [
        (CLAUDE, {"messages": []}, "no-messages"),
        (CLAUDE, {"messages": "hello"}, "no-messages"),
        (CLAUDE, {"messages": [TURN]}, "wrong-last-role"),
        (CLAUDE, {"messages": [TURN, TURN, REPLY]}, "wrong-turn"),
        (CLAUDE, {"messages": [REPLY, TURN, REPLY]}, "wrong-turn"),
        (CLAUDE, {"messages": [{"role": "system", "content": "Sort."}, TURN, REPLY]}, "bad-role"),
        (CLAUDE, {"messages": ["hello", REPLY]}, "bad-role"),
        (CLAUDE, {"messages": [TURN, REPLY | {"weight": 1}]}, "unknown-message-field"),
        (CLAUDE, {"messages": [NOVA_TURN, NOVA_REPLY]}, "no-text"),
        (CLAUDE, {"messages": [TURN | {"content": " "}, REPLY]}, "no-text"),
        (CLAUDE, {"system": [{"text": "Sort."}]}, "bad-system"),
        (CLAUDE, {"schemaVersion": "bedrock-conversation-2024"}, "unknown-field"),
        (NOVA, {"messages": [TURN, REPLY]}, "no-text"),
        (NOVA, {"messages": [NOVA_TURN | {"content": []}, NOVA_REPLY]}, "no-text"),
        (NOVA, {"messages": [NOVA_TURN | {"content": [{"image": {}}]}, NOVA_REPLY]}, "no-text"),
        (NOVA, {"system": "Sort."}, "bad-system"),
        (NOVA, {"system": [{"text": "a"}, {"text": "b"}]}, "bad-system"),
        (NOVA, {"tools": []}, "unknown-field"),
        (NOVA, {"messages": [NOVA_TURN, NOVA_REPLY, NOVA_TURN]}, "wrong-last-role"),
        (LLAMA, {"completion": ""}, "no-text"),
        (LLAMA, {"prompt": 7}, "no-text"),
        (LLAMA, {"messages": []}, "unknown-field"),
        (NOVA_2, {"messages": [TURN, REPLY]}, "wrong-last-role"),
        (NOVA_2, {"messages": [{"role": "system", "content": "Sort."}]}, "wrong-last-role"),
        (NOVA_2, {"reference_answer": None}, "no-text"),
    ],
)
def test_each_way_to_be_wrong_is_found(model: str, change: dict[str, Any], code: str, tmp_path: Path) -> None:
    """With the line, and the code first that says what it is."""
    found = problems(tmp_path / "rows.jsonl", model, GOOD[model], GOOD[model] | change)
    assert ("rows.jsonl:2", code) in found
    assert {where for where, _ in found} == {"rows.jsonl:2"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "blank-line"),
        (b"{", "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"messages": "\xff"}', "not-utf8"),
        (b"[]", "not-an-object"),
        (b"{}", "missing-field"),
    ],
)
def test_what_is_no_row_is_found(line: bytes, code: str, tmp_path: Path) -> None:
    """Blank, broken, deep, not text, not an object, and an object without what is required."""
    assert problems(tmp_path / "rows.jsonl", NOVA, GOOD[NOVA], line) == [("rows.jsonl:2", code)]


@pytest.mark.parametrize("word", RESERVED)
def test_words_that_nova_reserves_are_found_and_others_may_hold_them(word: str, tmp_path: Path) -> None:
    """In any text of a row; Llama's rows of the same form may hold them. The row's own text is not repeated."""
    row = {"messages": [NOVA_TURN, {"role": "assistant", "content": [{"text": f"secret {word} text"}]}]}
    assert problems(tmp_path / "rows.jsonl", NOVA, row) == [("rows.jsonl:1", "reserved-word")]
    (problem,) = check_rows(tmp_path / "rows.jsonl", an_order(NOVA), "validation")
    assert "secret" not in problem.reason
    assert problems(tmp_path / "rows.jsonl", LLAMA_2, row) == []


def test_counts_and_sizes_are_those_of_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few and too many rows, of a training and of a validation file, and a file that is too large."""
    path = tmp_path / "rows.jsonl"
    assert problems(path, CLAUDE, *[GOOD[CLAUDE]] * 31, role="train") == [("rows.jsonl:32", "too-few-rows")]
    assert problems(path, CLAUDE, *[GOOD[CLAUDE]] * 32, role="train") == []
    assert problems(path, CLAUDE, *[GOOD[CLAUDE]] * 1001) == [("rows.jsonl:1001", "too-many-rows")]
    assert problems(path, NOVA, *[GOOD[NOVA]] * 7, role="train") == [("rows.jsonl:8", "too-few-rows")]
    assert problems(path, NOVA_2, *[GOOD[NOVA_2]] * 99, role="train") == [("rows.jsonl:100", "too-few-rows")]
    assert problems(path, LLAMA, *[GOOD[LLAMA]] * 10_001, role="train") == [("rows.jsonl:10001", "too-many-rows")]
    assert problems(path, LLAMA) == [("rows.jsonl:1", "too-few-rows")]
    monkeypatch.setattr(bedrock_rows, "FILE_BYTES", 10)
    assert ("rows.jsonl", "file-too-large") in problems(path, LLAMA, GOOD[LLAMA])


WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and ":" not in text and "<" not in text
)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)


@given(turns=TURNS, system=st.one_of(st.just(""), WORDS), model=st.sampled_from([CLAUDE, NOVA, LLAMA_2]))
def test_what_is_written_is_accepted_here_and_there(turns: list[tuple[str, str]], system: str, model: str, tmp_path_factory: Any) -> None:
    """Any conversation: the check finds nothing, the stand-in reads the same messages, and a line is an example."""
    folder = tmp_path_factory.mktemp("rows")
    messages = [Message(role=role, content=text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)]
    if "[EOS]" in f"{system}{messages}":
        return
    write_lines(folder / "examples.jsonl", [Example(id="0" * 16, source="x:1", messages=tuple(messages))])
    write_rows(folder / "examples.jsonl", system, row_form(MODELS[model], "supervised"), folder / "rows.jsonl")  # type: ignore[arg-type]
    assert check_rows(folder / "rows.jsonl", an_order(model), "validation") == []
    (read,) = read_examples((folder / "rows.jsonl").read_bytes(), model, "FINE_TUNING", 1, 10)
    assert read.messages == tuple(([Message(role="system", content=system)] if system else []) + messages)


def test_messages_of_one_role_become_one_turn_and_several_system_texts_one(tmp_path: Path) -> None:
    """Turns alternate, whatever the example does."""
    said = [("system", "a"), ("system", "b"), ("user", "c"), ("user", "d"), ("assistant", "e")]
    messages = tuple(Message(role=role, content=text) for role, text in said)  # type: ignore[arg-type]
    write_lines(tmp_path / "e.jsonl", [Example(id="0" * 16, source="x:1", messages=messages)])
    write_rows(tmp_path / "e.jsonl", "not used", "claude", tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "system": "a\n\nb",
        "messages": [{"role": "user", "content": "c\n\nd"}, {"role": "assistant", "content": "e"}],
    }
    write_rows(tmp_path / "e.jsonl", "", "completion", tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"prompt": "a\n\nb\n\nc\n\nd", "completion": "e"}


@pytest.mark.parametrize(
    ("form", "roles", "told"),
    [("completion", ("user", "assistant", "user", "assistant"), "several turns"), ("claude", ("user", "tool", "assistant"), "tool")],
)
def test_what_a_form_cannot_hold_is_said_with_its_line(form: Any, roles: tuple[Any, ...], told: str, tmp_path: Path) -> None:
    """Turns before the last one, and a tool's answer."""
    odd = Example(id="0" * 16, source="x:2", messages=tuple(Message(role=role, content="secret") for role in roles))
    write_lines(tmp_path / "e.jsonl", [example(1), odd])
    with pytest.raises(DataError) as caught:
        write_rows(tmp_path / "e.jsonl", "", form, tmp_path / "rows.jsonl")
    (problem,) = caught.value.problems
    assert (problem.where, told in problem.reason) == ("e.jsonl:2", True)
    assert "secret" not in str(caught.value)


def test_there_is_no_preference_tuning() -> None:
    """Bedrock has no such customization type."""
    with pytest.raises(SpecError, match="preference"):
        row_form("conversation", "preference")


@pytest.mark.parametrize(
    ("model", "chosen", "told"),
    [
        (CLAUDE, {"learning_rate": 1e-4}, "learning_rate is set.*set learning_rate_multiplier"),
        (CLAUDE, {"batch_size": 2}, "batch_size is 2; bedrock takes 4 to 256"),
        (CLAUDE, {"learning_rate_multiplier": 3.0}, "takes 0.1 to 2"),
        (NOVA, {"learning_rate_multiplier": 1.0}, "learning_rate_multiplier is set.*set learning_rate"),
        (NOVA, {"epochs": 6}, "epochs is 6; bedrock takes 1 to 5"),
        (NOVA, {"learning_rate": 0.01}, "takes 1e-06 to 0.0001"),
        (NOVA, {"batch_size": 8}, "batch_size is set"),
        (NOVA, {"adapter_rank": 8}, "adapter_rank is set"),
        (NOVA, {"adapter_alpha": 8}, "adapter_alpha is set"),
        (LLAMA, {"beta": 0.1}, "beta is set"),
        (LLAMA, {"batch_size": 2}, "takes 1 to 1"),
        ("cohere.command-text-v14", {}, "backend.model is cohere"),
        (NOVA_2, {}, "provider.grader is no grader"),
    ],
)
def test_what_bedrock_does_not_take_is_refused_by_name(model: str, chosen: dict[str, Any], told: str) -> None:
    """Nothing that is set is dropped in silence."""
    with pytest.raises(SpecError, match=told):
        settings(an_order(model, **chosen))


def test_numbers_are_strings_without_an_exponent() -> None:
    """1e-05 is written out."""
    assert settings(an_order(NOVA, learning_rate=1e-5))["hyperParameters"] == {"epochCount": "2", "learningRate": "0.00001"}


def test_ids_and_arns_name_the_same_family() -> None:
    """A base model by id or ARN, and a tuned one by its ARN; what inference takes has no context length."""
    foundation = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    custom = f"arn:aws:bedrock:us-east-1:123456789012:custom-model/{NOVA}/abcdefghijkl"
    assert {base_of(name) for name in (NOVA, foundation, custom)} == {NOVA}
    assert [family_of(name) for name in (NOVA, foundation, custom)] == [FAMILIES[1]] * 3
    assert (asked_as(NOVA), asked_as(custom)) == ("amazon.nova-micro-v1:0", custom)
    assert asked_as("us.meta.llama3-3-70b-instruct-v1:0") == "us.meta.llama3-3-70b-instruct-v1:0"


@pytest.mark.parametrize("model", [CLAUDE, NOVA, LLAMA, NOVA_2])
def test_what_is_refused_here_the_stand_in_refuses_as_well(model: str) -> None:
    """Rows of another model's form do not pass there either."""
    for other, row in GOOD.items():
        kind = "REINFORCEMENT_FINE_TUNING" if model == NOVA_2 else "FINE_TUNING"
        content = json.dumps(row).encode()
        if other == model:
            assert len(read_examples(content, model, kind, 1, 10)) == 1
        else:
            with pytest.raises(Unfit):
                read_examples(content, model, kind, 1, 10)
