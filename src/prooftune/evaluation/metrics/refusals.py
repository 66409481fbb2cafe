"""Answers that are none: refusals and empty answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SERVING = (
    r"(?:help|assist|answer|provide|comply|fulfill?|complete|do (?:that|this|so)|share|give|offer|generate|create|write|discuss|support|"
    r"engage|process|classify|determine|browse|continue|respond|tell you|recommend|"
    r"produce|summari[sz]e|translate|access (?:external|real-time|the (?:internet|web)|your|websites?|links?|urls?))\b"
)
_SERVING_IN_GERMAN = (
    r"(?:helfen|weiterhelfen|beantworten|antworten|unterstützen|geben|bereitstellen|erfüllen|nachkommen|behilflich|erstellen|schreiben|"
    r"ausführen|bearbeiten|teilen|nennen|sagen|zugreifen)\b"
)
_WAYS_TO_REFUSE = (
    rf"\bi (?:can ?not|can't|won't|will not)(?: be able to)?(?: \w+ly)? {_SERVING}",
    rf"\bi(?:'m| am) (?:unable|not (?:able|allowed|permitted|comfortable|designed|programmed)) (?:to |with )?(?:{_SERVING}|\w+ing\b)",
    r"\bi(?:'m| am) (?:\w+ )?(?:sorry|afraid),? (?:but |that )?i(?:'m unable|'m not able| am unable| am not able| can't| cannot| won't)\b",
    r"\bi (?:must|have to|need to|will have to)(?: \w+ly)? (?:decline|refuse)\b",
    r"^\W*as an? (?:ai|artificial intelligence|large language model|language model)\b",
    r"^\W*i (?:don't|do not)(?: \w+ly)? have (?:access to|the ability to|enough information|sufficient information|real-time)",
    r"\b(?:against|violates?) my (?:guidelines|polic(?:y|ies)|programming|principles)\b",
    rf"\bich (?:kann|darf|werde|möchte)\b[^.!?]{{0,60}}\b(?:nicht|keine?n?)\b[^.!?]{{0,40}}\b{_SERVING_IN_GERMAN}",
    rf"\b(?:kann|darf|werde|möchte) ich\b[^.!?]{{0,60}}\b(?:nicht|keine?n?)\b[^.!?]{{0,40}}\b{_SERVING_IN_GERMAN}",
    r"\bich bin\b[^.!?]{0,30}\b(?:nicht (?:dazu )?(?:in der lage|befugt|berechtigt)|außerstande)\b",
    r"\bich (?:muss|möchte)\b[^.!?]{0,40}\bablehnen\b",
    r"^\W*als (?:eine? )?(?:ki|künstliche intelligenz|großes sprachmodell|sprachmodell)\b",
)
_REFUSAL = re.compile("|".join(_WAYS_TO_REFUSE), re.IGNORECASE)
_BEGINNING = 200
"""Characters within which an answer that refuses says so."""


def refuses(answer: str) -> bool:
    """Return whether an answer begs off instead of answering, judged by its first words (English and German).

    It must be the writer who will not or cannot serve: "I'm sorry to hear that" and "customers cannot cancel" refuse nothing.
    """
    return _REFUSAL.search(answer[:_BEGINNING].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def share_of_refusals(pairs: Sequence[tuple[str, str]]) -> float:
    """Return the share of ``(answer, target)`` whose answer refuses although the target does not."""
    return sum(refuses(answer) and not refuses(target) for answer, target in pairs) / len(pairs)


def share_of_empty(answers: Sequence[str]) -> float:
    """Return the share of answers without a visible character."""
    return sum(not answer.strip() for answer in answers) / len(answers)
