"""Preflight: what the loss will see, and the runs that must not start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_tokenizer import CHATML, write_tokenizer

from prooftune.data.lines import write_lines
from prooftune.data.preflight import preflight
from prooftune.errors import DataError
from prooftune.spec import Method, Task
from prooftune.types import Example, Message

OVERHEAD = len("user\n\nassistant\n") + 3
"""Prompt tokens of the template around a user's text."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer of one token a byte."""
    return write_tokenizer(tmp_path_factory.mktemp("model"))


def example(number: int, prompt: str, target: str) -> Example:
    """One question and its answer."""
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=target))
    return Example(id=f"{number:016x}", source=f"t.jsonl:{number}", messages=messages)


def check(tmp_path: Path, model: Path, train: list[Example], max_length: int = 200) -> dict[str, Any]:
    """Run preflight on the examples, the last of them also as validation split."""
    write_lines(tmp_path / "train.jsonl", train)
    write_lines(tmp_path / "validation.jsonl", train[-1:])
    return preflight(tmp_path / "train.jsonl", tmp_path / "validation.jsonl", model, Task(), Method(max_length=max_length), tmp_path)


def test_figures_say_what_is_trained(tmp_path: Path, model: Path) -> None:
    """Supervised tokens are the answer's bytes and one end-of-turn token each."""
    figures = check(tmp_path, model, [example(1, "question", "yes"), example(2, "question", "maybe"), example(3, "question", "no")])
    train = figures["train"]
    assert (train["supervised_min"], train["supervised_mean"], train["supervised_max"]) == (3, 4.33, 6)
    assert (train["zero_supervised"], train["truncated"], train["ends_turn_share"]) == (0, 0, 1.0)
    assert figures["prompt_is_token_prefix"] is True
    assert json.loads((tmp_path / "preflight.json").read_text()) == figures


def test_the_sample_marks_what_the_loss_sees(tmp_path: Path, model: Path) -> None:
    """Between the marks stand the answer and the end of its turn, and nothing of the prompt."""
    check(tmp_path, model, [example(1, "Where is it?", "card_arrival")])
    assert "Where is it?<|im_end|>\n<|im_start|>assistant\n⟦card_arrival<|im_end|>⟧" in (tmp_path / "sample.txt").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(("template", "marked"), [(CHATML, False), ("{%- generation %}{% endgeneration -%}" + CHATML, True)])
def test_the_generation_mark_is_reported(tmp_path: Path, template: str, marked: bool) -> None:
    """Whether TRL's assistant_only_loss could work with the template."""
    model = write_tokenizer(tmp_path / "model", template)
    assert check(tmp_path, model, [example(1, "a", "b")])["template_has_generation_mask"] is marked


def test_a_cut_answer_is_counted_and_not_refused(tmp_path: Path, model: Path) -> None:
    """An answer that is cut still teaches its beginning, as long as others teach the end."""
    figures = check(tmp_path, model, [example(1, "q", "long " * 50), example(2, "q", "short")], max_length=60)
    assert figures["train"]["truncated"] == 1
    assert figures["train"]["ends_turn_share"] == 0.5


def test_an_example_without_supervised_tokens_is_refused_by_line(tmp_path: Path, model: Path) -> None:
    """A prompt that fills the length leaves nothing to learn: the line, the length and the way out are named."""
    rows = [example(1, "short", "yes"), example(2, "x" * 200, "yes"), example(3, "y" * (60 - OVERHEAD), "yes"), example(4, "short", "yes")]
    with pytest.raises(DataError, match=r"2 of 5 examples have no supervised token.*max_length") as caught:
        check(tmp_path, model, rows, max_length=60)
    assert [problem.where for problem in caught.value.problems] == ["t.jsonl:2", "t.jsonl:3"]
    assert json.loads((tmp_path / "preflight.json").read_text())["train"]["zero_supervised"] == 2


def test_one_token_of_room_is_enough(tmp_path: Path, model: Path) -> None:
    """The boundary: a prompt one token shorter leaves one supervised token."""
    figures = check(tmp_path, model, [example(1, "y" * (60 - OVERHEAD - 1), "yes"), example(2, "a", "b")], max_length=60)
    assert figures["train"]["supervised_min"] == 1


def test_a_template_that_never_ends_a_turn_is_refused(tmp_path: Path) -> None:
    """Without an end-of-turn token the model would never learn to stop."""
    endless = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    model = write_tokenizer(tmp_path / "model", endless)
    with pytest.raises(DataError, match="end-of-turn"):
        check(tmp_path, model, [example(1, "a", "b")])


def test_answers_that_are_all_cut_are_refused(tmp_path: Path, model: Path) -> None:
    """When every answer is cut, none teaches the model to stop."""
    with pytest.raises(DataError, match="all 3 answers are cut at max_length 40"):
        check(tmp_path, model, [example(n, "a", "b" * 100) for n in (1, 2)], max_length=40)


def test_an_empty_split_is_refused(tmp_path: Path, model: Path) -> None:
    """Nothing to train is an error, not a finished run."""
    with pytest.raises(DataError, match=r"train\.jsonl is empty"):
        check(tmp_path, model, [])
