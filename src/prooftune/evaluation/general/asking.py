"""The general suite's questions, asked in words: for a model behind an API, which shows no likelihoods."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.general.items import Answers, Question
from prooftune.types import Message, Report, no_report

LETTER_TOKENS = 8
"""Room for a letter and what may stand around it; an API's answerer gives a model room to think besides."""


def ask_questions(answerer: Answerer, questions: Sequence[Question], report: Report = no_report) -> Answers:
    """Return which questions a model answered rightly; None where it named no choice."""
    answers = answerer.answer([as_prompt(question) for question in questions], max_new_tokens=LETTER_TOKENS, report=report)
    chosen = [read_choice(answer.text, question.choices) for answer, question in zip(answers, questions, strict=True)]
    return Answers(tuple(None if one is None else one == q.answer for one, q in zip(chosen, questions, strict=True)), ())


def as_prompt(question: Question) -> tuple[Message, ...]:
    """Return a question with its choices lettered; there is no system message, since the suite is not the task that was tuned."""
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, question.choices, strict=False))
    return (Message(role="user", content=f"{question.question}\n\n{choices}\n\nAnswer with the letter of the right choice alone."),)


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Return which choice an answer names: a letter alone, in brackets or bold, or with its own choice behind it; else None."""
    letters = string.ascii_uppercase[: len(choices)]
    found = re.fullmatch(rf"[\s(*\[]*([{letters}])(?:[\s).:\]*]+(.*?))?[\s.*]*", text, re.IGNORECASE | re.DOTALL)
    if found is None:
        return None
    named = letters.index(found[1].upper())
    said = (found[2] or "").strip(" .*").casefold()
    return named if not said or said == choices[named].strip(" .*").casefold() else None
