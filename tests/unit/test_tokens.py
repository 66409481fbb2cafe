"""Token counts: exact, by split, with the template and the target's tokens told apart."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from fixtures_tokenizer import write_tokenizer

from prooftune.data.lines import write_lines
from prooftune.data.tokens import count_tokens
from prooftune.errors import DataError
from prooftune.spec import Task
from prooftune.types import Example, Message, SplitName


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer of one token a byte."""
    return write_tokenizer(tmp_path_factory.mktemp("model"))


def example(number: int, prompt: str, target: str) -> Example:
    """One question and its answer."""
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=target))
    return Example(id=f"{number:016x}", source=f"t.jsonl:{number}", messages=messages)


def count(tmp_path: Path, model: Path, rows: dict[SplitName, list[Example]], **options: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Count and read the table back."""
    splits: dict[SplitName, Path] = {}
    for name, part in rows.items():
        splits[name] = tmp_path / f"{name}.jsonl"
        write_lines(splits[name], part)
    figures = count_tokens(splits, model, options.get("task", Task()), options.get("max_length", 1024), tmp_path)
    with (tmp_path / "tokens.csv").open() as file:
        return list(csv.DictReader(file)), figures


def test_counts_are_exact(tmp_path: Path, model: Path) -> None:
    """One token a byte and one a special token makes every count a sum that one can do by hand."""
    prompt, target = "Wo ist meine Karte? Grüße", "card_arrival"
    table, _ = count(tmp_path, model, {"train": [example(1, prompt, target)]})
    user = 1 + len("user\n") + len(prompt.encode()) + 1 + len("\n")
    assert table == [
        {
            "example_id": f"{1:016x}",
            "split": "train",
            "prompt_tokens": str(user + 1 + len("assistant\n")),
            "target_tokens": str(len(target) + 1),
            "total": str(user + 1 + len("assistant\n") + len(target) + 1),
            "truncated": "false",
        }
    ]


def test_the_system_message_is_counted(tmp_path: Path, model: Path) -> None:
    """Training sees the task's system message, so the count does."""
    rows: dict[SplitName, list[Example]] = {"train": [example(1, "a", "b")]}
    _, without = count(tmp_path, model, rows)
    _, with_it = count(tmp_path, model, rows, task=Task(system="Be brief."))
    assert with_it["train"]["total"] - without["train"]["total"] == 1 + len("system\nBe brief.") + 1 + len("\n")


def test_figures_by_split(tmp_path: Path, model: Path) -> None:
    """Sums, percentiles and histogram agree with the table."""
    rows: dict[SplitName, list[Example]] = {
        "train": [example(n, "x" * n, "yes") for n in range(1, 101)],
        "validation": [example(200, "one", "no")],
        "holdout": [],
    }
    table, figures = count(tmp_path, model, rows, max_length=100)
    totals = [int(row["total"]) for row in table if row["split"] == "train"]
    train = figures["train"]
    assert train["examples"] == 100
    assert train["total"] == sum(totals)
    assert train["supervised"] == 100 * 4
    assert (train["max"], train["p50"], train["p95"]) == (max(totals), sorted(totals)[49], sorted(totals)[94])
    assert train["truncated"] == sum(total > 100 for total in totals) > 0
    assert sum(train["histogram"]["counts"]) == 100
    assert len(train["histogram"]["edges"]) == len(train["histogram"]["counts"]) + 1
    assert figures["validation"]["histogram"]["counts"] == [1]
    assert figures["holdout"]["examples"] == 0


def test_every_example_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    """A template that knows no system message refuses those examples, all of them at once and by line."""
    refuse = "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    strict = "{% for m in messages %}" + refuse + "{{ m['content'] }}{% endfor %}"
    model = write_tokenizer(tmp_path / "model", strict)
    with pytest.raises(DataError, match="no system role") as caught:
        count(tmp_path, model, {"train": [example(n, "a", "b") for n in (3, 7)]}, task=Task(system="Be brief."))
    assert [problem.where for problem in caught.value.problems] == ["t.jsonl:3", "t.jsonl:7"]


@pytest.mark.slow
def test_counts_equal_a_plain_rendering_of_the_demo_model(tmp_path: Path) -> None:
    """With SmolLM2's own tokenizer the counts are those of tokenizing its rendered text in one piece."""
    from prooftune.models.loading import load_tokenizer
    from prooftune.models.resolve import resolve_model

    folder = resolve_model("smollm2-135m-instruct").path
    rows = [example(1, "Wo ist meine Karte? Grüße 😀", "card_arrival"), example(2, "I can't pay", '{"category": "billing"}')]
    table, _ = count(tmp_path, folder, {"train": rows}, task=Task(system="Name the intent."))
    tokenizer = load_tokenizer(folder)
    for row, line in zip(rows, table, strict=True):
        head = "<|im_start|>system\nName the intent.<|im_end|>\n<|im_start|>user\n"
        head += f"{row.messages[0].content}<|im_end|>\n<|im_start|>assistant\n"
        assert int(line["prompt_tokens"]) == len(tokenizer(head, add_special_tokens=False).input_ids)
        assert int(line["target_tokens"]) == len(tokenizer(f"{row.target}<|im_end|>", add_special_tokens=False).input_ids)
