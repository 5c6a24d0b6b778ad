"""Moving keys: rerotate(prune(RoPE(k))) = RoPE(prune(k))."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from finch_integrations.engine.rope import rerotate_keys
from finch_integrations.engine.support import inspect_model
from tests.tiny import ROPE, make_model

LENGTH, GROUPS = 300, 2


def rotated(model, keys, positions):
    """The model's own RoPE: keys [G, N, D] at positions [N]."""
    cos, sin = model.base_model.rotary_emb(keys[None], positions[None])
    dims = cos.shape[-1]
    turned, _ = apply_rotary_pos_emb(keys[None, ..., :dims], keys[None, ..., :dims], cos, sin)
    return torch.cat((turned[0], keys[..., dims:]), dim=-1)


MODELS = {name: make_model(rope=rope) for name, rope in ROPE.items()} | {
    "partial": make_model("phi3", rope=ROPE["default"] | {"partial_rotary_factor": 0.5})
}


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 5e-5), (torch.bfloat16, 5e-2)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("rope", MODELS)
def test_pruning_then_moving_equals_pruning_then_rotating(rope, dtype, atol):
    model = MODELS[rope]
    inv_freq = inspect_model(model).inv_freq
    torch.manual_seed(0)
    keys = torch.randn(GROUPS, LENGTH, 16)
    keep = torch.randperm(LENGTH)[:70].sort().values
    in_place = rotated(model, keys, torch.arange(LENGTH)).to(dtype)
    moved = rerotate_keys(in_place[:, keep], torch.arange(70) - keep, inv_freq)
    assert moved.dtype == dtype
    expected = rotated(model, keys[:, keep], torch.arange(70))
    torch.testing.assert_close(moved.float(), expected, atol=atol, rtol=0)


def test_keys_that_do_not_move_stay_exactly_the_same():
    keys = torch.randn(GROUPS, 10, 16).bfloat16()
    inv_freq = inspect_model(MODELS["default"]).inv_freq
    shift = torch.tensor([0] * 5 + [-3] * 5)
    moved = rerotate_keys(keys, shift, inv_freq)
    assert torch.equal(moved[:, :5], keys[:, :5])
    assert not torch.allclose(moved[:, 5:], keys[:, 5:])


@given(first=st.integers(-500, 500), second=st.integers(-500, 500))
def test_moving_twice_equals_moving_once(first, second):
    inv_freq = inspect_model(MODELS["yarn"]).inv_freq
    keys = torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 16)
    move = lambda x, by: rerotate_keys(x, torch.full((3,), by), inv_freq)  # noqa: E731
    once = move(keys, first + second)
    torch.testing.assert_close(move(move(keys, first), second), once, atol=1e-3, rtol=0)


def test_heads_can_move_differently():
    inv_freq = inspect_model(MODELS["default"]).inv_freq
    keys = torch.randn(GROUPS, 4, 16)
    shift = torch.tensor([[0, 1, 2, 3], [-1, -1, -5, 0]])
    both = rerotate_keys(keys, shift, inv_freq)
    for head in range(GROUPS):
        alone = rerotate_keys(keys[head : head + 1], shift[head : head + 1], inv_freq)
        assert torch.equal(both[head : head + 1], alone)
