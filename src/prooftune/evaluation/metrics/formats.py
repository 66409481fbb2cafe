"""Metrics of answers that must be a number, or look like something.

=====================  ============================================================================================  =====
metric                 score of one example                                                                          value
=====================  ============================================================================================  =====
``numeric_tolerance``  1 if the answer's first number is within ``task.tolerance`` of the target's, relative to it   mean
``regex_match``        1 if the whole answer matches ``task.pattern``, the space around it aside                     mean
=====================  ============================================================================================  =====

A target without a number, or one that does not match the pattern, is unscored. Patterns run in Python's ``re`` as they are: one that
backtracks without end hangs on an answer that provokes it, so write patterns whose repetitions do not nest.
"""

from __future__ import annotations

import re
from decimal import Decimal

from prooftune.errors import SpecError
from prooftune.evaluation.metrics.definition import Definition
from prooftune.spec import Task

_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[+-]?)(?P<digits>[0-9]+(?:[.,][0-9]+)*|[.][0-9]+)(?P<exponent>[eE][+-]?[0-9]{1,3}(?![0-9]))?(?P<percent>\s?%)?"
)
_MINUS = str.maketrans("\N{MINUS SIGN}", "-")
_GROUP_SPACE = re.compile(
    "(?<=[0-9])[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}'\N{RIGHT SINGLE QUOTATION MARK}](?=[0-9]{3}(?![0-9]))"
)
"""Separators of thousands that are nothing else: 12 345 with a space that does not break, 12'345."""


def numbers_in(text: str) -> tuple[Decimal, ...]:
    """Return what the first number of a text may mean: one value, two where it can be read in two ways, none where there is no number.

    Of two kinds of separator the last is the decimal one (1,234.5 and 1.234,5), and one that is repeated separates thousands (1.234.567).
    A single point is a decimal point, as programs write it. A single comma is a decimal comma (3,14) unless three digits follow one to
    three others: 1,234 is 1234 or 1.234. A percent sign divides by 100.
    """
    for match in _NUMBER.finditer(_GROUP_SPACE.sub("", text.translate(_MINUS))):
        if plain := _readings(match["digits"]):
            shift = Decimal("0.01") if match["percent"] else Decimal(1)
            return tuple(Decimal(f"{match['sign']}{digits}{match['exponent'] or ''}") * shift for digits in plain)
    return ()


def _readings(digits: str) -> tuple[str, ...]:
    """Return the ways to read digits with separators, each in Python's notation; none where the separators make no number of them."""
    separators = re.findall("[.,]", digits)
    if not separators:
        return (digits,)
    last = separators[-1]
    other = "," if last == "." else "."
    whole, _, fraction = digits.rpartition(last)
    if other in separators:
        return (f"{whole.replace(other, '')}.{fraction}",) if _in_thousands(whole, other) else ()
    if len(separators) > 1:
        return (digits.replace(last, ""),) if _in_thousands(digits, last) else ()
    as_decimal = f"{whole}.{fraction}"
    return (as_decimal, whole + fraction) if last == "," and _in_thousands(digits, ",") else (as_decimal,)


def _in_thousands(digits: str, separator: str) -> bool:
    return re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:{re.escape(separator)}[0-9]{{3}})+", digits) is not None


def _numeric_tolerance(answer: str, target: str, task: Task) -> float | None:
    """Compare numbers; a target that can be read in two ways is unscored, an answer that can is right if either reading is."""
    wanted = numbers_in(target)
    if len(wanted) != 1:
        return None
    allowed = Decimal(str(task.tolerance)) * abs(wanted[0])
    return float(any(abs(found - wanted[0]) <= allowed for found in numbers_in(answer)))


def _regex_match(answer: str, target: str, task: Task) -> float | None:
    if task.pattern is None:
        raise SpecError("the metric regex_match needs task.pattern")
    return float(re.fullmatch(task.pattern, answer.strip()) is not None) if re.fullmatch(task.pattern, target.strip()) else None


FORMAT_METRICS = {
    "numeric_tolerance": Definition(_numeric_tolerance, right_or_wrong=True),
    "regex_match": Definition(_regex_match, right_or_wrong=True),
}
