"""Compares the candidate's answers with the best baseline's, example by example."""

from __future__ import annotations

from dataclasses import dataclass

from prooftune.report.view import CANDIDATE, RunView
from prooftune.types import Prediction


@dataclass(frozen=True, slots=True)
class Change:
    """One held-out example on which the best baseline and the candidate scored differently."""

    baseline: Prediction
    candidate: Prediction
    difference: float
    """Candidate's score minus the baseline's."""


@dataclass(frozen=True, slots=True)
class Changes:
    """How the candidate's answers differ from the best baseline's, example by example."""

    regressions: tuple[Change, ...]
    """Worst first."""
    improvements: tuple[Change, ...]
    """Best first."""
    both_right: int
    """Same full score."""
    same: int
    """Same score below the full one."""
    unscored: int

    @property
    def total(self) -> int:
        """Held-out examples, each counted once."""
        return len(self.regressions) + len(self.improvements) + self.both_right + self.same + self.unscored


def compare_answers(view: RunView) -> Changes:
    """Pair the best baseline's answers with the candidate's and sort them by what changed, ties by example id."""
    baseline = {prediction.example_id: prediction for prediction in view.predictions.get(view.decision.baseline or "", ())}
    changes, both_right, same, unscored = [], 0, 0, 0
    for after in view.predictions.get(CANDIDATE, ()):
        before = baseline.get(after.example_id)
        old, new = (None if answer is None else answer.scores.get(view.metric) for answer in (before, after))
        if before is None or old is None or new is None:
            unscored += 1
        elif old != new:
            changes.append(Change(before, after, new - old))
        elif new == 1:
            both_right += 1
        else:
            same += 1
    changes.sort(key=lambda change: (-abs(change.difference), change.candidate.example_id))
    worse = tuple(change for change in changes if change.difference < 0)
    better = tuple(change for change in changes if change.difference > 0)
    return Changes(worse, better, both_right, same, unscored)
