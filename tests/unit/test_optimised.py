"""The search for a better prompt: bounded, repeatable, blind to the holdout, and never worse on validation than where it began."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from prooftune.evaluation.answers.answering import Answer
from prooftune.evaluation.ladder.optimised import optimise_prompt
from prooftune.evaluation.ladder.prompts import Prompt
from prooftune.spec import Baseline, Task
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


def search(answerer: Obedient, calls: int = 120, **options: object) -> Prompt:
    """Search from an instruction that is useless."""
    baseline = Baseline.model_validate({"shots": 2, "system": "Answer.", "optimise": {"calls": calls, **options}})
    return optimise_prompt(TRAIN, VALIDATION, answerer, Task(), baseline, 8)


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


def test_the_search_is_bounded_and_repeatable() -> None:
    """It stops at its number of answers, one round more at most, and finds the same again."""
    first, second = Obedient(knows="name"), Obedient(knows="name")
    assert search(first, calls=60) == search(second, calls=60)
    assert first.asked == second.asked
    assert len(first.asked) <= 60 + len(VALIDATION) + 3 * 8


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
