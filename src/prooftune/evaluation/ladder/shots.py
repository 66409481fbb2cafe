"""Chooses how many demonstrations a prompt shows: on validation examples, never on the holdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.metrics import measure
from prooftune.evaluation.scoring import INTERVAL_SEED, Contest
from prooftune.types import Example, Frozen, Message, Progress, Report, no_report


class ShotsChoice(Frozen):
    """``RUNG.choice.json``: how many demonstrations a rung shows, and why."""

    shots: int
    metric: str
    scores: dict[int, float]
    """The metric on the validation examples, by number of demonstrations. Empty = ``shots`` was not chosen but set."""
    n: int
    """Validation examples."""


def choose_shots(
    most: int,
    ask: Callable[[Example, int], Sequence[Message]],
    validation: Contest,
    answerer: Answerer,
    report: Report = no_report,
) -> ShotsChoice:
    """Return the number of demonstrations that does best on the validation examples; of equals, the fewest.

    Tried are the powers of two below ``most``, and ``most``. ``ask`` puts an example's question with so many demonstrations.
    """
    metric, questions = validation.task.metric, validation.holdout
    options = shots_to_try(most)
    scores: dict[int, float] = {}
    for number, shots in enumerate(options):
        answers = answerer.answer(
            [ask(example, shots) for example in questions],
            max_new_tokens=validation.max_new_tokens,
            report=_following(report, number * len(questions), len(options) * len(questions)),
        )
        texts, targets = [answer.text for answer in answers], [example.target for example in questions]
        scores[shots] = measure((metric,), texts, targets, validation.task, seed=INTERVAL_SEED)[metric].value
    best = min(options, key=lambda shots: (-scores[shots], shots))
    return ShotsChoice(shots=best, metric=metric, scores=scores, n=len(questions))


def shots_to_try(most: int) -> list[int]:
    """Return the powers of two below ``most``, and ``most``."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def _following(report: Report, done: int, total: int) -> Report:
    def follow(progress: Progress) -> None:
        report(progress.model_copy(update={"done": done + progress.done, "total": total}))

    return follow
