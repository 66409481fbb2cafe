"""Metrics of answers that people read.

===============  ==========================================================================================  ============
metric           score of one example                                                                        value
===============  ==========================================================================================  ============
``exact_match``  1 if the answer is the target; JSON is compared as data                                     mean
``rouge_l``      F-measure of the longest common subsequence of words (Lin, 2004)                            mean
``chrf``         chrF2 of the sentence: F-measure of character n-grams up to 6 (Popović, 2015)               mean
``bleu``         BLEU-4 of the sentence (Papineni et al., 2002), of the orders that it is long enough for    corpus BLEU
===============  ==========================================================================================  ============

chrF and BLEU are sacrebleu's with its defaults, divided by 100. Corpus BLEU is 0 where no answer has four words: it is a metric of
sentences, not of labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from prooftune.evaluation.metrics.definition import Corpus, Definition
from prooftune.evaluation.metrics.json_fields import parse, same
from prooftune.spec import Task

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    from prooftune.evaluation.statistics import Floats


def _exact_match(answer: str, target: str, task: Task) -> float:
    wanted = parse(target)
    if isinstance(wanted, dict | list):
        return float(same(parse(answer), wanted))
    return float(answer.strip() == target.strip())


def _rouge_l(answer: str, target: str, task: Task) -> float | None:
    wanted, found = (re.findall(r"[^\W_]+", text.casefold()) for text in (target, answer))
    if not wanted:
        return None
    return 2 * _common_subsequence(wanted, found) / (len(wanted) + len(found))


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, one machine word of ``a`` at a time.

    Source: Hyyrö (2004), Bit-parallel LCS-length computation revisited.
    """
    where: dict[str, int] = {}
    for at, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << at
    everything = (1 << len(a)) - 1
    row = everything
    for word in b:
        matches = row & where.get(word, 0)
        row = (row + matches | row - matches) & everything
    return len(a) - row.bit_count()


def _chrf(answer: str, target: str, task: Task) -> float | None:
    # Rounding may leave a perfect sentence a hair above 100.
    return min(_chrf_scorer().sentence_score(answer, [target]).score / 100, 1.0) if target.strip() else None


def _sentence_bleu(answer: str, target: str, task: Task) -> float | None:
    found = _bleu_scorer().sentence_score(answer, [target])
    return min(found.score / 100, 1.0) if found.ref_len else None


@lru_cache(maxsize=1)
def _chrf_scorer() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@lru_cache(maxsize=1)
def _bleu_scorer() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


def _bleu_rows(answers: Sequence[str], targets: Sequence[str], task: Task) -> Floats:
    """Return what BLEU sums over sentences, ``(n, 10)``: matches and n-grams of the orders 1 to 4, then both lengths in words."""
    import numpy as np

    scores = [_bleu_scorer().sentence_score(answer, [target]) for answer, target in zip(answers, targets, strict=True)]
    return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores], dtype=np.float64)


def _corpus_bleu(sums: Floats) -> Floats:
    """Return sacrebleu's ``compute_bleu`` of each row of sums, thousands of them at once.

    An order without a match counts as a half, then a quarter, … of one (smoothing "exp"); without an order, or without any match, BLEU
    is 0.
    """
    import numpy as np

    matches, ngrams, (words, target_words) = sums[:, :4], sums[:, 4:8], sums[:, 8:].T
    missing = matches == 0
    smoothed = np.where(missing, 0.5 ** np.cumsum(missing, axis=1), matches)
    precision = np.exp(np.log(smoothed / np.maximum(ngrams, 1)).mean(axis=1))
    brevity = np.exp(np.minimum(1 - target_words / np.maximum(words, 1), 0))
    return np.where((ngrams > 0).all(axis=1) & ~missing.all(axis=1), np.minimum(brevity * precision, 1.0), 0.0)


TEXT_METRICS = {
    "exact_match": Definition(_exact_match, right_or_wrong=True),
    "rouge_l": Definition(_rouge_l),
    "chrf": Definition(_chrf),
    "bleu": Definition(_sentence_bleu, corpus=Corpus(_bleu_rows, _corpus_bleu)),
}
