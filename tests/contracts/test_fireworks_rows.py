"""Fireworks' rows: what is written is accepted, and each way to be wrong is found with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_fireworks import ACCOUNT, KEY
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, SpecError
from prooftune.providers import fireworks_rows
from prooftune.providers.fireworks import FireworksTuner
from prooftune.providers.fireworks_rows import check_rows, write_rows
from prooftune.providers.tuning import Order
from prooftune.sandbox.fireworks_tuning import MODEL
from prooftune.spec import Hyperparameters, Objective, Provider
from prooftune.types import Example, Message

GOOD: dict[Objective, dict[str, Any]] = {
    "supervised": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "preference": {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
    },
    "reinforcement": {"messages": [{"role": "user", "content": "a"}], "ground_truth": "b"},
}
USER, ANSWER, SYSTEM = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


def order_for(objective: Objective = "supervised", **chosen: Any) -> Order:
    """Return an order whose rows are looked at alone."""
    return Order(
        provider="fireworks",
        address="x",
        model=MODEL,
        objective=objective,
        hyperparameters=Hyperparameters(**chosen),
        seed=1,
        name="n",
        train_sha256="0",
        grader='{"evaluator": "accounts/acme/evaluators/exact"}' if objective == "reinforcement" else None,
    )


def codes(folder: Path, lines: list[Any], objective: Objective = "supervised", **chosen: Any) -> list[tuple[str, str]]:
    """Return where a file has problems, and their codes."""
    path = folder / "train.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return [(problem.where, problem.code) for problem in check_rows(path, order_for(objective, **chosen), "train")]


@pytest.mark.parametrize("objective", list(GOOD))
def test_good_rows_have_no_problem(objective: Objective, tmp_path: Path) -> None:
    """Rows as the documentation shows them are accepted."""
    assert codes(tmp_path, [GOOD[objective]] * 3, objective) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"", "blank-line"),
        (b'{"messages": [', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"messages": "\xff"}', "not-utf8"),
        ([1], "not-an-object"),
        ({"messages": [USER, ANSWER], "prompt": "x"}, "unknown-field"),
        ({}, "no-messages"),
        ({"messages": []}, "no-messages"),
        ({"messages": ["hello"]}, "no-messages"),
        ({"messages": [{"role": "tool", "content": "x"}, ANSWER]}, "role"),
        ({"messages": [{"role": ["user"], "content": "x"}, ANSWER]}, "role"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "system-not-first"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, "content"),
        ({"messages": [USER, {"role": "assistant"}]}, "content"),
        ({"messages": [USER, ANSWER | {"weight": 0.5}, USER, ANSWER]}, "message-weight"),
        ({"messages": [USER, ANSWER | {"weight": True}]}, "message-weight"),
        ({"messages": [USER]}, "last-not-assistant"),
        ({"messages": [USER, ANSWER | {"weight": 0}]}, "nothing-to-learn"),
        ({"messages": [USER, ANSWER], "weight": "heavy"}, "row-weight"),
        ({"messages": [USER, ANSWER], "weight": 0.5}, "weight-partly"),
    ],
)
def test_each_wrong_supervised_row_is_found(row: Any, code: str, tmp_path: Path) -> None:
    """A row that Fireworks would refuse is found under its code; what concerns one line says which."""
    found = codes(tmp_path, [GOOD["supervised"], row, GOOD["supervised"]])
    line = 1 if code == "weight-partly" else 2  # the line that lacks a weight
    assert (f"train.jsonl:{line}", code) in found


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": [USER]}, "no-input"),
        ({"input": {"messages": []}}, "no-messages"),
        ({"input": {"messages": [USER, ANSWER]}}, "prompt-ends-with-answer"),
        ({"preferred_output": {"role": "assistant", "content": "b"}}, "bad-output"),
        ({"preferred_output": [USER]}, "bad-output"),
        ({"non_preferred_output": [ANSWER, ANSWER]}, "bad-output"),
        ({"non_preferred_output": [{"role": "assistant", "content": None}]}, "content"),
        ({"non_preferred_output": [{"role": "assistant", "content": "b"}]}, "same-outputs"),
        ({"weight": 1}, "unknown-field"),
    ],
)
def test_each_wrong_pair_is_found(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    """A preference row that Fireworks would refuse is found under its code."""
    good = GOOD["preference"]
    assert ("train.jsonl:2", code) in codes(tmp_path, [good, good | change, good], "preference")


def test_a_prompt_with_its_answer_is_no_reinforcement_row(tmp_path: Path) -> None:
    """The model is to answer by itself: the expected answer does not belong into the prompt."""
    good = GOOD["reinforcement"]
    assert codes(tmp_path, [good, good | {"messages": [USER, ANSWER]}, good], "reinforcement") == [
        ("train.jsonl:2", "prompt-ends-with-answer")
    ]


@pytest.mark.parametrize(
    ("rows", "epochs", "code"), [(2, 1, "too-few-rows"), (12, 1, "too-many-rows"), (6, 2, "too-many-rows-times-epochs")]
)
def test_counts_are_checked(rows: int, epochs: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are counted, alone and times epochs, against the limits (here a lowered one)."""
    assert fireworks_rows.ROWS_MAX == 3_000_000
    monkeypatch.setattr(fireworks_rows, "ROWS_MAX", 10)
    assert codes(tmp_path, [GOOD["supervised"]] * rows, epochs=epochs) == [(f"train.jsonl:{rows}", code)]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any conversation of user and assistant, with or without a system message, with a rejected answer that differs."""
    turns = [Message(role="system", content=draw(text))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message(role="user", content=draw(text)), Message(role="assistant", content=draw(text))]
    return Example(id="0" * 16, source="a.jsonl:1", messages=tuple(turns), rejected=turns[-1].content + "!")


@pytest.mark.parametrize("objective", list(GOOD))
@given(found=st.lists(examples(), min_size=3, max_size=5), system=st.sampled_from(["", "Be brief."]))
def test_whatever_is_written_is_accepted(
    objective: Objective, found: list[Example], system: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Valid examples become as many rows, in their order and with their targets, and no row has a problem."""
    folder = tmp_path_factory.mktemp("rows")
    write_lines(folder / "examples.jsonl", found)
    write_rows(folder / "examples.jsonl", system, objective, folder / "rows.jsonl")
    assert check_rows(folder / "rows.jsonl", order_for(objective), "train") == []
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_bytes().splitlines()]
    targets = {
        "supervised": lambda row: row["messages"][-1]["content"],
        "preference": lambda row: row["preferred_output"][0]["content"],
        "reinforcement": lambda row: row["ground_truth"],
    }[objective]
    assert [targets(row) for row in rows] == [example.target for example in found]
    prompts = [(row.get("input") or row)["messages"] for row in rows]
    assert all((prompt[0]["role"] == "system") or not system for prompt in prompts)


def test_examples_without_a_rejected_answer_are_no_pairs(tmp_path: Path) -> None:
    """Every example that is no pair is named when a preference tuning is asked for."""
    turns = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    write_lines(tmp_path / "examples.jsonl", [Example(id="0" * 16, source=f"t.jsonl:{n}", messages=turns) for n in (1, 2)])
    with pytest.raises(DataError, match=r"examples\.jsonl:2: has no rejected answer"):
        write_rows(tmp_path / "examples.jsonl", "", "preference", tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("chosen", "objective"),
    [
        ({"learning_rate_multiplier": 2.0}, "supervised"),
        ({"adapter_alpha": 16}, "supervised"),
        ({"adapter_rank": 24}, "supervised"),
        ({"adapter_rank": 128}, "preference"),
        ({"beta": 0.1}, "supervised"),
        ({"beta": 0.1}, "reinforcement"),
        ({"beta": 0.5}, "preference"),
    ],
)
def test_settings_that_fireworks_does_not_take_are_refused(chosen: dict[str, Any], objective: Objective, tmp_path: Path) -> None:
    """No hyperparameter is dropped in silence: the field is named, and before anything is uploaded."""
    with pytest.raises(SpecError, match=rf"provider\.hyperparameters\.{next(iter(chosen))}"):
        codes(tmp_path, [GOOD[objective]] * 3, objective, **chosen)


@pytest.mark.parametrize("project", [None, "", "Acme Corp", "a" * 64, "../other"])
def test_an_account_is_required(project: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the id of an account nothing can be addressed."""
    monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
    with pytest.raises(SpecError, match=r"provider\.project"):
        FireworksTuner(Provider(project=project))


@pytest.mark.parametrize("base_url", [None, "https://eu.example/", "http://127.0.0.1:9"])
def test_the_environment_does_not_redirect_data(base_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where data goes stands in the spec, and not in the SDK's variables."""
    monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
    monkeypatch.setenv("FIREWORKS_BASE_URL", "https://elsewhere.example")
    monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "somebody")
    tuner = FireworksTuner(Provider(project=ACCOUNT, base_url=base_url))
    expected = (base_url or "https://api.fireworks.ai").rstrip("/")
    assert tuner.address == f"{expected}/v1/accounts/{ACCOUNT}"
    assert str(tuner.api.client.base_url).rstrip("/") == expected
    assert tuner.api.client.account_id == ACCOUNT
    assert tuner.api.client.max_retries == 0
