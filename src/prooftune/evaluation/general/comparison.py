"""What a model made of the general suite before and after tuning, compared item by item."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from prooftune.evaluation import statistics
from prooftune.evaluation.general.items import Answers, Question, Text
from prooftune.evidence import General as Part

SEED = 0
"""Of the bootstrap intervals."""
CHOICES, FORM, LOSSES = "multiple choice", "multiple choice, answered with a choice", "perplexity"


def compare_suite(questions: Sequence[Question], texts: Sequence[Text], before: Answers, after: Answers) -> Iterator[Part]:
    """Yield both parts as wholes, then each topic; of no items, nothing.

    A question that one of the two answered with no choice counts on neither side. Where there are any, a part says how many each answered
    with one.
    """
    pairs = list(zip(before.right, after.right, strict=True))
    yield from _accuracy(CHOICES, pairs)
    if texts:
        yield _perplexity(LOSSES, before.losses, after.losses)
    if any(None in pair for pair in pairs):
        yield from _accuracy(FORM, [(early is not None, late is not None) for early, late in pairs])
    for topic in dict.fromkeys(question.topic for question in questions):
        chosen = [pair for question, pair in zip(questions, pairs, strict=True) if question.topic == topic]
        yield from _accuracy(f"{CHOICES}: {topic}", chosen)
    for topic in dict.fromkeys(text.topic for text in texts):
        at_topic = [at for at, text in enumerate(texts) if text.topic == topic]
        yield _perplexity(f"{LOSSES}: {topic}", [before.losses[at] for at in at_topic], [after.losses[at] for at in at_topic])


def compare_harness(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> Iterator[Part]:
    """Yield a part a task of lm-eval."""
    for task, values in before.items():
        yield from _accuracy(f"lm-eval: {task}", [(early == 1.0, late == 1.0) for early, late in zip(values, after[task], strict=True)])


def _accuracy(name: str, pairs: Sequence[tuple[bool | None, bool | None]]) -> Iterator[Part]:
    """Yield the part, or nothing where no question was answered by both."""
    scored = [(early, late) for early, late in pairs if early is not None and late is not None]
    if not scored:
        return
    before, after = [early for early, _ in scored], [late for _, late in scored]
    gained, lost = statistics.discordant(before, after)
    low, high = statistics.paired_proportions_interval(gained, lost, len(before))
    yield Part(
        name=name,
        unit="accuracy",
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        change=(gained - lost) / len(before),
        ci_low=low,
        ci_high=high,
        p_value=statistics.mcnemar_exact(before, after),
        n=len(before),
        unscored=len(pairs) - len(scored),
    )


def _perplexity(name: str, before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Part:
    """Compare on the same resamples of texts: both models meet the same tokens, so the mean loss is over the same number of them."""
    import numpy as np

    tokens = np.asarray([count for _, count in before], dtype=np.float64)
    rises = np.asarray([late - early for (early, _), (late, _) in zip(before, after, strict=True)], dtype=np.float64)

    def rise(counts: statistics.Floats) -> statistics.Floats:
        means: statistics.Floats = counts @ rises / (counts @ tokens)
        return means

    draws = statistics.bootstrap(rise, len(before), seed=SEED)
    low, high = statistics.percentile_interval(draws)
    mean = float(rises.sum() / tokens.sum())
    return Part(
        name=name,
        unit="nats_per_token",
        before=float(sum(loss for loss, _ in before) / tokens.sum()),
        after=float(sum(loss for loss, _ in after) / tokens.sum()),
        change=-math.expm1(mean),
        ci_low=-math.expm1(high),
        ci_high=-math.expm1(low),
        p_value=statistics.bootstrap_p(draws, int(np.count_nonzero(rises))),
        n=len(before),
    )
