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
    """Return whether the model lets its attention be exchanged, every layer attends to all earlier tokens, and by a plain softmax."""
    return attends_to_all(model) and has_plain_softmax(model) and model.is_backend_compatible()


def has_plain_softmax(model: PreTrainedModel) -> bool:
    """Return whether attention's scores are neither capped (Gemma 2) nor share their softmax with learnt sinks (gpt-oss)."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        return False
    return not any(name.rpartition(".")[2] == "sinks" for name, _ in model.named_parameters())


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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend to the shared prefix and to the row's own tokens.

    ``query`` is ``(batch, heads, new, width)``; ``key`` and ``value`` are ``(batch, key heads, own, width)``, the prefix's
    ``(1, key heads, prefix, width)``; ``attention_mask`` is additive, ``(batch, 1, new, own)``. Returns ``(batch, new, heads, width)``.

    Raises:
        NotImplementedError: scores are to be capped or to share their softmax with sinks; ``can_share_prefix`` keeps such models away.
    """
    if softcap is not None or s_aux is not None:
        raise NotImplementedError(f"{type(module).__name__} caps its attention or adds sinks to it; generate with share_prefix=False")
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
