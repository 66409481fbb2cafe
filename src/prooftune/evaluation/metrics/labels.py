"""Metrics of answers that are labels, and the confusion matrix.

========================  ===================================================================  =================
metric                    score of one example                                                 value
========================  ===================================================================  =================
``label_accuracy``        1 if the label is the target's, whatever its case and punctuation    mean
``macro_f1``              as ``label_accuracy``                                                mean F1 of the labels
========================  ===================================================================  =================
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.evaluation.metrics.definition import Corpus, Definition
from prooftune.spec import Task

if TYPE_CHECKING:
    from prooftune.evaluation.statistics import Floats

OTHER = "(other)"
"""Column of the confusion matrix for answers that are no label. No label is written so: ``label_of`` takes the brackets away."""
_EDGES = " \t\r\n.,;:!?'\"`*()[]{}<>«»‹›“”„‘’‚…"


def label_of(text: str) -> str:
    """Return a label without regard to case and to the punctuation around it; a label of punctuation alone stays."""
    folded = text.casefold()
    return folded.strip(_EDGES) or folded.strip()


def are_labels(targets: Sequence[str]) -> bool:
    """Return whether targets are short texts that come back twice each, on average."""
    return 2 * len({label_of(target) for target in targets}) <= len(targets) and all(len(target.split()) <= 8 for target in targets)


def write_confusion(path: Path, answers: Sequence[str], targets: Sequence[str]) -> None:
    """Write how often each label (rows) was answered with each label (columns); both are the targets' labels, sorted."""
    labels = sorted({label_of(target) for target in targets})
    known = frozenset(labels)
    found = [answer if (answer := label_of(text)) in known else OTHER for text in answers]
    counts = Counter(zip(map(label_of, targets), found, strict=True))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["target", *labels, OTHER])
        writer.writerows([label, *(counts[label, answer] for answer in (*labels, OTHER))] for label in labels)


def _label_accuracy(answer: str, target: str, task: Task) -> float:
    return float(label_of(answer) == label_of(target))


def _f1_rows(answers: Sequence[str], targets: Sequence[str], task: Task) -> Floats:
    """Return for each label of the targets the hits, then the targets, then the answers that are it: ``(n, 3 · labels)``."""
    import numpy as np

    wanted, found = ([label_of(text) for text in texts] for texts in (targets, answers))
    column = {label: at for at, label in enumerate(sorted(set(wanted)))}
    is_target, is_answer = (np.zeros((len(targets), len(column))) for _ in range(2))
    for row, (target, answer) in enumerate(zip(wanted, found, strict=True)):
        is_target[row, column[target]] = 1
        if answer in column:
            is_answer[row, column[answer]] = 1
    return np.hstack([is_target * is_answer, is_target, is_answer])


def _macro_f1(sums: Floats) -> Floats:
    """Return the mean F1 of the labels that occur as targets: an answer that is none of them counts against its target's recall only."""
    import numpy as np

    hits, targets, answers = np.split(sums, 3, axis=1)
    f1 = 2 * hits / np.maximum(targets + answers, 1) * (targets > 0)
    values: Floats = f1.sum(axis=1) / (targets > 0).sum(axis=1)
    return values


LABEL_METRICS = {
    "label_accuracy": Definition(_label_accuracy, right_or_wrong=True),
    "macro_f1": Definition(_label_accuracy, corpus=Corpus(_f1_rows, _macro_f1)),
}
