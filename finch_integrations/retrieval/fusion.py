"""Reciprocal rank fusion: one ranking out of several."""

from collections import defaultdict
from collections.abc import Sequence
from math import fsum, isfinite
from typing import TypeVar

from finch_integrations.errors import ConfigurationError

Key = TypeVar("Key", int, str)


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Key]], *, weights: Sequence[float] | None = None, k: float = 60
) -> list[tuple[Key, float]]:
    """Fuse rankings: score(id) = Σ over rankings of weight / (k + rank), ranks from 1.

    An id that a ranking repeats counts there once, at its best rank, and takes no rank from
    others. Equal scores are ordered by id.

    Args:
        rankings: Ids, best first; some may be empty.
        weights: One per ranking, 0 or more; all 1 by default.
        k: The larger, the less the first ranks stand out.

    Returns:
        Ids with their scores, best first.

    Raises:
        ConfigurationError: `k` or the weights are unusable.
    """
    if weights is None:
        weights = [1.0] * len(rankings)
    if len(weights) != len(rankings):
        raise ConfigurationError(
            f"there must be one weight per ranking, got {len(weights)} for {len(rankings)}"
        )
    if not all(isfinite(weight) and weight >= 0 for weight in weights):
        raise ConfigurationError(f"weights must be 0 or more, got {list(weights)}")
    if not (isfinite(k) and k >= 0):
        raise ConfigurationError(f"k must be 0 or more, got {k!r}")
    parts: defaultdict[Key, list[float]] = defaultdict(list)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(dict.fromkeys(ranking), start=1):
            parts[key].append(weight / (k + rank))
    # fsum: the same score in whatever order the rankings come.
    scores = [(key, fsum(values)) for key, values in parts.items()]
    return sorted(scores, key=lambda item: (-item[1], item[0]))
