"""The only file that knows how a transformers cache stores its layers."""

import copy

import torch
from torch import Tensor
from transformers import DynamicCache

from finch_integrations.engine.rope import rerotate_keys

KVCache = DynamicCache


def new_cache() -> KVCache:
    """Make an empty cache of plain growing layers."""
    return DynamicCache()


def cache_length(cache: KVCache) -> int:
    """Tokens in the cache; all layers hold the same number."""
    return int(cache.get_seq_length())


def layer_lengths(cache: KVCache) -> list[int]:
    """Tokens in every layer."""
    return [layer.keys.shape[-2] for layer in cache.layers]


def cache_bytes(cache: KVCache) -> int:
    """Bytes of all keys and values."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def share_cache(cache: KVCache) -> KVCache:
    """Return a cache that starts from the same tensors; growing it leaves `cache` as it is."""
    twin = copy.copy(cache)
    # Layers replace their tensors when they grow (torch.cat), so the tensors can be shared.
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def prune_layer(
    cache: KVCache, layer: int, *, prefix: int, keep: Tensor, inv_freq: Tensor | None
) -> None:
    """Keep the prefix and, behind it, the tokens in `keep`; move their keys together.

    Args:
        cache: Changed in place.
        layer: Which layer.
        prefix: Tokens at the start that stay as they are.
        keep: Ascending indices counted from the end of the prefix, [S, K].
        inv_freq: Inverse rope frequencies [R/2], or None if the layer's keys are not rotated.
    """
    states = cache.layers[layer]
    keys, values = states.keys[0], states.values[0]  # [G, N, D]
    keep = keep.to(keys.device)
    kept_keys, kept_values = (_take(x[:, prefix:], keep) for x in (keys, values))  # [G, K, D]
    if inv_freq is not None:
        new = torch.arange(keep.shape[-1], device=keep.device)
        kept_keys = rerotate_keys(kept_keys, new - keep, inv_freq)
    states.keys = torch.cat((keys[:, :prefix], kept_keys), dim=1)[None]
    states.values = torch.cat((values[:, :prefix], kept_values), dim=1)[None]


def cache_tensors(cache: KVCache) -> dict[str, Tensor]:
    """Name every tensor of the cache, for saving."""
    return {
        f"{name}.{number}": getattr(layer, name).contiguous()
        for number, layer in enumerate(cache.layers)
        for name in ("keys", "values")
    }


def cache_from_tensors(tensors: dict[str, Tensor], num_layers: int) -> KVCache:
    """Rebuild the cache whose tensors were named by `cache_tensors`."""
    cache = new_cache()
    for layer in range(num_layers):
        cache.update(tensors[f"keys.{layer}"], tensors[f"values.{layer}"], layer)
    return cache


def _take(states: Tensor, keep: Tensor) -> Tensor:
    """Pick tokens per head: states [G, N, D], keep [S, K] -> [G, K, D]."""
    index = keep.expand(states.shape[0], -1)[..., None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index)
