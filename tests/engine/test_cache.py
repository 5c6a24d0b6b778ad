"""Pruning, sharing and sizing a cache."""

import pytest
import torch

from finch_integrations.engine.cache import (
    PrunableCache,
    cache_bytes,
    cache_length,
    new_cache,
    share_cache,
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
