"""Moving keys that already carry a rotary position embedding (RoPE) to other positions."""

import torch
from torch import Tensor


def rotate_half(x: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + R/2]) by 90 degrees."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rerotate_keys(keys: Tensor, shift: Tensor, inv_freq: Tensor) -> Tensor:
    """Move rotated keys by `shift` positions.

    A key at position p was rotated by p·θ; rotating it by a further Δ·θ moves it to p + Δ
    (RoFormer, arXiv 2104.09864, eq. 15; used for kept tokens by Finch, arXiv 2408.00167, §4).
    Works from the inverse frequencies, not from the model's cos/sin tables, since YaRN and
    longrope scale these. Computed in float32; keys that do not move are returned exactly.

    Args:
        keys: [G, K, D]; dimensions past R (partial rotary embeddings) are left as they are.
        shift: New minus old position of each key, [S, K].
        inv_freq: Inverse frequencies, float32, [R/2].

    Returns:
        Keys in their own dtype, [G, K, D].
    """
    rotated_dims = 2 * inv_freq.numel()
    shift, inv_freq = shift.to(keys.device), inv_freq.to(keys.device)
    angle = shift[..., None].float() * inv_freq.float()  # [S, K, R/2]
    angle = torch.cat((angle, angle), dim=-1)  # [S, K, R]
    rotated, rest = keys[..., :rotated_dims], keys[..., rotated_dims:]
    x = rotated.float()
    x = x * angle.cos() + rotate_half(x) * angle.sin()  # [G, K, R]
    moved = torch.where(shift[..., None] == 0, rotated, x.to(keys.dtype))
    return torch.cat((moved, rest), dim=-1) if rest.shape[-1] else moved
