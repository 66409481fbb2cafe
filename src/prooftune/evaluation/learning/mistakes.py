"""What is wrong with an answer, in words that several failures can share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prooftune.evaluation.metrics.json_fields import NOT_JSON, parse, same
from prooftune.types import Prediction

LONGEST = 40
"""Characters of a target or an answer that a name shows."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What is wrong with one answer; both empty where the target is free text."""

    exact: tuple[str, ...] = ()
    """``billing → account``, ``priority: high → normal``, ``not JSON``, ``cut at the token limit``."""
    broad: tuple[str, ...] = ()
    """``billing → another``, ``another → account``, ``priority: wrong``: what is left when the values differ."""


def mistakes_of(prediction: Prediction, labels: bool) -> Mistakes:
    """Return an answer's mistakes: by field where the target is a JSON object, as a confusion where targets are ``labels``."""
    wanted = parse(prediction.target)
    if isinstance(wanted, dict):
        found = _in_fields(wanted, parse(prediction.answer))
    elif labels:
        target, answer = _short(prediction.target), _short(prediction.answer)
        found = Mistakes((f"{target} → {answer}",), (f"{target} → another", f"another → {answer}"))
    else:
        found = Mistakes()
    return found if prediction.finished else Mistakes((*found.exact, "cut at the token limit"), found.broad)


def shared_mistake(failures: Sequence[Mistakes]) -> str | None:
    """Return the exact, else the broad mistake that at least half of the failures share; None = there is none.

    An exact one of a single failure is not taken: nobody shares it, and it would quote a held-out target.
    """
    for mistakes, fewest in (([one.exact for one in failures], 2), ([one.broad for one in failures], 1)):
        name, count = _most_frequent(mistakes)
        if name is not None and count >= fewest and 2 * count >= len(failures):
            return name
    return None


def confusion(failures: Sequence[Mistakes]) -> str | None:
    """Return the most frequent exact mistake; None = there is none."""
    return _most_frequent([one.exact for one in failures])[0]


def _in_fields(wanted: dict[str, object], found: object) -> Mistakes:
    if not isinstance(found, dict):
        return Mistakes(("not JSON" if found is NOT_JSON else "no JSON object",))
    wrong = {key: value for key, value in wanted.items() if key not in found or not same(found[key], value)}
    exact = [f"{_short(key)}: {_short(value)} → {_short(found[key]) if key in found else '(missing)'}" for key, value in wrong.items()]
    extra = [f"{_short(key)}: not asked for" for key in found if key not in wanted]
    return Mistakes((*exact, *extra), tuple(f"{_short(key)}: wrong" for key in wrong))


def _most_frequent(mistakes: Sequence[Sequence[str]]) -> tuple[str | None, int]:
    """Return what occurs in most of the failures, of equals the first to occur, and in how many."""
    counts = Counter(name for names in mistakes for name in dict.fromkeys(names))
    return next(iter(counts.most_common(1)), (None, 0))


def _short(value: object) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)).split())
    return (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…") or "(empty)"
