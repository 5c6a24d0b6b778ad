"""The best of many scores."""

import numpy as np
from numpy.typing import NDArray


def best_rows(
    scores: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None = None
) -> list[int]:
    """Rows of the `k` highest scores, best first; equal scores are ordered by row.

    Args:
        scores: One per row, [C]; rows with -inf are left out.
        k: At least 1; fewer rows are returned if there are not that many.
        mask: Rows to choose from, [C]; all by default.
    """
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    rows = np.flatnonzero(scores > -np.inf)
    if len(rows) > k:
        # All that tie with the k-th best are considered, or the choice between them would be
        # arbitrary.
        limit = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
        rows = rows[scores[rows] >= limit]
    order = np.argsort(-scores[rows], kind="stable")[:k]
    return [int(row) for row in rows[order]]
