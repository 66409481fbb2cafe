"""Finds out what the candidate's failures share and what to label against them in the next iteration.

The failures are held-out examples. People may read about them in the report, but the labelling list shows training examples alone: who
labels questions like the held-out ones teaches the next candidate the exam.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.lines import read_lines
from prooftune.errors import IntegrityError
from prooftune.evaluation.ladder.prompts import question_text
from prooftune.evaluation.ladder.retrieval import Nearest
from prooftune.evaluation.learning.mistakes import Mistakes, confusion, mistakes_of, shared_mistake
from prooftune.evaluation.metrics.labels import are_labels
from prooftune.evidence import FailureCluster, Failures
from prooftune.spec import Task
from prooftune.types import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

MOST_CLUSTERS = 8
"""More are not read."""
FEWEST_EACH = 4
"""Failures a cluster, on average: fewer show no pattern."""
NEAREST = 5
"""Training examples shown beside a cluster."""
TERMS = 3
"""Words in a cluster's name."""
LIKENESS = ("rouge_l", "chrf", "bleu")
"""Metrics that a good answer, too, seldom gets 1 in."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that failed."""

    example_id: str
    text: str
    """The question."""
    mistakes: Mistakes


@dataclass(frozen=True, slots=True)
class Near:
    """A training example near a cluster's middle."""

    source: str
    """Where it was read, as in ``tickets.jsonl:417``."""
    prompt: str
    target: str
    similarity: float
    """Cosine, to six digits."""


@dataclass(frozen=True, slots=True)
class Training:
    """The training examples, to be searched by questions."""

    rows: tuple[Example, ...]
    nearest: Nearest

    def similarities(self, vectors: csr_matrix) -> NDArray[np.float64]:
        """Return the cosine similarity of each vector to each example, ``(vectors, examples)``, to six digits."""
        from sklearn.metrics.pairwise import cosine_similarity

        found: NDArray[np.float64] = cosine_similarity(vectors, self.nearest.vectors).astype(float).round(6)
        return found

    def best(self, similarities: NDArray[np.float64]) -> list[Near]:
        """Return the nearest examples with their similarities, nearest first, of equal ones by id."""
        ranked = sorted(zip(self.rows, similarities.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0].id))
        return [Near(row.source, question_text(row), row.target, similarity) for row, similarity in ranked[:NEAREST]]


def analyse_failures(
    train: Path, holdout: Path, predictions: Path, task: Task, out: Path, *, embedding_folder: Path | None = None, seed: int = 7
) -> dict[str, Any]:
    """Cluster the candidate's failures by question and mistake, name what each cluster shares, and say what to label next.

    A failure scores below 1 in ``task.metric``; in a metric of likeness or a custom one, also no higher than the lowest quartile. Writes
    ``failures.json`` and ``labelling.jsonl``, a line a cluster: its name, count and share, what to label, and the training examples nearest
    to its middle as the pattern; no held-out prompt or target. Questions are compared by ``embedding_folder``'s model; None = TF-IDF.

    Raises:
        IntegrityError: the predictions are not of this holdout.
        DataError: no training example holds a word.
        ModelUnavailable: the embedding model cannot be loaded safely.
    """
    examples = {example.id: example for example in read_lines(holdout, Example)}
    answers = sorted(read_lines(predictions, Prediction), key=lambda prediction: prediction.example_id)
    if missing := [answer.example_id for answer in answers if answer.example_id not in examples]:
        raise IntegrityError(f"{predictions.name} answers {missing[0]}, which is not in {holdout.name}; run the evaluation stage again")
    scored = [answer for answer in answers if answer.scores.get(task.metric) is not None]
    failed = {answer.example_id for answer in _failed(scored, task.metric)}
    labels = are_labels([answer.target for answer in answers])
    failures = [
        Failure(answer.example_id, question_text(examples[answer.example_id]), mistakes_of(answer, labels))
        for answer in scored
        if answer.example_id in failed
    ]
    successes = [question_text(examples[answer.example_id]) for answer in scored if answer.example_id not in failed]
    clusters, lines = _analyse(failures, successes, train, embedding_folder, seed) if failures else ((), [])
    found = Failures(failures=len(failures), scored=len(scored), clusters=clusters)
    (out / "failures.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (out / "labelling.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shown = {"name", "failures", "share", "confusion", "nearest_similarity", "advice"}
    return {
        "failures": found.failures,
        "scored": found.scored,
        "clusters": [cluster.model_dump(mode="json", include=shown) for cluster in clusters],
    }


def _failed(scored: Sequence[Prediction], metric: str) -> list[Prediction]:
    import numpy as np

    scores = [float(answer.scores[metric] or 0.0) for answer in scored]
    by_quartile = metric in LIKENESS or metric.startswith("custom:")
    highest = float(np.percentile(scores, 25)) if by_quartile and scores else 1.0
    return [answer for answer, score in zip(scored, scores, strict=True) if score < 1.0 and score <= highest]


def _analyse(
    failures: Sequence[Failure], successes: Sequence[str], train: Path, embedding_folder: Path | None, seed: int
) -> tuple[tuple[FailureCluster, ...], list[str]]:
    """Return the clusters, largest first, and the lines of the labelling list in their order."""
    from scipy.sparse import csr_matrix

    rows = list(read_lines(train, Example))
    training = Training(tuple(rows), Nearest(embedding_folder).fit([question_text(row) for row in rows]))
    vectors = csr_matrix(training.nearest.encode([failure.text for failure in failures]))
    scored = len(failures) + len(successes)
    clusters, lines, names = [], [], set[str]()
    for members in _cluster(vectors, failures, seed):
        inside = [failures[at] for at in members]
        name = _name(inside, successes, names)
        names.add(name)
        to_middle = training.similarities(csr_matrix(vectors[members].mean(axis=0)))[0]
        nearest, advice = training.best(to_middle), _advice(_cohesion(vectors[members]), to_middle, scored)
        clusters.append(_describe(name, inside, nearest, advice, len(failures)))
        lines.append(_labelling_line(clusters[-1], nearest, advice))
    return tuple(clusters), lines


def _cluster(vectors: csr_matrix, failures: Sequence[Failure], seed: int) -> list[list[int]]:
    """Return the clusters' members, largest cluster first: k-means on questions and mistakes, k by the highest silhouette.

    Few failures, or failures that are all alike, are one cluster. Source: Rousseeuw (1987), Silhouettes.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import MultiLabelBinarizer, normalize

    mistakes = [(*failure.mistakes.exact, *failure.mistakes.broad) for failure in failures]
    features = vectors.tocsr()
    if any(mistakes):
        told = normalize(MultiLabelBinarizer(sparse_output=True).fit_transform(mistakes).astype(float))
        features = hstack([vectors, told]).tocsr()  # each of length 1 or 0: both count alike
    features.sort_indices()
    distinct = len({(row.indices.tobytes(), row.data.tobytes()) for row in features})
    best, highest = np.zeros(len(failures), dtype=int), 0.0
    for k in range(2, min(MOST_CLUSTERS, len(failures) // FEWEST_EACH, distinct) + 1):
        labels = KMeans(n_clusters=k, n_init=10, random_state=seed).fit_predict(features)
        if (silhouette := float(silhouette_score(features, labels))) > highest:
            best, highest = labels, silhouette
    members = defaultdict(list)
    for at, label in enumerate(best.tolist()):
        members[label].append(at)
    return sorted(members.values(), key=lambda inside: (-len(inside), inside))


def _name(inside: Sequence[Failure], successes: Sequence[str], taken: set[str]) -> str:
    """Return the mistake that they share, else what sets their words apart from those of the questions that succeeded."""
    words = ", ".join(_terms([failure.text for failure in inside], successes)) or "no words in common"
    name = shared_mistake([failure.mistakes for failure in inside])
    if name is None:
        return words
    return f"{name} ({words})" if name in taken else name


def _terms(texts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return words that more of these texts hold than of the others, as shares, most so first; a word of a single text is chance."""
    ours, theirs = _texts_with(texts), _texts_with(others)
    lead = {word: count / len(texts) - theirs[word] / max(len(others), 1) for word, count in ours.items() if count > 1 or len(texts) == 1}
    return [word for word in sorted(lead, key=lambda word: (-lead[word], word))[:TERMS] if lead[word] > 0]


def _texts_with(texts: Sequence[str]) -> Counter[str]:
    return Counter(word for text in texts for word in set(re.findall(r"[^\W\d_]{2,}", text.casefold())))


def _describe(name: str, inside: Sequence[Failure], nearest: Sequence[Near], advice: str, failures: int) -> FailureCluster:
    return FailureCluster(
        name=name,
        failures=len(inside),
        share=len(inside) / failures,
        example_ids=tuple(failure.example_id for failure in inside),
        confusion=confusion([failure.mistakes for failure in inside]),
        nearest=tuple(near.source for near in nearest),
        nearest_similarity=sum(near.similarity for near in nearest) / len(nearest),
        advice=f"{len(inside)} of {failures} failures: `{name}`; {advice}.",
    )


def _cohesion(vectors: csr_matrix) -> list[float]:
    """Return each failure's cosine similarity to the middle of the others in its cluster; none for a failure that is alone."""
    import numpy as np
    from sklearn.metrics.pairwise import cosine_similarity

    if vectors.shape[0] < 2:
        return []
    dense = vectors.toarray().astype(float)
    others = dense.sum(axis=0) - dense
    return [round(float(cosine_similarity(one[None], other[None])[0, 0]), 6) for one, other in zip(dense, np.asarray(others), strict=True)]


def _advice(cohesion: Sequence[float], to_middle: NDArray[np.float64], scored: int) -> str:
    """Say what to label, so that training holds of such questions the share that the holdout's failures alone are of its questions."""
    import numpy as np

    likeness = float(np.median(cohesion)) if cohesion else 0.0
    if likeness <= 0.0:
        return "they are too few or too unlike for a pattern: label more questions as they come, not chosen by these"
    near, examples = int((to_middle >= likeness).sum()), len(to_middle)
    wanted = math.ceil(sum(one >= likeness for one in cohesion) / scored * examples)
    if near < wanted:
        return f"only {near} of {examples} training examples are as near as {likeness:.2f}: label about {wanted - near} more of this kind"
    return (
        f"{near} of {examples} training examples are as near as {likeness:.2f}, no less than their share of the questions: "
        "check the targets of the nearest ones before you label more"
    )


def _labelling_line(cluster: FailureCluster, nearest: Sequence[Near], advice: str) -> str:
    line = {
        "cluster": cluster.name,
        "failures": cluster.failures,
        "share": round(cluster.share, 6),
        "label": advice,
        "nearest": [asdict(near) for near in nearest if near.similarity > 0],
    }
    return json.dumps(line, ensure_ascii=False)
