"""From attention weights to kept tokens; pure functions.

Formulas: Finch, arXiv 2408.00167, §4 ("prompt-guided" selection).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from finch_integrations.config import BudgetSchedule, Pooling, Selection

# Attention below this is noise: it must not decide a ratio.
_EPSILON = 1e-5


def score_tokens(
    weights: Tensor,
    *,
    columns: slice,
    num_kv_heads: int,
    selection: Selection,
    normalize: bool,
) -> Tensor:
    """Add up the attention that the question pays to each document token.

    A_agg[j] = Σ_i A_norm[i, j] with A_norm[i, j] = f_i · Σ_h A[h, i, j], over the question rows i
    and the document columns j. f_i is 1, or with `normalize` the share of all tokens that row i
    can see (the paper's count(A ≠ 0) / length, read over the whole row as its authors' code does).

    Args:
        weights: Attention of the question rows, [H, Q, N], its last Q columns being the
            question's own.
        columns: Which of the N columns are document tokens.
        num_kv_heads: G.
        selection: Sum over all heads (`layer`) or over the query heads of a KV head.
        normalize: Multiply each row by its f_i.

    Returns:
        [S, number of document columns].
    """
    heads, rows, length = weights.shape
    scores = weights[:, :, columns]
    if normalize:
        visible = torch.arange(length - rows + 1, length + 1, device=weights.device)
        scores = scores * (visible / length)[:, None]
    groups = num_kv_heads if selection == "kv_head" else 1
    return scores.reshape(groups, heads // groups * rows, -1).sum(dim=1)


def contrast_scores(asked: Tensor, null: Tensor) -> Tensor:
    """How much more attention the question pays to a segment than a question without content does.

    score[u] = mean over rows r of log((asked[r, u] + ε) / (null[r, u] + ε)): a ratio, so that what
    every question looks at scores zero, and its logarithm, so that no single head decides.

    Args:
        asked: Attention under the question, one row per head, [R, U].
        null: The same under the content-free question.

    Returns:
        [U].
    """
    return ((asked + _EPSILON).log() - (null + _EPSILON).log()).mean(dim=0)


def standardize(scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1; equal scores become 0.

    Args:
        scores: [U].
        weights: How much each counts for mean and deviation, [U]. Default: all alike.
    """
    weights = torch.ones_like(scores) if weights is None else weights
    deviations = scores - (weights * scores).sum() / weights.sum()
    spread = ((weights * deviations.square()).sum() / weights.sum()).sqrt()
    return deviations / spread if spread > 0 else torch.zeros_like(scores)


def pool_scores(scores: Tensor, positions: Tensor, *, pooling: Pooling, kernel: int) -> Tensor:
    """Smooth scores over tokens that are next to each other in the original text.

    Tokens whose former neighbours were evicted are pooled with those that are left within half
    a kernel, never across a gap.

    Args:
        scores: [S, N].
        positions: Ascending positions in the documents, [S, N].
        pooling: `max` (SnapKV, arXiv 2404.14469), `mean`, or `none`.
        kernel: Odd width in tokens.
    """
    if pooling == "none" or kernel == 1:
        return scores
    reach, length = kernel // 2, scores.shape[-1]
    padded = pad(scores, (reach, reach))
    # A padded position is out of reach of all others.
    places = pad(positions, (reach, reach), value=-kernel - 1)
    starts = range(2 * reach + 1)
    near = torch.stack([padded[..., s : s + length] for s in starts])  # [kernel, S, N]
    distance = torch.stack([places[..., s : s + length] for s in starts]) - positions
    valid = distance.abs() <= reach
    if pooling == "max":
        return near.masked_fill(~valid, float("-inf")).amax(dim=0)
    return near.masked_fill(~valid, 0).sum(dim=0) / valid.sum(dim=0)


def select_tokens(scores: Tensor, budget: int) -> Tensor:
    """Pick the `budget` highest scores, in document order; equal scores favour earlier tokens.

    Args:
        scores: [S, N].
        budget: Tokens to keep, K ≤ N.

    Returns:
        Ascending indices, [S, K].
    """
    ranked = scores.sort(dim=-1, descending=True, stable=True).indices
    return ranked[..., :budget].sort(dim=-1).values


def budget_after(seen: int, *, total: int, target: int, schedule: BudgetSchedule) -> int:
    """Document tokens to keep after `seen` of `total` were read.

    `linear` is the paper's r = m/σ + c with σ = total/target, added up without rounding loss;
    `fill` keeps everything until the target is reached.
    """
    if schedule == "fill":
        return min(target, seen)
    # Whole-number arithmetic: floating point could miss `target` at the end.
    return (2 * target * seen + total) // (2 * total)
