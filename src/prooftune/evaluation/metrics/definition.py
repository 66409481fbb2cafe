"""What a metric is: a score for one answer and, where the metric is no mean of scores, its value over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prooftune.spec import Task

if TYPE_CHECKING:
    from prooftune.evaluation.statistics import Floats


@dataclass(frozen=True, slots=True)
class Corpus:
    """A value over all examples that is no mean of their scores, but a function of sums over them.

    A bootstrap then needs only the sums: those of a resample are its counts times the rows, whatever the metric.
    """

    rows: Callable[[Sequence[str], Sequence[str], Task], Floats]
    """Answers and targets → what each example adds to the sums, ``(n, k)``."""
    value: Callable[[Floats], Floats]
    """Sums ``(resamples, k)`` → values between 0 and 1, ``(resamples,)``."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How a metric judges answers."""

    score: Callable[[str, str, Task], float | None]
    """Answer and target → between 0 and 1, or None where the metric does not apply to the *target*: were it for the answer's sake, a
    contestant could choose which questions count. The target itself is a right answer."""
    right_or_wrong: bool = False
    """Whether scores are 0 or 1 and the metric is their mean."""
    corpus: Corpus | None = None
    """None = the metric is the mean of the scores."""
