"""Attention over a prefix that all rows of a batch have in common, kept once instead of once a row.

Few-shot prompts are mostly the same demonstrations. Running them once and copying their keys and values to every row already saves the
forward pass; when answers grow token by token, attending to the *one* copy also saves the memory and the time to read it, because all
rows' queries meet it in a single matrix product. The result is ordinary attention, with one softmax over prefix and own tokens.
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
    return attends_to_all(model) and model.is_backend_compatible()


def attends_to_all(model: PreTrainedModel) -> bool:
    """Return whether every layer of the model keeps keys and values of all earlier tokens: no sliding window, no recurrent state."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


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
    prefix = shared_prefix.layers[module.layer_idx]
    batch, heads, new, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    # Query heads that share a key head stand together: (batch, key heads, queries, width).
    queries = query.reshape(batch, key.shape[1], -1, width)
    attend = _to_one_copy if new == 1 else _to_joined
    mixed = attend(queries * scale, prefix.keys, prefix.values, key, value, attention_mask)
    return mixed.reshape(batch, heads, new, -1).transpose(1, 2).contiguous(), None


def _to_one_copy(queries: Tensor, prefix_keys: Tensor, prefix_values: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend to the one copy of the prefix, with the queries of all rows at once: each row has one new token, so scores are small."""
    import torch

    batch, key_heads, count, width = queries.shape
    all_rows = queries.transpose(0, 1).reshape(key_heads, -1, width)
    to_prefix = (all_rows @ prefix_keys[0].mT).view(key_heads, batch, count, -1).transpose(0, 1)
    scores = torch.cat([to_prefix, queries @ key.mT + mask], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    on_prefix, on_own = weights.split([prefix_keys.shape[2], key.shape[2]], dim=-1)
    from_prefix = on_prefix.transpose(0, 1).reshape(key_heads, -1, on_prefix.shape[-1]) @ prefix_values[0]
    return from_prefix.view(key_heads, batch, count, -1).transpose(0, 1) + on_own @ value


def _to_joined(queries: Tensor, prefix_keys: Tensor, prefix_values: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend to the prefix copied before each row's own keys: with many new tokens the copy is cheap beside scores that are never kept."""
    import torch
    from torch.nn.functional import pad, scaled_dot_product_attention

    batch, _, count, _ = queries.shape
    keys, values = (
        torch.cat([shared.expand(batch, -1, -1, -1), own], dim=2) for shared, own in ((prefix_keys, key), (prefix_values, value))
    )
    whole_mask = pad(mask, (prefix_keys.shape[2], 0)).expand(batch, -1, -1, -1)
    per_head = whole_mask.repeat(1, 1, count // mask.shape[2], 1)
    return scaled_dot_product_attention(queries, keys, values, attn_mask=per_head, scale=1.0)
