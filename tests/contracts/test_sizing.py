"""The sizing table is what its command prints, and its formula is what PyTorch really keeps."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any

import pytest
from tests_support import ROOT

from prooftune.economics.estimate import DEMO_SIZE
from prooftune.spec import Method

PAGE = ROOT / "docs" / "how-to" / "choose-hardware.md"
BEGIN, END = "<!-- printed by python benchmarks/sizing.py -->\n", "<!-- end -->"
SEQUENCE = 64


@pytest.fixture(scope="module")
def sizing() -> Any:
    """The benchmark as a module."""
    specification = importlib.util.spec_from_file_location("benchmarks_sizing", ROOT / "benchmarks" / "sizing.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look there for the annotations' names
    specification.loader.exec_module(module)
    return module


def test_the_page_shows_what_the_command_prints(sizing: Any) -> None:
    """The tables of the documentation are the command's output; copy it between the marks when it changes."""
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == sizing.page(Method(), sizing.TOKENS_M)


def test_the_command_prints_the_page(sizing: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Options change the figures; without any, it prints the tables of the documentation."""
    monkeypatch.setattr(sys, "argv", ["sizing.py"])
    sizing.main()
    assert capsys.readouterr().out == sizing.page(Method(), sizing.TOKENS_M)
    monkeypatch.setattr(sys, "argv", ["sizing.py", "--max-length", "4096", "--batch-size", "1", "--rank", "8", "--tokens", "5"])
    sizing.main()
    assert "4,096 tokens in a forward pass; adapters of rank 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("1B", 1_235_814_400),
        ("3B", 3_212_749_824),
        ("8B", 8_030_261_248),
        ("14B", 14_770_033_664),
        ("32B", 32_763_876_352),
        ("70B", 70_553_706_496),
    ],
)
def test_models_have_as_many_weights_as_published(sizing: Any, name: str, published: int) -> None:
    """A mistyped width would show here; biases (Qwen) are less than 0.01 %."""
    found = next(shape for shape in sizing.SHAPES if shape.name == name).size.parameters
    assert found == pytest.approx(published, rel=1e-4)


def test_the_demo_model_is_counted_as_its_files_are(sizing: Any) -> None:
    """From a configuration follows what ``read_model_size`` reads from the demo model's tensors."""
    assert sizing.DEMO.size == DEMO_SIZE


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(("width", "inner", "kv_heads"), [(128, 512, 2), (256, 512, 2), (128, 1024, 2), (128, 512, 4)])
def test_activations_are_what_pytorch_keeps(sizing: Any, kind: str, width: int, inner: int, kv_heads: int) -> None:
    """Bytes of the tensors saved for the backward pass, by token and layer, are the formula's, within 3 %."""
    shape = sizing.Shape("small", "", 1, width, inner, 4, kv_heads, width // 4, 300, tied=True)
    assert _kept_a_layer(kind, shape) == pytest.approx(sizing.layer_bytes(shape, kind), rel=0.03)


def test_checkpointing_keeps_a_layers_input_alone(sizing: Any) -> None:
    """With gradient checkpointing two bytes for each of a token's activations between layers are kept."""
    shape = sizing.Shape("small", "", 1, 128, 512, 4, 2, 32, 300, tied=True)
    assert _kept_a_layer("lora", shape, checkpointing=True) == sizing.activation_bytes(shape, "qlora")


def test_more_in_a_pass_takes_more_and_quantising_takes_less(sizing: Any) -> None:
    """Of one model, qlora needs the least and full the most, and a batch of 1 less than one of 8."""
    for shape in sizing.SHAPES:
        needs = [sizing.training_memory(shape, Method(kind=kind)).total for kind in sizing.KINDS]
        assert needs == sorted(needs)
        assert all(
            sizing.training_memory(shape, Method(kind=kind, batch_size=1)).total < need
            for kind, need in zip(sizing.KINDS, needs, strict=True)
        )


def test_nf4_takes_as_many_bits_as_its_paper_says(sizing: Any) -> None:
    """Double quantisation brings the constants from 0.5 to 0.127 bits a weight (Dettmers et al., 2023, section 3)."""
    assert math.isclose(sizing.NF4_BYTES * 8, 4.127, abs_tol=1e-3)


def test_every_gpu_that_can_train_has_a_price(sizing: Any) -> None:
    """Each has one of the price list, or one with its source."""
    assert all(sizing.usd_per_hour(gpu) > 0 for gpu in sizing.GPUS if gpu.tflops)


def _kept_a_layer(kind: str, shape: Any, *, checkpointing: bool = False) -> float:
    """Bytes kept for the backward pass by one token in one more layer; differences cancel what does not grow."""
    kept = {(layers, batch): _kept(kind, shape, layers, batch, checkpointing) for layers in (1, 2) for batch in (2, 4)}
    return ((kept[2, 4] - kept[2, 2]) - (kept[1, 4] - kept[1, 2])) / (2 * SEQUENCE)


def _kept(kind: str, shape: Any, layers: int, batch: int, checkpointing: bool) -> int:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        attn_implementation="sdpa",
    )
    model: Any = LlamaForCausalLM(config).to(torch.float32 if kind == "full" else torch.bfloat16)
    if kind != "full":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    decoder = (model if kind == "full" else model.get_base_model()).train().model
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    alive = []  # or one storage's address would be given to the next

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    tokens = torch.randint(0, shape.vocabulary, (batch, SEQUENCE))
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    return sum(sizes.values())
