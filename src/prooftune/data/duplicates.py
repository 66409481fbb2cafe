"""Find exact duplicates and clusters of near-duplicate texts, without comparing every pair.

Near-duplicates on both sides of a split leak the answer into the exam (Lee et al., 2021, "Deduplicating Training Data Makes Language
Models Better"), so they are grouped. Candidates come from MinHash with banding (Broder, 1997; Leskovec et al., "Mining of Massive
Datasets", ch. 3); each candidate pair is then verified by its true Jaccard similarity, so hashing can miss a pair, never invent one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIMILARITY = 0.75
"""Jaccard similarity of character 3-gram sets from which two texts are near-duplicates.

At 3/4 a typo, a changed word in twelve or an added "please" still joins, while "where is my card" and "where is my new card" (0.71) stay
two questions.
"""
BANDS, ROWS = 24, 4
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s⁴)²⁴: 0.9999 at 0.75, 0.79 at 0.5, 0.18 at 0.3."""
WINDOW = 16
"""In a crowded band bucket each text meets this many neighbours in text order, so templated data costs n × 16 pairs a band and not n²."""
CHUNK = 1 << 17
"""Candidate pairs verified at once; bounds memory."""

Pairs = NDArray[np.int64]
"""Shape ``(pairs, 2)``."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Near-duplicate clusters of a sequence of texts, and the verified pairs that made them."""

    groups: tuple[str, ...]
    """Group name by text; empty for a text without a near-duplicate."""
    texts: tuple[int, ...]
    """Number of the distinct normalised text by text; -1 for one that normalises to nothing."""
    pairs: tuple[tuple[int, int], ...]
    """Distinct texts, by number, that were verified as similar."""

    @property
    def sizes(self) -> list[int]:
        """Number of texts in each cluster, largest first."""
        return sorted(Counter(group for group in self.groups if group).values(), reverse=True)


def normalise(text: str) -> str:
    """Text as duplicates are compared: NFKC, case folded, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def find_clusters(texts: Sequence[str], similarity: float = SIMILARITY) -> Clusters:
    """Cluster texts that are equal once normalised, or at least ``similarity`` alike, transitively.

    The result does not depend on the order of the texts. Texts that normalise to nothing join no cluster.
    """
    normal = [normalise(text) for text in texts]
    distinct = sorted(set(normal) - {""})
    number = {text: index for index, text in enumerate(distinct)}
    numbers = tuple(number.get(text, -1) for text in normal)
    pairs = _similar_pairs(distinct, similarity)
    root = connected(len(distinct), pairs)
    members = Counter(root[index] for index in numbers if index >= 0)
    # The first text of a cluster in sorted order names it, so the name is the same in every run.
    groups = (_name(distinct[root[index]]) if index >= 0 and members[root[index]] > 1 else "" for index in numbers)
    return Clusters(tuple(groups), numbers, tuple((left, right) for left, right in pairs.tolist()))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _similar_pairs(texts: Sequence[str], similarity: float) -> Pairs:
    """Index pairs ``(pairs, 2)``, left < right, of unique texts with a Jaccard similarity of at least ``similarity``."""
    if len(texts) < 2:
        return np.empty((0, 2), dtype=np.int64)
    shingles, starts = _shingles(texts)
    candidates = _candidates(_signatures(shingles, starts))
    kept = [candidates[start : start + CHUNK] for start in range(0, len(candidates), CHUNK)]
    verified = [pairs[share >= similarity] for pairs, share in zip(kept, _jaccard(shingles, starts, kept), strict=True)]
    return np.concatenate(verified) if verified else np.empty((0, 2), dtype=np.int64)


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct character 3-grams of each text, one text after the other, and where each text starts.

    Three code points of 21 bits pack into one 64-bit number without loss. A space at both ends marks where words begin and end and gives
    even a single letter a 3-gram.
    """
    packed: list[NDArray[np.uint64]] = []
    for text in texts:
        points = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        grams = np.sort((points[:-2] << np.uint64(42)) | (points[1:-1] << np.uint64(21)) | points[2:])
        packed.append(grams[np.append(True, grams[1:] != grams[:-1])])  # np.unique costs ten times as much on short arrays
    lengths = np.array([len(part) for part in packed], dtype=np.int64)
    return np.concatenate(packed), np.concatenate(([0], np.cumsum(lengths)[:-1]))


def _signatures(shingles: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """MinHash signatures, shape ``(texts, BANDS * ROWS)``, by multiply-shift hashing of well-mixed shingles."""
    mixed = shingles * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    draw = np.random.default_rng(0)  # fixed: the same texts cluster the same way in every run
    factors = draw.integers(0, 1 << 63, size=BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(starts), BANDS * ROWS), dtype=np.uint32)
    for column, factor in enumerate(factors):
        hashes = ((mixed * factor) >> np.uint64(32)).astype(np.uint32)
        signatures[:, column] = np.minimum.reduceat(hashes, starts)
    return signatures


def _candidates(signatures: NDArray[np.uint32]) -> Pairs:
    """Distinct index pairs that agree on all rows of at least one band."""
    count = len(signatures)
    codes: list[NDArray[np.int64]] = []
    for band in range(BANDS):
        key = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS]).view(np.dtype((np.void, 4 * ROWS))).ravel()
        _, bucket = np.unique(key, return_inverse=True)
        for pairs in _bucket_pairs(bucket):
            codes.append(pairs[:, 0] * count + pairs[:, 1])
    found = np.unique(np.concatenate(codes)) if codes else np.empty(0, dtype=np.int64)
    return np.stack((found // count, found % count), axis=1)


def _bucket_pairs(bucket: NDArray[np.int64]) -> Iterator[Pairs]:
    """Pairs of indices in the same bucket, at most ``WINDOW`` places apart within it."""
    order = np.argsort(bucket, kind="stable")
    ordered = bucket[order]
    for distance in range(1, min(WINDOW, len(order) - 1) + 1):
        same = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        if not len(same):
            return
        yield np.stack((order[same], order[same + distance]), axis=1)


def _jaccard(shingles: NDArray[np.uint64], starts: NDArray[np.int64], chunks: Sequence[Pairs]) -> Iterator[NDArray[np.float64]]:
    """True Jaccard similarity of each pair of each chunk."""
    from scipy.sparse import csr_array

    vocabulary, column = np.unique(shingles, return_inverse=True)
    ends = np.append(starts, len(shingles))
    sets = csr_array((np.ones(len(shingles), dtype=np.int32), column, ends), shape=(len(starts), len(vocabulary)))
    sizes = np.diff(ends)
    for pairs in chunks:
        left, right = pairs[:, 0], pairs[:, 1]
        shared = np.asarray((sets[left] * sets[right]).sum(axis=1)).ravel()
        yield shared / (sizes[left] + sizes[right] - shared)


def connected(count: int, pairs: Pairs) -> list[int]:
    """Lowest index of the connected component of each of ``count`` nodes, whose edges are ``pairs``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    _, first, component = np.unique(labels, return_index=True, return_inverse=True)
    lowest: list[int] = first[component].tolist()
    return lowest
