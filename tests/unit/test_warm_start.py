"""Training that goes on from the weights of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples
from safetensors.torch import load_file

from prooftune.errors import ModelUnavailable
from prooftune.spec import Method, Task
from prooftune.training.sft import train

KINDS = ("lora", "full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and two splits."""
    folder = make_model(tmp_path_factory.mktemp("warm") / "model").parent
    write_examples(folder / "train.jsonl", 24, seed=1)
    write_examples(folder / "validation.jsonl", 8, seed=2)
    return folder


def method(kind: Any, learning_rate: float = 5e-3) -> Method:
    """Return a short training."""
    return Method(kind=kind, r=4, alpha=8, epochs=3, learning_rate=learning_rate, batch_size=8, checks_per_epoch=1, early_stopping=None)


def run(folder: Path, out: Path, how: Method, start: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Train; return the figures and the folder with the weights."""
    out.mkdir()
    figures = train(folder / "train.jsonl", folder / "validation.jsonl", folder / "model", Task(), how, out, start=start)
    return figures, out / ("model" if how.kind == "full" else "adapter")


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_where_the_earlier_training_ended(folder: Path, tmp_path: Path, kind: str) -> None:
    """With a step size of next to nothing the weights stay those that it began with, shape and all, and so does the loss."""
    cold, before = run(folder, tmp_path / "cold", method(kind))
    still, after = run(folder, tmp_path / "still", method(kind, learning_rate=1e-9), start=before)
    old, new = (load_file(next(path.glob("*.safetensors"))) for path in (before, after))
    assert old.keys() == new.keys()
    assert max(float((old[name] - new[name]).abs().max()) for name in old) < 1e-6
    assert still["validation_loss"] == pytest.approx(cold["validation_loss"], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_on(folder: Path, tmp_path: Path, kind: str) -> None:
    """Two trainings of three passes, one after the other, end with a lower loss than the first of them."""
    first, before = run(folder, tmp_path / "cold", method(kind))
    second, _ = run(folder, tmp_path / "warm", method(kind), start=before)
    assert second["validation_loss"] < first["validation_loss"]
    assert second["trainable_parameters"] == first["trainable_parameters"]


def test_a_folder_without_an_adapter_is_no_start(folder: Path, tmp_path: Path) -> None:
    """Nothing else is loaded in its place."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailable, match=r"no adapter_model\.safetensors"):
        run(folder, tmp_path / "out", method("lora"), start=tmp_path / "empty")
