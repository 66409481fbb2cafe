"""How far two sets of texts differ: pure functions of texts and numbers, seeded, indifferent to the order of either set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 10
DRAWS = 100
LEVEL = 0.99
"""Chance with which a limit is kept where nothing has drifted."""
MOST = 1000
"""Texts of each side that are embedded: a difference that takes more to be seen is too small to matter."""
BUCKETS = 2**14
_WORD = re.compile(r"\w+")


class Drift(NamedTuple):
    """One measure of how far two sets of texts differ."""

    name: str
    """For figures, ``psi_length``."""
    text: str
    """For people."""
    value: float
    limit: float
    """Above it is drift."""


def feature_drift(before: Sequence[str], now: Sequence[str], max_psi: float) -> list[Drift]:
    """Return the population stability index of the texts' lengths, and of the words that they use.

    Lengths are characters, binned by the deciles of ``before``. Words are binned by how frequent they are in ``before``, in groups of
    about a tenth of all its words each; words that it never uses are among the rarest.

    A small sample differs from its like by chance: the index then follows ``(1 / n + 1 / m)`` times a chi-square with one degree of freedom
    less than there are bins, so below its 99 % quantile nothing is shown, whatever ``max_psi`` is.
    Source: Yurdakul & Naranjo (2020), Statistical properties of the population stability index, Journal of Risk Model Validation.
    """
    from scipy.stats import chi2

    chance = float(chi2.ppf(LEVEL, BINS - 1)) * (1 / len(before) + 1 / len(now))
    limit, smaller = max(max_psi, chance), min(len(before), len(now))
    return [
        Drift("psi_length", "stability index of lengths", psi(*_length_counts(before, now), smaller), limit),
        Drift("psi_words", "stability index of words", psi(*_word_counts(before, now), smaller), limit),
    ]


def psi(before: Sequence[float], now: Sequence[float], smaller: int) -> float:
    """Return the population stability index of two histograms over the same bins: 0 where the shares are equal, and symmetric.

    ``sum((q - p) · ln(q / p))``. An empty bin counts as half an observation of the smaller sample, of ``smaller`` observations.
    Source: Siddiqi (2006), Credit Risk Scorecards, chapter 9; it is Jeffreys' divergence (1946).
    """
    import numpy as np

    p, q = (np.maximum(np.asarray(side, dtype=np.float64) / max(sum(side), 1), 0.5 / smaller) for side in (before, now))
    return float(np.sum((q - p) * np.log(q / p)))


def embedding_drift(before: Sequence[str], now: Sequence[str], folder: Path | None, limit: float | None, *, seed: int) -> Drift:
    """Return the cosine distance between the mean embeddings of both sets, and its limit.

    ``folder`` holds an embedding model; None = counts of the 3 to 5 characters that stand together within a word, hashed into 16,384
    buckets (Weinberger et al., 2009, https://arxiv.org/abs/0902.2206), each text scaled to length 1: it knows no vocabulary, so texts of
    ``before`` are no more at home in it than others.

    Without a ``limit`` it is what ``before`` differs by from itself, in 99 of 100 draws: each divides it by lot into a part of the size of
    ``now``, at most a half, and the rest. That is a permutation test (Fisher, 1935) at a level of 1 %.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    ours, theirs = (_sampled(texts, rng) for texts in (before, now))
    vectors = _embedded([*ours, *theirs], folder)
    known, others = vectors[: len(ours)], vectors[len(ours) :]
    value = float(_distances(_sums(known, np.ones((1, len(ours)))), _sums(others, np.ones((1, len(theirs)))))[0])
    if limit is None:
        limit = float(np.quantile(_distances_by_lot(known, max(1, min(len(theirs), len(ours) // 2)), rng), LEVEL))
    return Drift("embedding_distance", "distance of mean embeddings", value, limit)


def _length_counts(before: Sequence[str], now: Sequence[str]) -> tuple[list[float], list[float]]:
    import numpy as np

    ours, theirs = (np.array([len(text) for text in texts], dtype=np.float64) for texts in (before, now))
    edges = np.unique(np.quantile(ours, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, side, side="left"), minlength=len(edges) + 1) for side in (ours, theirs)]
    return counts[0].tolist(), counts[1].tolist()


def _word_counts(before: Sequence[str], now: Sequence[str]) -> tuple[list[float], list[float]]:
    ours, theirs = (Counter(word for text in texts for word in _WORD.findall(text.lower())) for texts in (before, now))
    groups = _frequency_groups(ours)
    rarest = max(groups.values(), default=0)
    counts = [[0.0] * (rarest + 1) for _ in range(2)]
    for side, words in zip(counts, (ours, theirs), strict=True):
        for word, count in words.items():
            side[groups.get(word, rarest)] += count
    return counts[0], counts[1]


def _frequency_groups(words: Counter[str]) -> dict[str, int]:
    """Return the group of each word, the most frequent ones first; words that are equally frequent are in one group."""
    total, before, groups = words.total(), 0, dict[str, int]()
    by_count: dict[int, list[str]] = {}
    for word, count in words.items():
        by_count.setdefault(count, []).append(word)
    for count in sorted(by_count, reverse=True):
        group = min(BINS * before // total, BINS - 1)
        groups |= dict.fromkeys(by_count[count], group)
        before += count * len(by_count[count])
    return groups


def _sampled(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return at most MOST of the texts, by lot; in whatever order they come, the same ones."""
    ordered = sorted(texts)
    return ordered if len(ordered) <= MOST else [ordered[at] for at in sorted(rng.choice(len(ordered), MOST, replace=False))]


def _embedded(texts: Sequence[str], folder: Path | None) -> Any:
    """Return a vector of length 1 a text: dense, or sparse without a model."""
    if folder is not None:
        from prooftune.evaluation.ladder.retrieval import embed

        return embed(texts, folder)
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=BUCKETS, alternate_sign=False).transform(texts)


def _distances_by_lot(vectors: Any, part: int, rng: np.random.Generator) -> Floats:
    """Return the distances between parts of the vectors, each drawn by lot, and what is left."""
    import numpy as np

    count = vectors.shape[0]
    drawn = np.zeros((DRAWS, count))
    for row in drawn:
        row[rng.permutation(count)[:part]] = 1
    return _distances(_sums(vectors, drawn), _sums(vectors, 1 - drawn))


def _sums(vectors: Any, chosen: Floats) -> Floats:
    """Return the sum of the vectors that each row of zeros and ones chooses: the mean but for its length, which no cosine sees."""
    import numpy as np

    return np.asarray(chosen @ vectors, dtype=np.float64)


def _distances(ones: Floats, others: Floats) -> Floats:
    """Return the cosine distances, row by row; from a sum that is zero it is 0."""
    import numpy as np

    lengths = np.linalg.norm(ones, axis=1) * np.linalg.norm(others, axis=1)
    products = np.einsum("ij,ij->i", ones, others)
    distances: Floats = 1 - np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0)
    return distances
