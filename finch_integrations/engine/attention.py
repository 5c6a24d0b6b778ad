"""Observing a model's attention while it runs.

transformers lets models run any attention function registered under a name. While a `with
observe_attention(...)` block is open, the model runs ours: fused causal attention and, in addition,
the explicit weights of only the last few rows (the question's). Nothing else is materialised and
nothing is left on the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from finch_integrations.errors import UnsupportedModelError

_NAME = "finch_observed"

Record = Callable[[int, Tensor], None]


@dataclass(slots=True)
class _Observer:
    rows: int
    record: Record
    layers: set[int] = field(default_factory=set)


_observer: ContextVar[_Observer | None] = ContextVar("finch_observer", default=None)


@contextmanager
def observe_attention(model: Any, *, rows: int, record: Record) -> Iterator[None]:
    """Pass the attention of the last `rows` tokens to `record` during forward passes.

    The caller makes sure that no other thread runs the model at the same time.

    Args:
        model: A decoder that gets batches of one sequence without padding.
        rows: How many of the last fed tokens to observe, Q.
        record: Called once per layer with the layer's number and the attention weights
            (softmax over all keys, float32, [H, Q, N]).

    Raises:
        UnsupportedModelError: Some layer did not run the registered attention function.
    """
    if _NAME not in AttentionInterface().valid_keys():
        AttentionInterface.register(_NAME, _observed_attention)
        # Without a mask function under the same name transformers would skip masks on its own.
        AttentionMaskInterface.register(_NAME, _no_mask)
    observer = _Observer(rows, record)
    before = model.config._attn_implementation
    token = _observer.set(observer)
    try:
        model.set_attn_implementation(_NAME)
        yield
    finally:
        _observer.reset(token)
        model.set_attn_implementation(before)
    missing = set(range(model.config.num_hidden_layers)) - observer.layers
    if missing:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not run its attention through transformers' "
            f"AttentionInterface (layers {sorted(missing)} were not seen)"
        )


def question_attention(query: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """Attention weights of the last Q tokens over all N keys, causal among themselves.

    Args:
        query: [H, Q, D]; head h reads key/value head h // (H/G).
        keys: [G, N, D], the last Q of them belonging to the query tokens.
        scaling: Factor on the dot products.

    Returns:
        float32, [H, Q, N].
    """
    (heads, rows, dim), (groups, length, _) = query.shape, keys.shape
    grouped = query.float().reshape(groups, heads // groups * rows, dim)  # [G, H/G·Q, D]
    logits = (grouped @ keys.float().transpose(1, 2)).view(heads, rows, length) * scaling
    future = torch.ones(rows, rows, dtype=torch.bool, device=keys.device).triu(1)  # [Q, Q]
    logits[:, :, length - rows :].masked_fill_(future, float("-inf"))
    return logits.softmax(dim=-1)


def _observed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Run causal attention; query [1, H, ·, D] and key [1, G, N, D] come with RoPE applied."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    observer = _observer.get()
    if observer is not None:
        weights = question_attention(query[0, :, -observer.rows :], key[0], scaling)  # [H, Q, N]
        observer.layers.add(module.layer_idx)
        observer.record(module.layer_idx, weights)
    mask = _causal_mask(query.shape[-2], key.shape[-2], query.device)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2).contiguous(), None


def _causal_mask(rows: int, length: int, device: torch.device) -> Tensor:
    """Let each of the last `rows` of `length` tokens see itself and all before it, [Q, N]."""
    if device.type == "cuda":
        # So that the fused kernels need no materialised mask. Importing it takes a second, and
        # without those kernels it materialises the mask anyway.
        from torch.nn.attention.bias import causal_lower_right

        bias: Tensor = causal_lower_right(rows, length)
        return bias
    return torch.ones(rows, length, dtype=torch.bool, device=device).tril(length - rows)


def _no_mask(*_: Any, **__: Any) -> None:
    """The attention above builds its own causal mask."""
