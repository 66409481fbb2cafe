"""The search for a better prompt: bounded, repeatable, blind to the holdout, and never worse on validation than where it began."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from prooftune.data.counting import TokenizerCounter
from prooftune.errors import DataError
from prooftune.evaluation.answers.answering import Answer
from prooftune.evaluation.ladder.optimised import optimise_prompt
from prooftune.evaluation.ladder.prompts import Prompt, Room
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Baseline, Task
from prooftune.training.encoding import prompt_ids
from prooftune.types import Example, Message, Progress, Report, no_report


def example(number: int) -> Example:
    """A question whose answer is its colour's meaning."""
    colour, meaning = [("red", "stop"), ("amber", "wait"), ("green", "go")][number % 3]
    messages = (Message(role="user", content=f"{colour} {number}"), Message(role="assistant", content=meaning))
    return Example(id=f"{number:016x}", source=f"toy:{number}", messages=messages)


TRAIN, VALIDATION = [example(n) for n in range(30)], [example(n) for n in range(100, 124)]


class Obedient:
    """Answers right only where the instruction asks for meanings; writes such an instruction when asked for one. A stand-in for a model."""

    model = "obedient"
    batch_size = 1

    def __init__(self, knows: str = "meaning") -> None:
        self.knows = knows
        self.asked: list[Sequence[Message]] = []

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Answer each prompt."""
        self.asked += prompts
        return [Answer(self._text(prompt), 1, 1, True, 0.0) for prompt in prompts]

    def _text(self, prompt: Sequence[Message]) -> str:
        question = prompt[-1].content
        if question.startswith("An assistant works by this instruction"):
            return f"Give the {self.knows} of the colour."
        meaning = {"red": "stop", "amber": "wait", "green": "go"}[question.split()[0]]
        return meaning if "meaning" in prompt[0].content else question


def search(answerer: Obedient, calls: int = 120, room: Room | None = None, shots: int = 2, **options: object) -> Prompt:
    """Search from an instruction that is useless."""
    baseline = Baseline.model_validate({"shots": shots, "system": "Answer.", "optimise": {"calls": calls, **options}})
    return optimise_prompt(TRAIN, VALIDATION, answerer, Task(), baseline, 8, room=room)


def test_an_instruction_that_the_model_writes_is_found() -> None:
    """The prompt in which all answers are right is taken."""
    assert search(Obedient()).system == "Give the meaning of the colour."


def test_instructions_of_the_user_are_tried() -> None:
    """They come before those that the model writes."""
    found = search(Obedient(knows="name"), instructions=["Say the name.", "Say the meaning."])
    assert found.system == "Say the meaning."


def test_without_a_better_prompt_the_first_one_stays() -> None:
    """Nothing that does no better on validation is taken."""
    assert search(Obedient(knows="name")).system == "Answer."


@pytest.mark.parametrize("calls", [10, 24, 60, 97])
def test_the_search_is_bounded_and_repeatable(calls: int) -> None:
    """It never asks for more answers than allowed, instructions included, and finds the same again."""
    first, second = Obedient(knows="name"), Obedient(knows="name")
    assert search(first, calls) == search(second, calls)
    assert first.asked == second.asked
    assert len(first.asked) <= calls


@pytest.mark.parametrize("calls", [10, 20, 24])
def test_few_calls_are_not_spent_on_rating_the_first_prompt(calls: int) -> None:
    """With no more answers than validation examples a better instruction is tried, and found, all the same."""
    model = Obedient()
    assert search(model, calls, instructions=["Say the meaning."]).system == "Say the meaning."
    first = [prompt for prompt in model.asked if prompt[0].content == "Answer." and int(prompt[-1].content.split()[-1]) >= 100]
    assert len(first) == calls // 4


def test_long_demonstrations_are_left_out_rather_than_cut(tiny_model: Path) -> None:
    """Where the context is short, no prompt of the search is longer, and it sets out from those demonstrations that fit."""
    tokenizer = load_tokenizer(tiny_model)
    unbounded = Obedient(knows="name")
    search(unbounded, 60, shots=8)
    lengths = [len(prompt_ids(prompt, tokenizer)) for prompt in unbounded.asked]
    room = Room(TokenizerCounter(tokenizer), context=max(lengths) - 20, max_new_tokens=8)
    model = Obedient()
    found = search(model, 60, room, shots=8)
    longest = room.context or 0
    for prompt in model.asked:
        wanted = 300 if prompt[-1].content.startswith("An assistant") else 8
        alone = len([message for message in prompt if message.role != "system"]) == 1
        assert alone or len(prompt_ids(prompt, tokenizer)) + wanted <= longest
    assert found.system == "Give the meaning of the colour."
    shown = [sum(message.role == "assistant" for message in prompt) for prompt in model.asked]
    assert 0 < max(shown) < 8
    kept = search(Obedient(knows="name"), 60, room, shots=8)
    assert 0 < len(kept.demonstrations) < 8, "the prompt that it set out from"
    assert len(prompt_ids((*kept.messages, Message(role="user", content="")), tokenizer)) + 8 <= longest


@pytest.mark.parametrize(("split", "train", "validation"), [("training", 0, 24), ("validation", 30, 0)])
def test_nothing_to_search_with_is_named(split: str, train: int, validation: int) -> None:
    """An empty split, and one whose targets the metric does not apply to, are refused in words."""
    baseline = Baseline.model_validate({"shots": 2})
    with pytest.raises(DataError, match=f"exact_match scores none of the 0 {split} examples"):
        optimise_prompt(TRAIN[:train], VALIDATION[:validation], Obedient(), Task(), baseline, 8)
    with pytest.raises(DataError, match="json_field_accuracy scores none of the 30 training examples"):
        optimise_prompt(TRAIN, VALIDATION, Obedient(), Task(metric="json_field_accuracy"), baseline, 8)


def test_no_example_is_asked_with_itself_as_a_demonstration() -> None:
    """A training example that is shown would give its own answer away."""
    model = Obedient(knows="name")
    search(model)
    for prompt in model.asked:
        questions = [message.content for message in prompt if message.role == "user"]
        assert len(questions) == len(set(questions))


def test_progress_is_reported() -> None:
    """The report counts answers up to the limit."""
    seen: list[Progress] = []
    baseline = Baseline.model_validate({"shots": 2, "optimise": {"calls": 60}})
    optimise_prompt(TRAIN, VALIDATION, Obedient(), Task(), baseline, 8, seen.append)
    assert seen
    assert all(progress.done <= progress.total == 60 for progress in seen)
    assert [p.done for p in seen] == sorted(p.done for p in seen)


@pytest.mark.parametrize("shots", [1, 3])
def test_no_more_is_shown_than_the_spec_allows(shots: int) -> None:
    """The number of demonstrations never exceeds baseline.shots."""
    baseline = Baseline.model_validate({"shots": shots, "system": "Answer.", "optimise": {"calls": 100}})
    model = Obedient(knows="name")
    optimise_prompt(TRAIN, VALIDATION, model, Task(), baseline, 8)
    shown = [sum(message.role == "assistant" for message in prompt) for prompt in model.asked]
    assert max(shown) <= shots
