"""The only file that knows how a transformers cache stores its layers."""

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from finch_integrations.engine.rope import rerotate_keys

KVCache: TypeAlias = Any  # DynamicCache: transformers' annotations are not usable


# Tokens for which a layer makes room when it begins to grow token by token.
_ROOM = 128


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers' annotations are not usable
    """A layer of a cache that does not copy itself for every token of an answer.

    Attributes:
        keys: [B, G, N, D]; the start of a larger tensor while tokens come one by one.
        values: Likewise.
    """

    keys: Tensor
    values: Tensor
    # The larger tensors, and `keys` as they were when these were last written to.
    _room: tuple[Tensor, Tensor] | None = None
    _seen: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the states of new tokens, [B, G, Q, D]; return all."""
        if not self.is_initialized or key_states.shape[-2] != 1:
            states: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return states
        length = self.keys.shape[-2]
        if self._room is None or self._seen is not self.keys or self._room[0].shape[-2] == length:
            self._room = _with_room(self.keys), _with_room(self.values)
        for room, states_ in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, length] = states_[:, :, 0]
        self.keys, self.values = (room[:, :, : length + 1] for room in self._room)
        self._seen = self.keys
        return self.keys, self.values

    def twin(self) -> "GrowingLayer":
        """A layer of the same tensors; what one of both gets later, the other does not see."""
        twin = copy.copy(self)
        twin._room = twin._seen = None  # this layer goes on to write there
        return twin


def new_cache() -> KVCache:
    """Make an empty cache of plain growing layers."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def cache_length(cache: KVCache) -> int:
    """Tokens in the cache; all layers have the same number."""
    return int(cache.get_seq_length())


def cache_bytes(cache: KVCache) -> int:
    """Bytes of all keys and values."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def share_cache(cache: KVCache) -> KVCache:
    """Return a cache that starts from the same tensors; growing it leaves `cache` as it is."""
    twin = copy.copy(cache)
    twin.layers = [layer.twin() for layer in cache.layers]
    return twin


def shorten_cache(cache: KVCache, length: int) -> None:
    """Drop what comes after the first `length` tokens, in place; layers may have different ones."""
    for layer in cache.layers:
        layer.keys, layer.values = (states[:, :, :length] for states in (layer.keys, layer.values))


def repeat_cache(cache: KVCache, times: int) -> KVCache:
    """Return a cache of a batch of `times`, all starting from the same tensors."""
    twin = share_cache(cache)
    for layer in twin.layers:
        layer.keys, layer.values = (
            states.expand(times, -1, -1, -1) for states in (layer.keys, layer.values)
        )
    return twin


def pick_from_batch(cache: KVCache, numbers: Sequence[int]) -> KVCache:
    """Return a cache of some of a batch's texts."""
    twin = share_cache(cache)
    for layer in twin.layers:
        layer.keys, layer.values = (
            states[torch.tensor(numbers, device=states.device)]
            for states in (layer.keys, layer.values)
        )
    return twin


def align_right(cache: KVCache, lengths: Tensor) -> KVCache:
    """Move the padding of a batch from the texts' ends to their starts.

    What is fed next then follows each text without a gap, which layers with a sliding window need.

    Args:
        cache: Of B texts; stays as it is.
        lengths: How many tokens each has, [B].
    """
    total = cache_length(cache)
    if bool((lengths == total).all()):
        return share_cache(cache)
    places = torch.arange(total)[None] - (total - lengths)[:, None]  # [B, N]
    twin = share_cache(cache)
    for layer in twin.layers:
        columns = places.clamp(min=0).to(layer.keys.device)
        rows = torch.arange(len(lengths), device=columns.device)[:, None]
        layer.keys, layer.values = (
            # Whole rows of heads are copied, in half of the time that `gather` takes.
            states.transpose(1, 2)[rows, columns].transpose(1, 2)
            for states in (layer.keys, layer.values)
        )
    return twin


def passages_of(cache: KVCache, start: int, lengths: Sequence[int]) -> list[dict[str, Tensor]]:
    """Copy a batch's texts out of a cache, for keeping.

    Args:
        cache: Of B texts, padded at their ends.
        start: The first token to copy.
        lengths: How many tokens of each to copy, B of them.

    Returns:
        For each text its `keys` and `values`, each [L, G, T, D], on the CPU.
    """
    # Each layer comes to the CPU once, and not once for every text.
    states = {
        name: [getattr(layer, name)[:, :, start:].cpu() for layer in cache.layers]
        for name in ("keys", "values")
    }
    return [
        {
            name: torch.stack([layer[number, :, :length] for layer in layers])
            for name, layers in states.items()
        }
        for number, length in enumerate(lengths)
    ]


def cache_of_passages(prefix: KVCache, passages: Sequence[dict[str, Tensor]]) -> KVCache:
    """Put kept passages after a prefix again: a batch, padded at the texts' ends.

    Args:
        prefix: The cache that they were read after; not changed.
        passages: As `passages_of` made them.
    """
    twin = repeat_cache(prefix, len(passages))
    for number, layer in enumerate(twin.layers):
        for name in ("keys", "values"):
            before = getattr(layer, name)  # [B, G, N, D]
            texts = [passage[name][number].transpose(0, 1) for passage in passages]  # [T, G, D]
            padded = pad_sequence(texts, batch_first=True).transpose(1, 2)  # [B, G, T, D]
            setattr(layer, name, torch.cat((before, padded.to(before.device)), dim=2))
    return twin


class PrunableCache:
    """A cache whose document tokens are pruned repeatedly while it grows.

    Layout: the prefix, which stays; the document tokens kept so far; what was fed last. After every
    pruning the kept tokens close up. Their keys are always rotated from the state in which the
    model wrote them, by the whole distance moved since then: rotating them step by step in bfloat16
    would lose small angles to rounding each time.

    Attributes:
        cache: What the model reads and extends.
    """

    def __init__(self, prefix: int, inv_freq: Tensor, rope_layers: Sequence[bool]) -> None:
        """Start empty.

        Args:
            prefix: Tokens at the start that are never dropped or moved.
            inv_freq: Inverse rope frequencies, [R/2].
            rope_layers: For every layer, whether its keys are rotated.
        """
        self.cache = new_cache()
        self._prefix = prefix
        self._inv_freq = inv_freq
        self._rope_layers = rope_layers
        self._written: dict[int, Tensor] = {}  # layer -> keys as the model wrote them, [G, K, D]
        self._moved: dict[int, Tensor] = {}  # layer -> distance moved since, [S, K]

    def prune(self, layer: int, keep: Tensor) -> None:
        """Drop everything after the prefix except the tokens in `keep`.

        Args:
            layer: Which layer.
            keep: Ascending indices counted from the end of the prefix, [S, K].
        """
        states = self.cache.layers[layer]
        keep = keep.to(states.keys.device)
        keys, values = (x[0, :, self._prefix :] for x in (states.keys, states.values))  # [G, N, D]
        if self._rope_layers[layer]:
            held = self._moved.get(layer, keep.new_zeros(keep.shape[0], 0))  # [S, held]
            if layer in self._written:
                keys = torch.cat((self._written[layer], keys[:, held.shape[-1] :]), dim=1)
            moved = pad(held, (0, keys.shape[1] - held.shape[-1])).gather(1, keep)  # [S, K]
            moved += torch.arange(keep.shape[-1], device=keep.device) - keep
            self._written[layer], self._moved[layer] = _take(keys, keep), moved
            kept_keys = rerotate_keys(self._written[layer], moved, self._inv_freq)
        else:
            kept_keys = _take(keys, keep)  # [G, K, D]
        prefix = (x[0, :, : self._prefix] for x in (states.keys, states.values))
        kept = (kept_keys, _take(values, keep))
        states.keys, states.values = (
            torch.cat(parts, dim=1)[None] for parts in zip(prefix, kept, strict=True)
        )


def cache_tensors(cache: KVCache) -> dict[str, Tensor]:
    """Name every tensor of the cache, for saving."""
    return {
        f"{name}.{number}": getattr(layer, name).contiguous()
        for number, layer in enumerate(cache.layers)
        for name in ("keys", "values")
    }


def cache_from_tensors(tensors: dict[str, Tensor], devices: Sequence[torch.device]) -> KVCache:
    """Rebuild the cache whose tensors were named by `cache_tensors`, each layer on its device."""
    cache = new_cache()
    for layer, device in enumerate(devices):
        keys, values = (tensors[f"{name}.{layer}"].to(device) for name in ("keys", "values"))
        cache.update(keys, values, layer)
    return cache


def _take(states: Tensor, keep: Tensor) -> Tensor:
    """Pick tokens per head: states [G, N, D], keep [S, K] -> [G, K, D]."""
    index = keep.expand(states.shape[0], -1)[..., None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index)


def _with_room(states: Tensor) -> Tensor:
    room = states.new_empty(*states.shape[:2], states.shape[2] + _ROOM, states.shape[3])
    room[:, :, : states.shape[2]] = states
    return room
