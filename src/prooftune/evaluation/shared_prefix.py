"""Attention over a prefix that all rows of a batch have in common, kept once instead of once a row.

Few-shot prompts are mostly the same demonstrations. Running them once and copying their keys and values to every row already saves the
forward pass; attending to the *one* copy also saves the memory and the time to read it, because all rows' queries meet it in a single
matrix product. The result is ordinary attention, with one softmax over prefix and own tokens.
Idea: Juravsky et al. (2024), Hydragen, https://arxiv.org/abs/2402.05099.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

ATTENTION = "prooftune_shared_prefix"


def can_share_prefix(model: PreTrainedModel) -> bool:
    """Return whether the model lets its attention be exchanged and every layer of it attends to all earlier tokens."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    return bool(layers) and model.is_backend_compatible() and all(type(layer) is DynamicLayer for layer in layers)


@contextmanager
def attending_to_prefix(model: PreTrainedModel) -> Iterator[None]:
    """Exchange the model's attention; each ``forward`` inside must be given ``shared_prefix``, a cache of one row."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    shared_prefix: Cache,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend to the shared prefix and to the row's own tokens.

    ``query`` is ``(batch, heads, new, width)``; ``key`` and ``value`` are ``(batch, key heads, own, width)``, the prefix's
    ``(1, key heads, prefix, width)``; ``attention_mask`` is additive, ``(batch, 1, new, own)``. Returns ``(batch, new, heads, width)``.
    """
    import torch

    prefix = shared_prefix.layers[module.layer_idx]
    batch, heads, new, width = query.shape
    key_heads, own = key.shape[1], key.shape[2]
    # Query heads that share a key head stand together: (batch, key heads, queries, width).
    queries = (query * (width**-0.5 if scaling is None else scaling)).reshape(batch, key_heads, heads // key_heads * new, -1)
    all_rows = queries.transpose(0, 1).reshape(key_heads, -1, queries.shape[-1])
    to_prefix = (all_rows @ prefix.keys[0].mT).view(key_heads, batch, queries.shape[2], -1).transpose(0, 1)
    to_own = (queries @ key.mT).view(batch, key_heads, -1, new, own) + attention_mask[:, :, None]
    scores = torch.cat([to_prefix, to_own.flatten(2, 3)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    on_prefix, on_own = weights.split([scores.shape[-1] - own, own], dim=-1)
    from_prefix = on_prefix.transpose(0, 1).reshape(key_heads, -1, on_prefix.shape[-1]) @ prefix.values[0]
    mixed = from_prefix.view(key_heads, batch, queries.shape[2], -1).transpose(0, 1) + on_own @ value
    return mixed.reshape(batch, heads, new, -1).transpose(1, 2).contiguous(), None
