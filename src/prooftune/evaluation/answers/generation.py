"""Greedy answers to many prompts, fast and the same every time.

What all prompts begin with (system message, demonstrations) is run once. The rest goes in batches of similar length. A batch's prompts are
run in groups of almost equal length, so that little is computed for padding; then all its answers grow together, because a step with one
row costs almost as much as with many. Padding stands on the left: on the right it would stand between a prompt and its answer. Rows leave
the batch when they end their turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prooftune.errors import DataError
from prooftune.evaluation.answers.shared_prefix import attending_to_prefix, attends_to_all, can_share_prefix
from prooftune.training.encoding import stop_ids
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

BATCH_SIZE = 64
"""Fixed, not found by trying until memory runs out: a batch size that depends on luck would make latency figures incomparable."""
BATCH_TOKENS = 16_384
"""The most tokens of a batch that are kept in memory, prefix aside: batches of long prompts have fewer rows."""
GROUP_TOKENS = 512
"""Prompt tokens to run at once: enough for efficient matrix products, and few enough for groups of almost equal length."""


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
        for batch in _batches(longest_first, [len(prompt) - len(shared) for prompt in prompts], batch_size, max_new_tokens):
            rows = _answer_batch(model, [prompts[at][len(shared) :] for at in batch], prefix, max_new_tokens, stops)
            for at, (tokens, seconds) in zip(batch, rows, strict=True):
                finished = tokens[-1] in stops
                text = tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True)
                answers[at] = Generation(tokens=tuple(tokens), text=text, finished=finished, latency_s=seconds)
            report(Progress(done=len(answers), total=len(prompts), unit="answers"))
    return [answers[at] for at in range(len(prompts))]


def _batches(longest_first: Sequence[int], lengths: Sequence[int], batch_size: int, max_new_tokens: int) -> Iterator[Sequence[int]]:
    """Yield the prompts in batches of at most ``batch_size`` rows and ``BATCH_TOKENS`` tokens, but at least one row."""
    start = 0
    while start < len(longest_first):
        rows = max(1, min(batch_size, BATCH_TOKENS // (lengths[longest_first[start]] + max_new_tokens)))
        yield longest_first[start : start + rows]
        start += rows


def _answer_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: Cache | None, max_new_tokens: int, stops: frozenset[int]
) -> list[tuple[list[int], float]]:
    """Return tokens and seconds of each row; ``prompts`` are without the prefix, the longest first."""
    import torch

    started = time.perf_counter()
    cache, mask, best = _run_prompts(model, prompts, prefix)
    positions = mask.sum(dim=1, keepdim=True) + (prefix.get_seq_length() if prefix else 0)
    extra = {"shared_prefix": prefix} if prefix else {}
    answers: list[list[int]] = [[] for _ in prompts]
    seconds = [0.0 for _ in prompts]
    active = list(range(len(prompts)))
    for left in reversed(range(max_new_tokens)):
        tokens = best.tolist()
        now = time.perf_counter() - started
        for row, token in zip(active, tokens, strict=True):
            answers[row].append(token)
            seconds[row] = now
        going_on = [at for at, token in enumerate(tokens) if token not in stops]
        if not going_on or not left:
            break
        if len(going_on) < len(active):
            active = [active[at] for at in going_on]
            kept = torch.tensor(going_on, device=model.device)
            best, mask, positions = best[kept], mask[kept], positions[kept]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
        best = _next_tokens(model, best[:, None], mask, positions, cache, extra)
        positions = positions + 1
    return list(zip(answers, seconds, strict=True))


def _run_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: Cache | None) -> tuple[Cache, Tensor, Tensor]:
    """Run the prompts, the longest first, in groups; return the cache, the mask ``(batch, longest)`` and the first tokens ``(batch,)``."""
    import torch
    from torch.nn.functional import pad
    from transformers import DynamicCache

    extra = {"shared_prefix": prefix} if prefix else {}
    caches, masks, tokens = [], [], []
    start = 0
    while start < len(prompts):
        rows = max(1, GROUP_TOKENS // len(prompts[start])) if attends_to_all(model) else len(prompts)
        ids, mask = _left_padded(prompts[start : start + rows], model.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + (prefix.get_seq_length() if prefix else 0)
        caches.append(DynamicCache(config=model.config))
        tokens.append(_next_tokens(model, ids, mask, positions, caches[-1], extra))
        masks.append(pad(mask, (len(prompts[0]) - mask.shape[1], 0)))
        start += rows
    return _joined(caches), torch.cat(masks), torch.cat(tokens)


def _next_tokens(model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache, extra: dict[str, Cache]) -> Tensor:
    """Run new tokens ``(rows, new)`` on top of the cache and return each row's most probable next token."""
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra
    )
    best: Tensor = output.logits[:, -1].argmax(dim=-1)
    return best


def _joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Return the rows of all caches in the first one, those of shorter ones padded on the left."""
    import torch
    from torch.nn.functional import pad

    longest = max(cache.get_seq_length() for cache in caches)
    for layers in zip(*(cache.layers for cache in caches), strict=True) if len(caches) > 1 else ():
        for kind in ("keys", "values"):
            parts = [getattr(layer, kind) for layer in layers]
            setattr(layers[0], kind, torch.cat([pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts]))
        for layer in layers[1:]:
            layer.keys = layer.values = None  # a second copy of all layers at once would be twice the memory
    return caches[0]


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
