"""Pruning, sharing and sizing a cache."""

import pytest
import torch
from transformers import DynamicCache

from finch_integrations.engine.cache import (
    PrunableCache,
    cache_bytes,
    cache_length,
    new_cache,
    share_cache,
    shorten_cache,
)
from finch_integrations.engine.rope import rerotate_keys

GROUPS, DIM, PREFIX = 2, 16, 3
INV_FREQ = 1.0 / (10_000.0 ** (torch.arange(0, DIM, 2).float() / DIM))


def states(length, dtype=torch.float32):
    return [torch.randn(1, GROUPS, length, DIM).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("selections", [1, GROUPS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_keys_moved_many_times_are_as_if_moved_once(dtype, selections):
    """The model writes a key once; 200 prunings later it must carry one rounding, not 200."""
    torch.manual_seed(0)
    prunable = PrunableCache(PREFIX, INV_FREQ, [True])
    cache, budget, chunk = prunable.cache, 40, 8
    prefix_states = states(PREFIX, dtype)
    cache.update(*prefix_states, 0)
    written = torch.zeros(GROUPS, 0, DIM, dtype=dtype)
    positions = torch.zeros(GROUPS, 0, dtype=torch.long)  # where the model wrote each token
    for _ in range(200):
        start = cache_length(cache)
        keys, values = states(chunk, dtype)
        cache.update(keys, values, 0)
        written = torch.cat((written, keys[0]), dim=1)
        fresh = torch.arange(start, start + chunk).expand(GROUPS, -1)
        positions = torch.cat((positions, fresh), dim=1)
        length = written.shape[1]
        keep = torch.stack(
            [torch.randperm(length)[:budget].sort().values for _ in range(selections)]
        )
        prunable.prune(0, keep)
        index = keep.expand(GROUPS, -1)
        written = written.gather(1, index[..., None].expand(-1, -1, DIM))
        positions = positions.gather(1, index)
    held = written.shape[1]
    shift = PREFIX + torch.arange(held) - positions
    assert shift.min() < -5
    assert torch.equal(cache.layers[0].keys[0, :, PREFIX:], rerotate_keys(written, shift, INV_FREQ))
    assert torch.equal(cache.layers[0].keys[:, :, :PREFIX], prefix_states[0])


def test_layers_without_rope_are_not_rotated():
    prunable = PrunableCache(0, INV_FREQ, [False])
    keys, values = states(10)
    prunable.cache.update(keys, values, 0)
    keep = torch.tensor([[2, 5, 9]])
    prunable.prune(0, keep)
    assert torch.equal(prunable.cache.layers[0].keys, keys[:, :, [2, 5, 9]])
    assert torch.equal(prunable.cache.layers[0].values, values[:, :, [2, 5, 9]])


def test_growing_a_shared_cache_leaves_the_original_alone():
    cache = new_cache()
    keys, values = states(4)
    cache.update(keys, values, 0)
    twin = share_cache(cache)
    assert twin.layers[0].keys.data_ptr() == cache.layers[0].keys.data_ptr()
    twin.update(*states(2), 0)
    assert (cache_length(cache), cache_length(twin)) == (4, 6)
    assert torch.equal(cache.layers[0].keys, keys)


def test_size_counts_keys_and_values():
    cache = new_cache()
    cache.update(*states(4), 0)
    assert cache_bytes(cache) == 2 * GROUPS * 4 * DIM * 4


def test_a_cache_that_grows_token_by_token_holds_what_a_plain_one_does():
    plain, growing = DynamicCache(), new_cache()
    for number, length in enumerate((5, *[1] * 300, 4, 1, 1)):
        states = torch.full((1, 2, length, 4), float(number)) + torch.randn(1, 2, length, 4)
        for cache in (plain, growing):
            cache.update(states, -states, 0)
    assert torch.equal(growing.layers[0].keys, plain.layers[0].keys)
    assert torch.equal(growing.layers[0].values, plain.layers[0].values)


def test_caches_that_share_their_start_grow_apart():
    def token(value):
        return torch.full((1, 1, 1, 2), value)

    first = new_cache()
    for value in (0.0, 1.0, 2.0):
        first.update(token(value), token(value), 0)
    second = share_cache(first)
    for step in range(3):
        first.update(token(10.0 + step), token(10.0 + step), 0)
        second.update(token(20.0 + step), token(20.0 + step), 0)
    shorten_cache(second, 4)
    second.update(token(30.0), token(30.0), 0)
    assert first.layers[0].keys[0, 0, :, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert second.layers[0].values[0, 0, :, 0].tolist() == [0, 1, 2, 20, 30]
