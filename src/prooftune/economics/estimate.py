"""What a local run would take, from arithmetic and half a second of measuring.

One token through the weights costs 2 FLOP for each weight that is multiplied (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361,
section 2.1), the unembedding included. With ``N`` such weights:

============================  ==================================================================================================
work                          FLOP a token
============================  ==================================================================================================
read a prompt, score          2 N
train adapters                2 N forward + 2 N for the gradients of activations + 6 for each adapter weight; the frozen weights get
                              no gradient, and layers below the lowest adapter no backward pass
train all weights             6 N
============================  ==================================================================================================

A machine is faster at one large matrix product than at a model's many small ones: each kind of work reaches the share of the measured
speed that ``EFFICIENCY`` says. Attention's own products are left out; they are small below a few thousand tokens.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prooftune.economics.lengths import Lengths
from prooftune.spec import Method, RunSpec
from prooftune.types import SplitName

EFFICIENCY = {"train": 0.33, "read": 0.35, "write": 0.15}
"""Share of the measured matrix speed. Calibrated on SmolLM2-135M, fp32, 2 cores at 94 GFLOP/s each: training by LoRA at 96-116 tokens/s."""
MEASURE_S = 0.5
PASSAGE_TOKENS = 160
"""Of a passage of 120 words."""
SUITE_TOKENS = 8_000
"""Of the general suite, with the choices' padding."""
START_UP_S = {"model": 3.0, "train": 12.0, "baselines": 6.0, "evaluate": 6.0, "report": 4.0, "tokens": 4.0}
"""Importing libraries, loading weights and tokenizers, drawing plots."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What of a model's weights costs time."""

    parameters: int
    multiplied: int
    """Weights that each token is multiplied with: matrices of the layers and the unembedding."""
    in_layers: int
    """Those of them that are in the layers."""
    layers: int
    edges: int
    """Inputs plus outputs, summed over the layers' matrices: an adapter of rank r has r weights for each."""


DEMO_SIZE = ModelSize(parameters=134_515_008, multiplied=134_479_872, in_layers=106_168_320, layers=30, edges=305_280)
"""SmolLM2-135M, for a plan made before the demo model was converted."""


def read_model_size(folder: Path) -> ModelSize:
    """Return the size of the model in a folder, from the headers of its safetensors files; no weight is read."""
    shapes = dict(shape for path in sorted(folder.glob("*.safetensors")) for shape in _shapes(path))
    matrices = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
    in_layers = {name: shape for name, shape in matrices.items() if ".layers." in name or ".h." in name}
    # An embedding is looked up, not multiplied; where input and output share one, it is multiplied once, as the unembedding.
    unembedding = max((math.prod(shape) for name, shape in matrices.items() if name not in in_layers), default=0)
    numbers = {part for name in in_layers for part in name.split(".") if part.isdecimal()}
    return ModelSize(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        multiplied=unembedding + sum(math.prod(shape) for shape in in_layers.values()),
        in_layers=sum(math.prod(shape) for shape in in_layers.values()),
        layers=max(len(numbers), 1),
        edges=sum(sum(shape[-2:]) for shape in in_layers.values()),
    )


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a safetensors file: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield name, tuple(tensor["shape"])


def trained_parameters(size: ModelSize, method: Method) -> int:
    """Return how many weights training changes."""
    if method.kind == "full":
        return size.parameters
    return method.r * size.edges * _adapted(size, method) // size.layers


def training_flops(size: ModelSize, method: Method) -> float:
    """Return the FLOP of one training token."""
    if method.kind == "full":
        return 6.0 * size.multiplied
    reached = size.multiplied - size.in_layers * (size.layers - _adapted(size, method)) / size.layers
    return 2.0 * size.multiplied + 2.0 * reached + 6.0 * trained_parameters(size, method)


def _adapted(size: ModelSize, method: Method) -> int:
    return min(method.layers or size.layers, size.layers)


def measure_gflops(seconds: float = MEASURE_S) -> float:
    """Return the speed at which this machine's cores together would multiply fp32 matrices, in GFLOP/s.

    One core is measured in turns of less than a millisecond and the fastest counts: what else the machine is doing at this moment says
    little about the next ten minutes.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    size = 256
    left = np.full((size, size), 0.5, dtype=np.float32)
    product, fastest = np.empty_like(left), math.inf
    with threadpool_limits(limits=1):
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end or math.isinf(fastest):
            np.matmul(left, left, out=product)
            fastest = min(fastest, time.perf_counter() - started)
    return cores() * 2.0 * size**3 / fastest / 1e9


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def estimate_seconds(spec: RunSpec, size: ModelSize, lengths: Mapping[SplitName, Lengths], gflops: float) -> dict[str, float]:
    """Return the seconds that each stage with a model in it would take, at the measured speed of the machine.

    The stage ``train`` is counted to its last step; early stopping may end it sooner.
    """
    method, holdout = spec.backend.method, lengths["holdout"]
    limit = answer_limit(spec, lengths["train"])
    read, write = (gflops * 1e9 * EFFICIENCY[kind] / (2.0 * size.multiplied) for kind in ("read", "write"))  # tokens a second

    def answering(generated: float, prefix: float = 0.0) -> float:
        prompts = holdout.prompts - holdout.shared * max(holdout.examples - 1, 0)
        return (prompts + prefix) / read + generated / write

    train, validation = lengths["train"], lengths["validation"]
    mean = train.total / max(train.examples, 1)
    demonstrations = spec.baseline.shots * mean
    writing = holdout.targets
    # An untuned model seldom stops by itself where it was shown no example of when to.
    rungs = {
        "zero_shot": answering(holdout.examples * limit),
        "few_shot": answering(writing, demonstrations) + _choosing_shots(spec, validation, mean, read, write),
        "retrieved": answering(writing, holdout.examples * demonstrations)
        + _choosing_shots(spec, validation, mean, read, write, each=True),
        "optimised": spec.baseline.optimise.calls * ((mean + demonstrations) / read + limit / write),
        "rag": answering(holdout.examples * limit, holdout.examples * spec.baseline.passages * PASSAGE_TOKENS),
    }
    training = training_flops(size, method) * train.total * method.epochs / (gflops * 1e9 * EFFICIENCY["train"])
    checks = validation.total * (method.checks_per_epoch * method.epochs) / read
    shares = spec.learning_curve.shares
    seconds = {
        "model": START_UP_S["model"],
        "tokens": START_UP_S["tokens"],
        "train": START_UP_S["train"] + training + checks,
        "evaluate": START_UP_S["evaluate"] + answering(writing),
        "report": START_UP_S["report"],
    }
    if all(rung in rungs for rung in spec.baseline.ladder):  # how fast a larger model answers is not known here
        seconds["baselines"] = START_UP_S["baselines"] + sum(rungs[rung] for rung in spec.baseline.ladder)
    if spec.general.suite != "none" and not spec.general.lm_eval:
        seconds["forgetting"] = START_UP_S["evaluate"] + 2 * SUITE_TOKENS / read
    if shares:
        seconds["learn"] = sum(START_UP_S["train"] + share * training + checks for share in shares)
    return seconds


def _choosing_shots(spec: RunSpec, validation: Lengths, mean: float, read: float, write: float, *, each: bool = False) -> float:
    """Return the seconds of answering validation questions once for each number of demonstrations; ``each`` question has its own."""
    tried = [1 << power for power in range(spec.baseline.shots.bit_length())] if spec.baseline.choose_on else []
    share = min(spec.baseline.choose_on, validation.examples) / max(validation.examples, 1)
    asked = min(spec.baseline.choose_on, validation.examples) if each else 1
    return sum(shots * mean * asked / read + share * (validation.prompts / read + validation.targets / write) for shots in tried)


def answer_limit(spec: RunSpec, train: Lengths) -> int:
    """Return the most tokens that an answer may have."""
    return spec.task.max_answer_tokens or math.ceil(1.5 * train.longest_target)


def training_steps(method: Method, examples: int) -> int:
    """Return the optimizer steps of a training that is not stopped early."""
    return math.ceil(max(1, round(examples * method.epochs)) / method.batch_size) if examples else 0
