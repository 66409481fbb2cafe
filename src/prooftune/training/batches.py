"""In which order examples are trained on, and how a global batch is cut into what fits the device. Pure arithmetic, no torch."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything about steps that follows from the data's size and the method."""

    order: list[int]
    """Example indices in the order they are trained on, over all epochs; each optimizer step takes the next ``batch_size`` of them."""
    steps: int
    """Optimizer steps."""
    check_every: int
    """Steps between two checks of the validation loss."""
    per_device: int
    """Examples in one forward pass; a divisor of the global batch size."""
    accumulation: int
    """Forward passes per optimizer step."""


def plan_schedule(
    lengths: Sequence[int], *, epochs: float, batch_size: int, checks_per_epoch: int, seed: int, device_tokens: int
) -> Schedule:
    """Shuffle anew for every epoch, then sort each global batch by length, so that one forward pass holds examples of like length.

    The gradient of a global batch does not depend on the order inside it: less padding, same mathematics.

    Args:
        lengths: tokens per training example.
        epochs: passes over the examples; a fraction stops inside an epoch.
        batch_size: global batch size, in examples.
        checks_per_epoch: validation checks per pass.
        seed: of the shuffles.
        device_tokens: tokens, padding included, that one forward pass should not exceed.
    """
    rng = random.Random(seed)  # noqa: S311 - shuffling is not cryptography
    wanted = max(1, round(len(lengths) * epochs))
    stream: list[int] = []
    while len(stream) < wanted:
        epoch = list(range(len(lengths)))
        rng.shuffle(epoch)
        stream += epoch
    batches = [stream[at : min(at + batch_size, wanted)] for at in range(0, wanted, batch_size)]
    longest = max(lengths)
    fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0 and n * longest <= device_tokens]
    per_device = max(fitting, default=1)
    return Schedule(
        order=[index for batch in batches for index in sorted(batch, key=lambda i: (-lengths[i], i))],
        steps=len(batches),
        check_every=min(len(batches), math.ceil(len(lengths) / batch_size / checks_per_epoch)),  # at least one check: it picks the weights
        per_device=per_device,
        accumulation=batch_size // per_device,
    )
