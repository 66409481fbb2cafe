"""On a CUDA GPU: bf16, NF4 and TRL's fused head give a training that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples

from prooftune.models.loading import load_base, load_candidate
from prooftune.spec import Method, Task
from prooftune.training.sft import train


def cuda_is_there() -> bool:
    """Return whether PyTorch sees a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_there(), reason="PyTorch sees no CUDA GPU")]


def run(folder: Path, kind: Any) -> dict[str, Any]:
    """Train a small model on the GPU."""
    folder.mkdir(exist_ok=True)
    make_model(folder / "model", hidden=64)
    training, validation = write_examples(folder / "train.jsonl", 200, seed=1), write_examples(folder / "validation.jsonl", 40, seed=2)
    (folder / "out").mkdir()
    method = Method(kind=kind, epochs=3, learning_rate=5e-3)
    return train(training, validation, folder / "model", Task(), method, folder / "out")


def test_qlora_loads_nf4_and_learns(tmp_path: Path) -> None:
    """Frozen weights in 4 bits with bf16 compute; adapters in fp32."""
    import torch

    figures = run(tmp_path, "qlora")
    base = load_base(tmp_path / "model", kind="qlora")
    assert base.is_loaded_in_4bit
    assert base.config.quantization_config.bnb_4bit_compute_dtype == torch.bfloat16
    assert figures["device"] == "cuda"
    assert figures["validation_loss"] < 5.0  # ln(259) = 5.56 is chance


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_bf16_training_learns_and_loads(tmp_path: Path, kind: str) -> None:
    """LoRA on bf16 weights; all weights in fp32 under bf16 autocast."""
    figures = run(tmp_path, kind)
    assert figures["validation_loss"] < 5.0
    candidate = load_candidate(tmp_path / "model", tmp_path / "out" / ("model" if kind == "full" else "adapter"))
    assert candidate.device.type == "cuda"


def test_the_validation_loss_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's head on CUDA and ours on CPU measure the same thing."""
    from prooftune.training import sft

    on_gpu = run(tmp_path / "gpu", "full")
    monkeypatch.setattr(sft, "pick_device", lambda: "cpu")
    on_cpu = run(tmp_path / "cpu", "full")
    assert on_gpu["validation_loss"] == pytest.approx(on_cpu["validation_loss"], rel=0.05)
