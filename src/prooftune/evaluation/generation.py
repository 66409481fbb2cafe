"""Greedy answers to many prompts, fast and the same every time.

What all prompts begin with (system message, demonstrations) is run once. The rest goes in batches of similar length, padded on the left:
right padding would put padding between a prompt and its answer. Rows leave the batch when they end their turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prooftune.errors import DataError
from prooftune.evaluation.shared_prefix import attending_to_prefix, can_share_prefix
from prooftune.training.encoding import stop_ids
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

BATCH_SIZE = 32
"""Fixed, not found by trying until memory runs out: a batch size that depends on luck would make latency figures incomparable."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer."""

    tokens: tuple[int, ...]
    """As generated, the end-of-turn token included."""
    text: str
    finished: bool
    """True when the model ended its turn; False when it was cut at the token limit."""
    latency_s: float
    """Seconds from the start of the row's batch to the row's last token; the shared prefix is not in it."""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = BATCH_SIZE,
    share_prefix: bool = True,
    report: Report = no_report,
) -> list[Generation]:
    """Return the greedy answer to each prompt, in the order of the prompts.

    ``share_prefix=False`` runs every prompt whole; the answers are the same.

    Raises:
        DataError: a prompt is empty, or too long for the model's context together with ``max_new_tokens``.
    """
    import torch

    _check_lengths(model, prompts, max_new_tokens)
    stops = _all_stop_ids(model, tokenizer)
    shared = _common_prefix(prompts) if share_prefix and can_share_prefix(model) else []
    longest_first = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), at))
    answers: dict[int, Generation] = {}
    with torch.inference_mode():
        prefix = _run_prefix(model, shared) if shared else None
    with torch.inference_mode(), attending_to_prefix(model) if shared else nullcontext():
        for start in range(0, len(prompts), batch_size):
            batch = longest_first[start : start + batch_size]
            rows = _answer_batch(model, [prompts[at][len(shared) :] for at in batch], prefix, max_new_tokens, stops)
            for at, (tokens, seconds) in zip(batch, rows, strict=True):
                finished = tokens[-1] in stops
                text = tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True)
                answers[at] = Generation(tokens=tuple(tokens), text=text, finished=finished, latency_s=seconds)
            report(Progress(done=len(answers), total=len(prompts), unit="answers"))
    return [answers[at] for at in range(len(prompts))]


def _answer_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: Cache | None, max_new_tokens: int, stops: frozenset[int]
) -> list[tuple[list[int], float]]:
    """Return tokens and seconds of each row; ``prompts`` are without the prefix."""
    import torch
    from transformers import DynamicCache

    started = time.perf_counter()
    ids, mask = _left_padded(prompts, model.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + (prefix.get_seq_length() if prefix else 0)
    cache = DynamicCache(config=model.config)
    extra = {"shared_prefix": prefix} if prefix else {}
    answers: list[list[int]] = [[] for _ in prompts]
    seconds = [0.0 for _ in prompts]
    active = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra
        )
        best = output.logits[:, -1].argmax(dim=-1)
        tokens = best.tolist()
        now = time.perf_counter() - started
        for row, token in zip(active, tokens, strict=True):
            answers[row].append(token)
            seconds[row] = now
        going_on = [at for at, token in enumerate(tokens) if token not in stops]
        if not going_on:
            break
        if len(going_on) < len(active):
            active = [active[at] for at in going_on]
            kept = torch.tensor(going_on, device=model.device)
            best, mask, positions = best[kept], mask[kept], positions[kept]
            cache.batch_select_indices(kept)
        ids, positions = best[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
    return list(zip(answers, seconds, strict=True))


def _left_padded(prompts: Sequence[Sequence[int]], device: object) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, each ``(batch, longest)``; what id stands for padding does not matter, nothing attends to it."""
    import torch

    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _run_prefix(model: PreTrainedModel, prefix: Sequence[int]) -> Cache:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([list(prefix)], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return what all prompts begin with, less so much that each keeps a token of its own to start from."""
    if not prompts:
        return []
    shortest, first = min(len(prompt) for prompt in prompts), prompts[0]
    differs = (at for at in range(shortest - 1) if any(prompt[at] != first[at] for prompt in prompts))
    return list(first[: next(differs, shortest - 1)])


def _all_stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    more = [configured] if isinstance(configured, int) else configured or []
    return frozenset([*stop_ids(tokenizer), *more])


def _check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if any(not prompt for prompt in prompts):
        raise DataError("a prompt has no tokens; a prompt holds at least the chat template's tokens")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(prompt) for prompt in prompts), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise DataError(
            f"the longest prompt has {longest} tokens, and {max_new_tokens} more are to be generated; the model's context is {context}. "
            "Shorten it, lower baseline.shots or task.max_answer_tokens, or use a model with a longer context"
        )
