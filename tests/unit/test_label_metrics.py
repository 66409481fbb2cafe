"""Metrics of labels against scikit-learn, and the confusion matrix."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.evaluation.metrics import score, value_of
from prooftune.evaluation.metrics.labels import LABEL_METRICS, are_labels, write_confusion
from prooftune.spec import Task

TASK = Task()
said = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [("Card_Arrival.", "card_arrival", 1.0), ("“Straße”", "STRASSE", 1.0), ("C++", "C", 0.0), ("", "...", 0.0), ("a b", "a", 0.0)],
)
def test_label_accuracy(answer: str, target: str, expected: float) -> None:
    """Case and the punctuation around a label do not matter; what is part of the label does."""
    assert score("label_accuracy", answer, target, TASK) == expected


@given(said)
@settings(deadline=None)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    """Over the targets' labels; an answer that is none of them costs its target's recall and makes no class of its own."""
    from sklearn.metrics import f1_score

    targets, answers = zip(*pairs, strict=True)
    expected = f1_score(targets, answers, labels=sorted(set(targets)), average="macro", zero_division=0)
    assert value_of("macro_f1", [answer.upper() for answer in answers], targets, TASK) == pytest.approx(expected)


@given(said, st.data())
@settings(deadline=None)
def test_a_resample_has_the_macro_f1_of_what_was_drawn(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """Also where a label was not drawn at all: the mean runs over those that were."""
    drawn = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=20))
    targets, answers = zip(*pairs, strict=True)
    corpus = LABEL_METRICS["macro_f1"].corpus
    assert corpus is not None
    counts = np.bincount(drawn, minlength=len(pairs))[None, :]
    expected = value_of("macro_f1", [answers[at] for at in drawn], [targets[at] for at in drawn], TASK)
    assert corpus.value(counts @ corpus.rows(answers, targets, TASK))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "labels"),
    [(["yes", "No", "no", "yes."], True), (["yes", "no", "maybe"], False), (["one two three four five six seven eight nine"] * 4, False)],
)
def test_what_counts_as_labels(targets: list[str], labels: bool) -> None:
    """Short texts that come back."""
    assert are_labels(targets) is labels


@given(said)
@settings(deadline=None)
def test_the_confusion_matrix_is_scikit_learns(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    """Targets in rows; answers that are no target's label stand in the last column; all examples are counted."""
    from sklearn.metrics import confusion_matrix

    targets, answers = zip(*pairs, strict=True)
    path = tmp_path_factory.mktemp("confusion") / "x.confusion.csv"
    write_confusion(path, [f"{answer}." for answer in answers], [target.upper() for target in targets])
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    labels = sorted(set(targets))
    assert header == ["target", *labels, "(other)"]
    assert [row[0] for row in rows] == labels
    known = [answer if answer in labels else "(other)" for answer in answers]
    expected = confusion_matrix(targets, known, labels=[*labels, "(other)"])[:-1]
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected.tolist()


def test_labels_with_commas_survive_the_csv(tmp_path: Path) -> None:
    """Quoted as CSV quotes."""
    write_confusion(tmp_path / "x.csv", ["a, b", 'say "hi" now'], ["a, b", 'say "hi" now'])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["target", "a, b", 'say "hi" now', "(other)"],
            ["a, b", "1", "0", "0"],
            ['say "hi" now', "0", "1", "0"],
        ]
