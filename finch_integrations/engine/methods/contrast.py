"""Score segments by attention: how much more this question looks at one than any question does.

Where a small model looks is mostly habit. So every chunk is read under the question and under a
question without content, and each segment is scored by the ratio of the attention that it gets from
the two. How well its words match the question (BM25) is added: models and words err on different
segments. Both are computed for the segment and for its neighbourhood.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from finch_integrations.bm25 import Groups
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, cache_length, share_cache
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.methods.base import Reading
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    WordMatcher,
    groups_of,
)
from finch_integrations.engine.prompt import QuestionWindow
from finch_integrations.engine.scoring import contrast_scores, standardize
from finch_integrations.engine.segments import Segment, split_segments


def score_by_contrast(reading: Reading) -> tuple[list[Segment], Tensor]:
    """Score segments, see `SegmentScorer`.

    A score is the sum of four standardised scores: contrast and BM25, each for the segment and for
    its neighbourhood.
    """
    documents = reading.documents
    segments = split_segments(documents, shortest=SHORTEST, longest=LONGEST)
    null, *asked = _segment_attention(reading, segments)
    scores = torch.zeros(len(reading.frames), len(segments))
    for groups in groups_of(segments):
        habit = _sum_over(null, groups)
        for row, attention in enumerate(asked):
            scores[row] += standardize(contrast_scores(_sum_over(attention, groups), habit))
    matcher = WordMatcher(documents, segments)
    for row, frame in enumerate(reading.frames):
        scores[row] += matcher.both(frame.question)
    return segments, scores


def _segment_attention(reading: Reading, segments: Sequence[Segment]) -> list[Tensor]:
    """Read the documents chunk by chunk and add up each segment's attention.

    Chunks do not see each other: each is read after the prefix alone.

    Returns:
        Under a question without content, then under each question: [heads of the upper half of the
        layers, number of segments], the mean over the question's rows.
    """
    backbone, frames = reading.backbone, reading.frames
    # The lower half looks at neighbouring tokens and word forms, whatever is asked.
    layers = range(backbone.spec.num_layers // 2, backbone.spec.num_layers)
    owner = torch.repeat_interleave(torch.tensor([len(s) for s in segments]))  # token -> segment
    windows = (frames[0].null_window, *(frame.window for frame in frames))
    longest_window = max(len(window.ids) for window in windows)
    sums: list[Tensor] = []
    first = cache_length(reading.prefix)
    for start, chunk in chunks_of(reading.documents.ids, reading.chunk_length):
        end, columns = start + len(chunk), slice(first, first + len(chunk))
        cache = share_cache(reading.prefix)
        backbone.forward(chunk, cache)
        attention = [
            _attention(backbone, window, share_cache(cache), columns, layers) for window in windows
        ]
        sums = sums or [part.new_zeros(len(part), len(segments)) for part in attention]
        for total_of, part in zip(sums, attention, strict=True):
            total_of.index_add_(1, owner[start:end], part)
        reading.tracker.chunk_done(end, cache_length(cache) + longest_window)
    return sums


def _attention(
    backbone: Backbone, window: QuestionWindow, cache: KVCache, columns: slice, layers: range
) -> Tensor:
    """Feed a question window after the cache, which grows, and return what it attends to.

    Returns:
        One row per head of `layers`, the mean over the question's rows: [R, columns].
    """
    seen: dict[int, Tensor] = {}

    def record(layer: int, weights: Tensor) -> None:
        if layer in layers:
            seen[layer] = weights[..., columns].mean(dim=1).cpu()  # [H, columns]

    backbone.forward(window.ids, cache, rows=window.length, record=record)
    return torch.cat([seen[layer] for layer in layers])


def _sum_over(attention: Tensor, groups: Groups) -> Tensor:
    """Add up segments: attention [R, U] and ranges of segments -> [R, number of groups]."""
    first, end = torch.tensor(groups).unbind(dim=1)
    running = pad(attention.double().cumsum(dim=1), (1, 0))
    return (running[:, end] - running[:, first]).float()
