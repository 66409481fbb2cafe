"""Answers that are none: refusals and empty answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

_REFUSAL = re.compile(
    r"\b(i (can(no|')t|am (not able|unable|sorry)|won't)|i'm (sorry|unable|not able)|as an ai|ich kann (das |dabei |ihnen )?nicht|"
    r"es tut mir leid)\b",
    re.IGNORECASE,
)
_BEGINNING = 120
"""Characters within which an answer that refuses says so."""


def refuses(answer: str) -> bool:
    """Return whether an answer begs off instead of answering, judged by its first words (English and German)."""
    return _REFUSAL.search(answer[:_BEGINNING].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def share_of_refusals(pairs: Sequence[tuple[str, str]]) -> float:
    """Return the share of ``(answer, target)`` whose answer refuses although the target does not."""
    return sum(refuses(answer) and not refuses(target) for answer, target in pairs) / len(pairs)


def share_of_empty(answers: Sequence[str]) -> float:
    """Return the share of answers without a visible character."""
    return sum(not answer.strip() for answer in answers) / len(answers)
