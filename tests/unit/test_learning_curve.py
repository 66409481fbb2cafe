"""Nested subsets, points measured alike, and what a fitted power law says about more examples."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests_support import toy_rows

from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import DataError
from prooftune.evaluation.learning import learning_curve
from prooftune.evaluation.learning.learning_curve import score_on_validation, subset, train_on_share, write_curve
from prooftune.evaluation.learning.power_law import ENOUGH, WORTH, fit_curve, fit_law
from prooftune.evidence import Curve, CurvePoint
from prooftune.spec import Method, Task
from prooftune.training import sft
from prooftune.types import Example, Message

METHOD = Method(kind="full", epochs=2, learning_rate=5e-3, batch_size=8, early_stopping=None, checks_per_epoch=1)
TASK = Task(metric="label_accuracy")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """A tiny model's matrices are too small to share, and threads wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def example(prompt: str, target: str, group: str = "") -> Example:
    """An example whose id is its content's digest."""
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=target))
    return Example(id=hashlib.sha256(f"{prompt} {target}".encode()).hexdigest()[:16], source="made:1", messages=messages, group=group)


def points(sizes: list[int], losses: list[float]) -> list[CurvePoint]:
    """Points of a curve."""
    return [
        CurvePoint(share=size / max(sizes), examples=size, validation_loss=loss, metric=0.5, n=20)
        for size, loss in zip(sizes, losses, strict=True)
    ]


def power(sizes: list[int], scale: float, exponent: float, floor: float) -> list[float]:
    """Losses on a power law."""
    return [scale * size**-exponent + floor for size in sizes]


# The subset.

groups = st.lists(st.tuples(st.sampled_from("abc"), st.integers(min_value=1, max_value=5)), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(groups, st.lists(st.floats(min_value=0.01, max_value=0.99), min_size=2, max_size=4), st.integers(min_value=0, max_value=9))
def test_subsets_are_nested_and_of_whole_groups(made: list[tuple[str, int]], shares: list[float], seed: int) -> None:
    """Each share is part of the next; near-duplicates stay together; the size is off by at most half of the largest group."""
    rows = [example(f"{at} {copy}", label, f"g{at}") for at, (label, size) in enumerate(made) for copy in range(size)]
    largest = max(size for _, size in made)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_lines(folder / "all.jsonl", rows)
        smaller: set[str] = set()
        for share in sorted(shares):
            count = subset(folder / "all.jsonl", share, seed, folder)
            taken = list(read_lines(folder / "train.jsonl", Example))
            ids = {row.id for row in taken}
            assert count == len(taken) == len(ids) >= 1
            assert smaller <= ids
            touched = {row.group for row in taken}
            assert ids == {row.id for row in rows if row.group in touched}
            assert abs(count - share * len(rows)) <= largest / 2 or len(touched) == 1
            smaller = ids


def test_few_labels_stay_in_proportion(tmp_path: Path) -> None:
    """A quarter holds a quarter of each label, give or take one, and another seed takes others."""
    rows = [example(f"{at}", label) for label, count in (("a", 80), ("b", 16), ("c", 8)) for at in range(count)]
    write_lines(tmp_path / "all.jsonl", rows)
    assert subset(tmp_path / "all.jsonl", 0.25, 7, tmp_path) == 26
    taken = list(read_lines(tmp_path / "train.jsonl", Example))
    for label, count in (("a", 20), ("b", 4), ("c", 2)):
        assert abs(sum(row.target == label for row in taken) - count) <= 1
    before = (tmp_path / "train.jsonl").read_bytes()
    write_lines(tmp_path / "all.jsonl", rows[::-1])
    subset(tmp_path / "all.jsonl", 0.25, 7, tmp_path)
    assert (tmp_path / "train.jsonl").read_bytes() == before
    subset(tmp_path / "all.jsonl", 0.25, 8, tmp_path)
    assert (tmp_path / "train.jsonl").read_bytes() != before


def test_an_empty_training_split_is_a_data_error(tmp_path: Path) -> None:
    """There is nothing to take a share of."""
    (tmp_path / "all.jsonl").touch()
    with pytest.raises(DataError, match="holds no example to take a share of"):
        subset(tmp_path / "all.jsonl", 0.5, 7, tmp_path)


# The points.


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy training and validation splits."""
    folder = tmp_path_factory.mktemp("splits")
    rows = [example(row["prompt"], row["completion"]) for row in toy_rows(72)]
    write_lines(folder / "train.jsonl", rows[:60])
    write_lines(folder / "validation.jsonl", rows[60:])
    return folder


def on_half(splits: Path, model: Path, out: Path) -> dict[str, Any]:
    """Train on half of the toy data."""
    out.mkdir(exist_ok=True)
    return train_on_share(splits / "train.jsonl", splits / "validation.jsonl", model, TASK, METHOD, 0.5, 7, out, model_name="tiny")


def test_a_share_is_trained_and_scored(splits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point holds half of the examples and the training's own loss; a kill before the score trains no more; no weights stay."""
    monkeypatch.setattr(learning_curve, "score_on_validation", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        on_half(splits, tiny_model, tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out/training/model/model.safetensors").is_file()
    figures = on_half(splits, tiny_model, tmp_path / "out")
    point = CurvePoint.model_validate_json((tmp_path / "out/point.json").read_bytes())
    training = json.loads((tmp_path / "out/training/training.json").read_text())
    assert (point.share, point.examples, point.n) == (0.5, 30, 12)
    assert figures == {**point.model_dump(mode="json"), "trained_tokens": training["trained_tokens"]}
    assert point.validation_loss == training["validation_loss"]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert on_half(splits, tiny_model, tmp_path / "out") == figures


def test_the_curve_ends_with_the_candidate(splits: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The candidate is scored on the validation split as the shares were."""
    train, validation = splits / "train.jsonl", splits / "validation.jsonl"
    candidate = sft.train(train, validation, tiny_model, TASK, METHOD, tmp_path)
    loss, weights = float(str(candidate["validation_loss"])), tmp_path / "model"
    known = tmp_path / "point.json"
    known.write_text(CurvePoint(share=0.5, examples=30, validation_loss=2 * loss, metric=0.25, n=12).model_dump_json())
    figures = write_curve([known], train, validation, tiny_model, weights, TASK, loss, 7, tmp_path, kind="full")
    curve = Curve.model_validate_json((tmp_path / "learning_curve.json").read_bytes())
    assert figures == curve.model_dump(mode="json")
    first, last = curve.points
    found = score_on_validation(train, validation, tiny_model, weights, TASK, kind="full")
    assert (first.examples, last.examples, last.share, last.n) == (30, 60, 1.0, 12)
    assert (last.metric, last.validation_loss) == (found.value, loss)
    assert 0.0 <= found.value <= 1.0
    assert curve.doubled_loss == pytest.approx(loss / 2, rel=1e-4)


# The fit.

exponents = st.floats(min_value=0.02, max_value=1.0)
scales = st.floats(min_value=0.1, max_value=20.0)


@settings(max_examples=10, deadline=None)
@given(scales, exponents, st.floats(min_value=0.01, max_value=2.0), st.integers(min_value=ENOUGH, max_value=8))
def test_an_exact_power_law_is_recovered(scale: float, exponent: float, floor: float, count: int) -> None:
    """Five points and more give all three constants, the loss at twice the examples, and so the verdict."""
    sizes = [50 * 2**at for at in range(count)]
    assume(scale * sizes[-1] ** -exponent > 0.02 * floor)
    losses = power(sizes, scale, exponent, floor)
    [doubled] = power([2 * sizes[-1]], scale, exponent, floor)
    law = fit_law(np.array(sizes) / sizes[-1], np.array(losses))
    assert law.loss(2.0) == pytest.approx(doubled, rel=1e-3)
    assert law.exponent == pytest.approx(exponent, rel=0.1, abs=0.02)
    fall = 1 - doubled / losses[-1]
    assume(abs(fall - WORTH) > 0.005)
    curve = fit_curve(points(sizes, losses), seed=7)
    assert curve.more_helps is (fall > WORTH)
    assert curve.doubled_loss == pytest.approx(doubled, rel=1e-3)
    assert curve.doubled_low is not None
    assert curve.doubled_low == pytest.approx(curve.doubled_high, rel=1e-2)


@settings(max_examples=15, deadline=None)
@given(scales, exponents, st.integers(min_value=2, max_value=ENOUGH - 1))
def test_few_points_assume_no_floor_and_say_so(scale: float, exponent: float, count: int) -> None:
    """An exact law without a floor is recovered from two points; there is no interval, and two points do not tell."""
    sizes = [50 * 2**at for at in range(count)]
    curve = fit_curve(points(sizes, power(sizes, scale, exponent, 0.0)), seed=7)
    [doubled] = power([2 * sizes[-1]], scale, exponent, 0.0)
    assert curve.doubled_loss == pytest.approx(doubled, rel=1e-3)
    assert curve.doubled_low is curve.doubled_high is None
    assert "a power law without a floor" in curve.text
    assert f"{count} points are too few for an interval" in curve.text
    if count == 2:
        assert curve.more_helps is None
    elif exponent < 0.07:
        assert curve.more_helps is False
    elif exponent > 0.5:
        assert curve.more_helps is True


@given(st.floats(min_value=0.05, max_value=5.0), st.integers(min_value=3, max_value=6))
@settings(max_examples=5, deadline=None)
def test_a_flat_curve_does_not_help(loss: float, count: int) -> None:
    """Neither does a perfect one, whose loss has no logarithm."""
    sizes = [50 * 2**at for at in range(count)]
    for flat in (loss, 0.0):
        curve = fit_curve(points(sizes, [flat] * count), seed=7)
        assert curve.more_helps is False
        assert curve.text.startswith("More examples would hardly help")


@pytest.mark.parametrize("losses", [[1.0, 1.3, 0.9], [0.9, 1.3, 1.0], [0.5, 0.3, 0.45, 0.25, 0.4, 0.3]])
def test_noise_does_not_tell(losses: list[float]) -> None:
    """Points that scatter more than what they should show."""
    curve = fit_curve(points([50 * 2**at for at in range(len(losses))], losses), seed=7)
    assert curve.more_helps is None
    assert "do not tell" in curve.text


def test_a_fast_fall_helps_and_a_reached_floor_does_not() -> None:
    """Three points are judged by both assumptions; where they disagree, the points do not tell."""
    sizes = [105, 210, 420]
    assert fit_curve(points(sizes, [2.0, 1.0, 0.4]), seed=7).more_helps is True
    assert fit_curve(points(sizes, [0.52, 0.515, 0.512]), seed=7).more_helps is False
    assert fit_curve(points(sizes, [0.60, 0.55, 0.52]), seed=7).more_helps is None


def test_the_interval_covers_the_truth_and_is_the_same_each_time() -> None:
    """Of five noisy curves (1 % scatter), all intervals but one at most hold the true loss at twice the examples."""
    sizes = [50 * 2**at for at in range(6)]
    true, [doubled] = power(sizes, 3.0, 0.3, 0.2), power([2 * sizes[-1]], 3.0, 0.3, 0.2)
    rng = np.random.default_rng(0)
    curves = [fit_curve(points(sizes, [loss * float(np.exp(0.01 * rng.standard_normal())) for loss in true]), seed=7) for _ in range(5)]
    held = [
        curve.doubled_low is not None and curve.doubled_high is not None and curve.doubled_low <= doubled <= curve.doubled_high
        for curve in curves
    ]
    assert sum(held) >= 4
    again = fit_curve(curves[0].points[::-1], seed=7)
    assert again == curves[0]


@pytest.mark.parametrize("sizes", [[], [100], [100, 100]])
def test_one_size_is_no_curve(sizes: list[int]) -> None:
    """The message names the field to set."""
    with pytest.raises(DataError, match=r"at least two sizes.*learning_curve\.shares"):
        fit_curve(points(sizes, [1.0] * len(sizes)) if sizes else [], seed=7)
