"""Slices: how parts of the holdout did, and that the parts make up the whole."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.gate.slices import slices_of
from prooftune.evaluation.metrics import measure, score
from prooftune.evaluation.statistics import wilson
from prooftune.spec import Gate, Task
from prooftune.types import Example, Message, Prediction, Scalar

Row = tuple[str, str, str, dict[str, Scalar]]
"""Target, the baseline's answer, the candidate's answer, metadata."""


def made(folder: Path, rows: list[Row], metric: str = "exact_match") -> tuple[list[Prediction], list[Prediction], Path]:
    """Write a holdout and return both sides' answers to it."""
    examples = [
        Example(
            id=f"{n:016x}",
            source=f"x.jsonl:{n + 1}",
            messages=(Message(role="user", content="q"), Message(role="assistant", content=target)),
            metadata=metadata,
        )
        for n, (target, _, _, metadata) in enumerate(rows)
    ]
    write_lines(folder / "holdout.jsonl", examples)
    sides = [[prediction(n, row[0], row[side], metric) for n, row in enumerate(rows)] for side in (1, 2)]
    return sides[0], sides[1], folder / "holdout.jsonl"


def prediction(n: int, target: str, answer: str, metric: str) -> Prediction:
    """Return an answer with its score."""
    return Prediction(
        example_id=f"{n:016x}",
        prompt="q",
        target=target,
        answer=answer,
        prompt_tokens=1,
        answer_tokens=1,
        finished=True,
        latency_s=0.1,
        scores={metric: score(metric, answer, target, Task())},
    )


def test_a_slice_is_a_paired_comparison_of_its_part(tmp_path: Path) -> None:
    """Values by side with Wilson's intervals, the difference by exact McNemar; only large slices are guarded."""
    pay: list[Row] = [("a", "a" if n < 12 else "b", "a" if n >= 6 else "b", {"product": "pay"}) for n in range(20)]
    card: list[Row] = [("a", "b", "a", {"product": "card"})] * 5
    baseline, candidate, holdout = made(tmp_path, [*pay, *card])
    found = slices_of(baseline, candidate, holdout, Task(slices=("product",)), Gate(alpha=0.1), seed=1)
    assert [(one.column, one.value, one.n, one.guarded) for one in found] == [("product", "card", 5, False), ("product", "pay", 20, True)]
    large = found[1]
    assert (large.baseline, large.candidate, large.difference) == (0.6, 0.7, pytest.approx(0.1))
    assert (large.baseline_low, large.baseline_high) == wilson(12, 20, 0.1)
    assert (large.candidate_low, large.candidate_high) == wilson(14, 20, 0.1)
    expected = compare("exact_match", pair_up("b", baseline[:20], candidate[:20]), Task(), alpha=0.1, seed=1)
    assert (large.ci_low, large.ci_high, large.p_value) == (expected.ci_low, expected.ci_high, expected.p_value)
    assert (found[0].difference, found[0].p_value) == (1.0, pytest.approx(2 / 2**5))


def test_values_of_every_kind_are_named(tmp_path: Path) -> None:
    """Numbers, truth values, and examples that lack the column or have null in it."""
    columns: list[dict[str, Scalar]] = [{"x": 1}, {"x": 2.5}, {"x": True}, {"x": None}, {}, {"x": "b"}]
    baseline, candidate, holdout = made(tmp_path, [("a", "a", "b", metadata) for metadata in columns])
    found = slices_of(baseline, candidate, holdout, Task(slices=("x",)), Gate(min_slice=2), seed=0)
    assert {one.value: one.n for one in found} == {"1": 1, "2.5": 1, "true": 1, "(none)": 2, "b": 1}
    assert [one.value for one in found] == sorted(one.value for one in found)
    assert [one.value for one in found if one.guarded] == ["(none)"]


CELLS = st.tuples(
    st.sampled_from(["a", "b", "..."]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["a", "b", "c"]),
    st.fixed_dictionaries({"here": st.sampled_from(["u", "v", 3, None])}, optional={"kind": st.booleans()}),
)


@given(st.lists(CELLS, min_size=1, max_size=12), st.sampled_from(["exact_match", "rouge_l", "macro_f1"]), st.randoms())
@settings(deadline=None, max_examples=12)
def test_slices_partition_the_holdout(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], metric: str, shuffled: random.Random
) -> None:
    """Each column's slices hold every scored example once, whatever the order of the answers; means add up to the whole's."""
    baseline, candidate, holdout = made(tmp_path_factory.mktemp("slices"), rows, metric)
    if all(one.scores[metric] is None for one in baseline):
        return
    task = Task(metric=metric, slices=("here",))
    found = slices_of(baseline, candidate, holdout, task, Gate(), seed=0)
    scored = [one for one in candidate if one.scores[metric] is not None]
    assert sum(one.n for one in found) == len(scored)
    for one in found:
        assert 0 <= one.baseline_low <= one.baseline_high <= 1
        assert one.ci_low <= one.difference + 1e-12
        assert one.difference <= one.ci_high + 1e-12
        assert one.difference == pytest.approx(one.candidate - one.baseline)
    if metric != "macro_f1":
        whole = measure([metric], [one.answer for one in candidate], [one.target for one in candidate], task, seed=0)[metric]
        assert sum(one.candidate * one.n for one in found) / whole.n == pytest.approx(whole.value)
    shuffled.shuffle(baseline)
    again = slices_of(baseline, candidate, holdout, task, Gate(), seed=0)
    assert again == found


def test_a_corpus_metric_is_taken_over_the_slice(tmp_path: Path) -> None:
    """Macro F1 of the slice's own labels, not a share of the whole's."""
    rows: list[Row] = [("a", "a", "a", {"k": 1}), ("b", "a", "b", {"k": 1}), ("c", "c", "c", {"k": 2})]
    baseline, candidate, holdout = made(tmp_path, rows, "macro_f1")
    first, second = slices_of(baseline, candidate, holdout, Task(metric="macro_f1", slices=("k",)), Gate(), seed=0)
    assert (first.baseline, first.candidate) == (pytest.approx(1 / 3), 1.0)
    assert (second.baseline, second.candidate, second.difference) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({"product": "pay", "area": "eu"}, "the columns there are: area, product"), ({}, "the examples have no further columns")],
)
def test_a_column_that_no_example_has_is_an_error(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    """It names the columns there are."""
    baseline, candidate, holdout = made(tmp_path, [("a", "a", "a", metadata)])
    with pytest.raises(DataError, match=f"task.slices names prodcut, which none of the 1 held-out examples has; {message}"):
        slices_of(baseline, candidate, holdout, Task(slices=("prodcut",)), Gate(), seed=0)


def test_answers_to_another_holdout_are_refused(tmp_path: Path) -> None:
    """Rather than sliced by the wrong metadata."""
    baseline, candidate, holdout = made(tmp_path, [("a", "a", "a", {"k": 1})] * 2)
    with pytest.raises(DataError, match="the 1 answers are not to the 2 examples of holdout"):
        slices_of(baseline[:1], candidate[:1], holdout, Task(slices=("k",)), Gate(), seed=0)


def test_no_columns_no_slices(tmp_path: Path) -> None:
    """Nothing is asked for, nothing is computed."""
    baseline, candidate, holdout = made(tmp_path, [("a", "a", "a", {"k": 1})])
    assert slices_of(baseline, candidate, holdout, Task(), Gate(), seed=0) == ()


def test_a_column_of_single_cases_is_refused(tmp_path: Path) -> None:
    """A column with a value for nearly each example is no column to slice by, and the message says how many values it has."""
    from prooftune.evaluation.gate.slices import MOST_VALUES, check_slices
    from prooftune.types import Message

    messages = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    rows = [
        Example(id=f"{n:016x}", source="x", messages=messages, metadata={"ticket": n, "product": n % 3}) for n in range(MOST_VALUES + 1)
    ]
    holdout = tmp_path / "holdout.jsonl"
    holdout.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    assert len(check_slices(holdout, Task(slices=("product",)))) == MOST_VALUES + 1
    with pytest.raises(DataError, match=f"ticket, which has {MOST_VALUES + 1} values"):
        check_slices(holdout, Task(slices=("product", "ticket")))
