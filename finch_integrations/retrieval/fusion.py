"""One ranking from several: by ranks or by scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import fsum, isfinite
from typing import TypeVar

from finch_integrations.errors import ConfigurationError

Key = TypeVar("Key", int, str)


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Key]], *, weights: Sequence[float] | None = None, k: float = 60
) -> list[tuple[Key, float]]:
    """Fuse rankings: score(id) = Σ over rankings of weight / (k + rank), ranks from 1.

    An id that a ranking repeats counts once, at its best rank, and does not lower the rank of
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
    if not (isfinite(k) and k >= 0):
        raise ConfigurationError(f"k must be 0 or more, got {k!r}")
    shares = [
        {key: 1 / (k + rank) for rank, key in enumerate(dict.fromkeys(ranking), start=1)}
        for ranking in rankings
    ]
    return _weighted_sum(shares, weights)


def score_fusion(
    rankings: Sequence[Sequence[tuple[Key, float]]], *, weights: Sequence[float] | None = None
) -> list[tuple[Key, float]]:
    """Fuse rankings whose scores have one scale: score(id) = Σ over rankings of weight · score.

    An id that is missing from a ranking gets 0 there. If a ranking repeats an id, its first score
    counts. Equal scores are ordered by id.

    Args:
        rankings: Ids with scores, higher is better; some may be empty.
        weights: One per ranking, 0 or more; all 1 by default.

    Returns:
        Ids with their scores, best first.

    Raises:
        ConfigurationError: The weights are unusable.
    """
    # Read backwards, so that an id's first score is the one that stays.
    return _weighted_sum([dict(reversed(ranking)) for ranking in rankings], weights)


def _weighted_sum(
    shares: Sequence[Mapping[Key, float]], weights: Sequence[float] | None
) -> list[tuple[Key, float]]:
    if weights is None:
        weights = [1.0] * len(shares)
    if len(weights) != len(shares):
        raise ConfigurationError(
            f"there must be one weight per ranking, got {len(weights)} for {len(shares)}"
        )
    if not all(isfinite(weight) and weight >= 0 for weight in weights):
        raise ConfigurationError(f"weights must be 0 or more, got {list(weights)}")
    parts: defaultdict[Key, list[float]] = defaultdict(list)
    for share, weight in zip(shares, weights, strict=True):
        for key, value in share.items():
            parts[key].append(weight * value)
    # fsum: the same score whatever the order of the rankings.
    scores = [(key, fsum(values)) for key, values in parts.items()]
    return sorted(scores, key=lambda item: (-item[1], item[0]))
