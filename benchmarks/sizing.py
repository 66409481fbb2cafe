"""Which GPU a training needs, for how long and for how much: computed, not measured. Prints the tables of docs/how-to/choose-hardware.md.

python benchmarks/sizing.py
python benchmarks/sizing.py --batch-size 1 --max-length 4096 --tokens 50

Memory, in bytes, for a model of L layers, width h, feed-forward width f and key/value width k:

============  =======================================================================================================================
weights       qlora: the layers in NF4, 4 bits a weight, and its constants, one byte for 64 weights and 4 bytes for 256 of those (Dettmers
              et al., 2023, https://arxiv.org/abs/2305.14314, section 3); all else in bf16. lora: bf16. full: fp32, and the copies in
              bf16 that autocast keeps for the backward pass
trained       16 for each trained weight, in fp32: the adapter (full: the gradient alone, 4) with its gradient and AdamW's two moments
activations   what the backward pass needs of each token in a forward pass and each layer: 24 h + 8 f + 4 k, and 30 h + 8 f + 4 k for
              full, counted from PyTorch's saved tensors by tests/contracts/test_sizing.py. qlora keeps 2 h, and all of one layer
working       2 GB: CUDA's context, the matrix that is being dequantised, a chunk of logits, fragments
============  =======================================================================================================================

The tokens of a forward pass follow from ``prooftune.training``: as many of the batch's examples as fit into 16,384, each as long as the
longest. Baselines prompt the base model in bf16 whatever the method, with the keys and values of up to 16,384 tokens.

Hours: FLOP a token (``prooftune.economics.estimate``: 6 N for full, 4 N and the adapter's for lora; qlora runs each layer forward once
more, 2 N) × tokens, at a share of the GPU's peak that is assumed. Training alone: baselines and evaluation come on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from prooftune.economics.estimate import ModelSize, trained_parameters, training_flops
from prooftune.economics.prices import load_prices
from prooftune.evaluation.answers.generation import BATCH_TOKENS
from prooftune.models.loading import Kind
from prooftune.spec import Method
from prooftune.training.batches import plan_schedule
from prooftune.training.sft import DEVICE_TOKENS

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Of one weight."""
WORKING_GB = 2.0
USABLE = 0.95
"""Share of a GPU's memory that is counted on."""
UTILISATION = {"lora": 0.30, "full": 0.30, "qlora": 0.20}
"""Share of the peak that the FLOP counted here are done at. Assumed: what one GPU reaches with transformers at such batch sizes lies
between 0.2 and 0.5; dequantising costs qlora some of it."""
TOKENS_M = 10.0
"""Of the training in the table: 10,000 examples of 500 tokens, twice."""
KINDS: tuple[Kind, ...] = ("qlora", "lora", "full")


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of Llama's kind, by its published config.json."""

    name: str
    like: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def size(self) -> ModelSize:
        """The weights that matter, as Prooftune counts them."""
        attention, keys = self.heads * self.head, self.kv_width
        matrices = [(self.width, attention), (self.width, keys), (self.width, keys), (attention, self.width)]
        matrices += [(self.width, self.inner)] * 2 + [(self.inner, self.width)]
        in_layers = self.layers * sum(rows * columns for rows, columns in matrices)
        embedding = self.vocabulary * self.width
        norms = (2 * self.layers + 1) * self.width
        return ModelSize(
            parameters=in_layers + norms + embedding * (1 if self.tied else 2),
            multiplied=in_layers + embedding,
            in_layers=in_layers,
            layers=self.layers,
            edges=self.layers * sum(rows + columns for rows, columns in matrices),
        )

    @property
    def kv_width(self) -> int:
        """Of keys, and of values."""
        return self.kv_heads * self.head


SHAPES = (
    Shape("1B", "Llama 3.2 1B", 16, 2048, 8192, 32, 8, 64, 128_256, tied=True),
    Shape("3B", "Llama 3.2 3B", 28, 3072, 8192, 24, 8, 128, 128_256, tied=True),
    Shape("8B", "Llama 3.1 8B", 32, 4096, 14_336, 32, 8, 128, 128_256, tied=False),
    Shape("14B", "Qwen2.5 14B", 48, 5120, 13_824, 40, 8, 128, 152_064, tied=False),
    Shape("32B", "Qwen2.5 32B", 64, 5120, 27_648, 40, 8, 128, 152_064, tied=False),
    Shape("70B", "Llama 3.1 70B", 80, 8192, 28_672, 64, 8, 128, 128_256, tied=False),
)
DEMO = Shape("135M", "SmolLM2 135M", 30, 576, 1536, 9, 3, 64, 49_152, tied=True)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, by its maker's data sheet."""

    name: str
    memory_gb: float
    """1 GB = 10⁹ bytes."""
    tflops: float
    """Peak in bf16, dense; 0 = it has no bf16."""
    kind: str = ""
    """In the price list, below ``machine/``."""


GPUS = (
    Gpu("T4", 16, 0),
    Gpu("L4", 24, 121, "l4"),
    Gpu("A10G", 24, 70, "a10"),
    Gpu("A100 40", 40, 312),
    Gpu("A100 80", 80, 312, "a100"),
    Gpu("H100", 80, 989, "h100"),
    Gpu("H200", 141, 989, "h200"),
)
OTHER_PRICES = {"A100 40": (1.48, "Lambda's price as listed by techbytes.app on 2026-05-07; second-hand")}
"""USD an hour of GPUs that the price list does not have."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one GPU, in GB."""

    weights: float
    trained: float
    activations: float

    @property
    def total(self) -> float:
        """With the working space."""
        return self.weights + self.trained + self.activations + WORKING_GB


def pass_tokens(method: Method) -> int:
    """Return the tokens of one forward pass when every example is as long as it may be."""
    plan = plan_schedule(
        [method.max_length] * method.batch_size,
        epochs=1,
        batch_size=method.batch_size,
        checks_per_epoch=1,
        seed=0,
        device_tokens=DEVICE_TOKENS["cuda"],
    )
    return plan.per_device * method.max_length


def activation_bytes(shape: Shape, kind: Kind) -> float:
    """Return what the backward pass needs of one token, all layers together, the layer aside that checkpointing computes again."""
    if kind == "qlora":
        return 2.0 * shape.width * shape.layers
    return layer_bytes(shape, kind) * shape.layers


def layer_bytes(shape: Shape, kind: Kind) -> float:
    """Return what the backward pass through one layer needs of one token."""
    return (30.0 if kind == "full" else 24.0) * shape.width + 8.0 * shape.inner + 4.0 * shape.kv_width


def training_memory(shape: Shape, method: Method) -> Memory:
    """Return the memory of a training on one GPU."""
    size, tokens, kind = shape.size, pass_tokens(method), method.kind
    outside = size.parameters - size.in_layers
    weights = {"qlora": NF4_BYTES * size.in_layers + 2 * outside, "lora": 2 * size.parameters, "full": (4 + 2) * size.parameters}[kind]
    trained = (12 if kind == "full" else 16) * trained_parameters(size, method)  # full: the weights themselves are counted above
    activations = activation_bytes(shape, kind) + (layer_bytes(shape, kind) if kind == "qlora" else 0)
    return Memory(weights / 1e9, trained / 1e9, tokens * activations / 1e9)


def baseline_memory(shape: Shape) -> float:
    """Return the GB that prompting the base model takes."""
    cache = BATCH_TOKENS * shape.layers * 2 * shape.kv_width * 2
    return (2 * shape.size.parameters + cache) / 1e9 + WORKING_GB


def hours(shape: Shape, method: Method, gpu: Gpu, tokens_m: float) -> float:
    """Return the hours of a training."""
    again = 2.0 * shape.size.multiplied if method.kind == "qlora" else 0.0
    flops = (training_flops(shape.size, method) + again) * tokens_m * 1e6
    return flops / (gpu.tflops * 1e12 * UTILISATION[method.kind]) / 3600


def usd_per_hour(gpu: Gpu) -> float:
    """Return what the GPU costs on demand."""
    if gpu.name in OTHER_PRICES:
        return OTHER_PRICES[gpu.name][0]
    return load_prices(None, date.today()).price[f"machine/{gpu.kind}"]["hour"].amount


def fits(needed_gb: float, gpu: Gpu) -> bool:
    """Return whether a GPU can hold it."""
    return gpu.tflops > 0 and needed_gb <= USABLE * gpu.memory_gb


def memory_table(base: Method) -> Iterator[str]:
    """Yield the lines of the table of memory."""
    yield "| model | method | weights | trained | activations | training | with `batch_size: 1` | baselines |"
    yield "|---|---|---|---|---|---|---|---|"
    for shape in SHAPES:
        for kind in KINDS:
            method = base.model_copy(update={"kind": kind})
            need, least = training_memory(shape, method), training_memory(shape, method.model_copy(update={"batch_size": 1}))
            parts = " | ".join(f"{part:.1f}" for part in (need.weights, need.trained, need.activations))
            yield f"| {shape.name} | {kind} | {parts} | **{need.total:.0f}** | {least.total:.0f} | {baseline_memory(shape):.0f} |"


def hours_table(base: Method, tokens_m: float) -> Iterator[str]:
    """Yield the lines of the table of hours and dollars."""
    yield f"| model | method | {' | '.join(gpu.name for gpu in GPUS)} |"
    yield "|---|---|" + "---|" * len(GPUS)
    for shape in SHAPES:
        for kind in KINDS:
            method = base.model_copy(update={"kind": kind})
            yield f"| {shape.name} | {kind} | {' | '.join(cell(shape, method, gpu, tokens_m) for gpu in GPUS)} |"


def cell(shape: Shape, method: Method, gpu: Gpu, tokens_m: float) -> str:
    """Return what a training takes on a GPU; marked where it fits only in part, and a dash where it does not."""
    least = method.model_copy(update={"batch_size": 1})
    if not fits(training_memory(shape, least).total, gpu):
        return "–"
    marks = "" if fits(training_memory(shape, method).total, gpu) else "¹"
    marks += "" if fits(baseline_memory(shape), gpu) else "²"
    took = hours(shape, method, gpu, tokens_m)
    told = f"{took:.1f} h" if took >= 1 else f"{60 * took:.0f} min"
    return f"{told}, {took * usd_per_hour(gpu):.2f} USD{marks}"


def price_lines() -> Iterator[str]:
    """Yield where the prices are from."""
    prices = load_prices(None, date.today())
    for gpu in GPUS:
        if gpu.name in OTHER_PRICES:
            usd, source = OTHER_PRICES[gpu.name]
            yield f"- {gpu.name}: {usd:.2f} USD an hour. {source}."
        elif gpu.kind:
            price = prices.price[f"machine/{gpu.kind}"]["hour"]
            source = prices.source[price.source]
            yield f"- {gpu.name}: {price.amount:.2f} USD an hour. {source.name}, {source.checked}."


def page(base: Method, tokens_m: float) -> str:
    """Return all that is printed."""
    tokens = pass_tokens(base)
    lines = [
        f"GB (10⁹ bytes) of one GPU; examples of up to {base.max_length:,} tokens, `batch_size: {base.batch_size}`, which is {tokens:,} "
        f"tokens in a forward pass; adapters of rank {base.r}:",
        "",
        *memory_table(base),
        "",
        f"Hours and USD of training on {tokens_m:g} million tokens, computed at {UTILISATION['lora']:.0%} of the GPU's peak "
        f"({UTILISATION['qlora']:.0%} for qlora):",
        "",
        *hours_table(base, tokens_m),
        "",
        "– does not fit, or has no bf16 (T4) · ¹ fits with `batch_size: 1` alone · ² the training fits, the baselines do not",
        "",
        *price_lines(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    default = Method()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=default.batch_size, help="backend.method.batch_size")
    parser.add_argument("--max-length", type=int, default=default.max_length, help="backend.method.max_length, in tokens")
    parser.add_argument("--rank", type=int, default=default.r, help="backend.method.r")
    parser.add_argument("--tokens", type=float, default=TOKENS_M, help="tokens of the training, all epochs together, in millions")
    asked = parser.parse_args()
    print(page(Method(batch_size=asked.batch_size, max_length=asked.max_length, r=asked.rank), asked.tokens), end="")


if __name__ == "__main__":
    main()
