"""How many tokens are worth keeping: as many as there are passages nearly as good as the best.

One passage far above all others is enough for a question that it answers. Where many are about
as good, as for a question that takes two steps or one that counts, or where nothing stands out,
more of them are kept.
"""

from collections.abc import Sequence

from torch import Tensor

from finch_integrations.engine.budget import Budget
from finch_integrations.engine.segments import Segment
from finch_integrations.types import LimitedBy

# A passage is nearly as good if it is at least this share as far above the average as the best.
NEAR = 0.1


def choose_size(
    segments: Sequence[Segment], scores: Tensor, budget: Budget
) -> tuple[int, LimitedBy]:
    """How many tokens of the best segments to keep, and what decided that.

    Args:
        segments: In any order.
        scores: 0 is about the average, [number of segments].
        budget: Its floor and ceiling; where they are the same, the scores do not matter.
    """
    if budget.least == budget.most:
        return budget.most, "budget"
    near = (scores >= NEAR * scores.max()).tolist()
    size = sum(len(segment) for segment, good in zip(segments, near, strict=True) if good)
    if size < budget.least:
        return budget.least, "floor"
    return (size, "scores") if size < budget.most else (budget.most, "ceiling")
