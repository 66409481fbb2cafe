"""How far the judge agrees with people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from prooftune.errors import DataError, Problem
from prooftune.evidence import JudgeVerdict
from prooftune.types import Frozen

Outcome = Literal["candidate", "baseline", "tie"]


class Label(Frozen):
    """A person's verdict on one pair."""

    example_id: str
    better: Outcome
    answers: str | None = None
    """Digest of both answers, as in ``judge.jsonl``; None = of whatever answers are compared."""


Labels = dict[tuple[str, str | None], Outcome]
"""By example id and digest of the answers."""


def read_labels(path: Path) -> Labels:
    """Return people's verdicts, from JSON lines with ``example_id``, ``better`` and, where they are for certain answers only, ``answers``.

    Raises:
        DataError: there is no such file, or lines of it are no labels; every such line is listed.
    """
    labels: Labels = {}
    problems = []
    for number, line in _lines(path):
        where = f"{path.name}:{number}"
        try:
            label = Label.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
            problems.append(Problem(where, f"{reason}; required are example_id, and better: candidate, baseline or tie", "not-a-label"))
            continue
        key = (label.example_id, label.answers)
        if key in labels:
            problems.append(Problem(where, f"the example {label.example_id} is labelled twice; keep one label", "labelled-twice"))
        labels[key] = label.better
    if problems:
        raise DataError(f"{path} (judge.human_labels) holds lines that are no labels:", tuple(problems))
    return labels


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; judge.human_labels names a JSONL file, relative to the spec") from None
    except OSError as error:
        raise DataError(f"{path} (judge.human_labels) cannot be read: {error.strerror}") from None
    return ((number, line) for number, line in enumerate(text.split(b"\n"), start=1) if line.strip())


def agreement(verdicts: Iterable[JudgeVerdict], labels: Labels) -> tuple[float | None, int]:
    """Return Cohen's kappa between judge and people, and the number of pairs that both gave a verdict on.

    ``verdicts`` are those of the judge itself: ties that it was not asked about would count as agreement. A label on the very answers goes
    before one that names none; labels on other answers do not count.
    Kappa is None where it is not defined: without such pairs, or where all verdicts of both are the same one.
    Source: Cohen (1960), https://doi.org/10.1177/001316446002000104.
    """
    from sklearn.metrics import cohen_kappa_score

    told = ((verdict, labels.get((verdict.example_id, verdict.answers)) or labels.get((verdict.example_id, None))) for verdict in verdicts)
    both = [(verdict.outcome, people) for verdict, people in told if verdict.outcome and people]
    if len({verdict for pair in both for verdict in pair}) < 2:
        return None, len(both)
    judge, people = zip(*both, strict=True)
    return float(cohen_kappa_score(judge, people)), len(both)
