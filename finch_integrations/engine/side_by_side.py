"""Feeding a token to each of several caches of different lengths in one forward pass.

All that a model does to a token by itself is done for all of them at once, so its weights are read
once. Only attention goes cache by cache: nothing is padded, and layers with a sliding window see
what they see otherwise. A token that is alone goes the same way, so that it is computed the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from finch_integrations.engine.cache import KVCache, cache_length

_NAME = "finch_side_by_side"
# What is computed here is what this one computes for one query; of others that is not certain.
_INNER = "sdpa"

_caches: ContextVar[Sequence[KVCache]] = ContextVar("finch_caches")


def can_feed_side_by_side(model: Any) -> bool:
    """Whether the model's attention function is one that can go cache by cache."""
    return bool(model.config._attn_implementation == _INNER)


@contextmanager
def feed_side_by_side(model: Any, caches: Sequence[KVCache]) -> Iterator[KVCache]:
    """Make each text of a batch of one token each attend to a cache of its own, which grows.

    The caller makes sure that no other thread runs the model at the same time.

    Args:
        model: For which `can_feed_side_by_side` is true.
        caches: Of one text each; B of them.

    Yields:
        What to give the model as its cache.
    """
    if _NAME not in AttentionInterface().valid_keys():
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, _no_mask)
    token = _caches.set(caches)
    try:
        model.set_attn_implementation(_NAME)
        yield _Lengths(max(map(cache_length, caches)))
    finally:
        _caches.reset(token)
        model.set_attn_implementation(_INNER)


class _Lengths(DynamicCache):  # type: ignore[misc]  # transformers' annotations are not usable
    """What a model asks of its cache besides keys and values, which it hands through."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._length

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return keys, values


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    """Attend; query [B, H, 1, D], key and value [B, G, 1, D] -> [B, 1, H, D].

    The queries that share keys go in as rows of one head: on CPUs a query by itself takes seven
    times as long in bfloat16, because the kernel goes through the keys again for each head.
    """
    batch, heads, _, size = query.shape
    groups = key.shape[1]
    rows = query.reshape(batch, groups, heads // groups, size)
    window = options.get("sliding_window")
    outputs = []
    for number, cache in enumerate(_caches.get()):
        one = slice(number, number + 1)
        keys, values = cache.update(key[one], value[one], module.layer_idx)  # [1, G, N, D]
        if window is not None:
            keys, values = keys[:, :, -window:], values[:, :, -window:]
        outputs.append(
            scaled_dot_product_attention(rows[one], keys, values, scale=options.get("scaling"))
        )
    return torch.cat(outputs).reshape(batch, 1, heads, -1), None


def _no_mask(*_: Any, **__: Any) -> None:
    """One query that comes last sees everything."""
