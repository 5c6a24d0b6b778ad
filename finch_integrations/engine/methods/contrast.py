"""Rate segments by attention: how much more the question looks at one than any question does.

Where a small model looks when asked is mostly habit. So every chunk is read under the question and
under a content-free one, and each segment is scored by the ratio of the attention it gets from
the two. How well its words match the question (BM25) is added: models and words err on different
segments. Both are taken of the segment and of its neighbourhood.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, cache_length, share_cache
from finch_integrations.engine.methods.base import OnChunk
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    Groups,
    groups_of,
    match_words,
)
from finch_integrations.engine.prompt import Guide, Prompt
from finch_integrations.engine.scoring import contrast_scores, standardize
from finch_integrations.engine.segments import Segment, split_segments


def rate_by_contrast(
    backbone: Backbone, prompt: Prompt, prefix: KVCache, chunk_length: int, on_chunk: OnChunk
) -> tuple[list[Segment], Tensor]:
    """Rate segments, see `passages.Rate`.

    A score is the sum of four standardised ones: contrast of attention and BM25, each of the
    segment itself and of its neighbourhood.
    """
    segments = split_segments(prompt, shortest=SHORTEST, longest=LONGEST)
    asked, null = _segment_attention(backbone, prompt, segments, prefix, chunk_length, on_chunk)
    scores = torch.zeros(len(segments))
    for groups in groups_of(segments):
        scores += standardize(contrast_scores(_sum_over(asked, groups), _sum_over(null, groups)))
        scores += match_words(prompt, segments, groups)
    return segments, scores


def _segment_attention(
    backbone: Backbone,
    prompt: Prompt,
    segments: Sequence[Segment],
    prefix: KVCache,
    chunk_length: int,
    on_chunk: OnChunk,
) -> tuple[Tensor, Tensor]:
    """Read the documents chunk by chunk and add up each segment's attention.

    Chunks do not see each other: each stands alone behind the prefix.

    Returns:
        Under the question and under the content-free one, each [heads of the upper half of the
        layers, number of segments]: the mean over the question's rows.
    """
    # The lower half looks at neighbours and word forms, whatever is asked.
    layers = range(backbone.spec.num_layers // 2, backbone.spec.num_layers)
    owner = torch.repeat_interleave(torch.tensor([len(s) for s in segments]))  # token -> segment
    guides = (prompt.guide, prompt.null_guide)
    sums: list[Tensor] = []
    total, first = len(prompt.documents), cache_length(prefix)
    for start in range(0, total, chunk_length):
        chunk = prompt.documents[start : start + chunk_length]
        end, columns = start + len(chunk), slice(first, first + len(chunk))
        cache = share_cache(prefix)
        backbone.forward(chunk, cache)
        attention = [
            _attention(backbone, guide, share_cache(cache), columns, layers) for guide in guides
        ]
        sums = sums or [part.new_zeros(len(part), len(segments)) for part in attention]
        for total_of, part in zip(sums, attention, strict=True):
            total_of.index_add_(1, owner[start:end], part)
        on_chunk(end, cache_length(cache) + max(len(guide.ids) for guide in guides))
    asked, null = sums
    return asked, null


def _attention(
    backbone: Backbone, guide: Guide, cache: KVCache, columns: slice, layers: range
) -> Tensor:
    """Feed a guide behind the cache, which grows, and see what it attends to.

    Returns:
        One row per head of `layers`, the mean over the question's rows: [R, columns].
    """
    seen: dict[int, Tensor] = {}

    def record(layer: int, weights: Tensor) -> None:
        if layer in layers:
            seen[layer] = weights[..., columns].mean(dim=1).cpu()  # [H, columns]

    backbone.forward(guide.ids, cache, rows=guide.rows, record=record)
    return torch.cat([seen[layer] for layer in layers])


def _sum_over(attention: Tensor, groups: Groups) -> Tensor:
    """Add up segments: attention [R, U] and ranges of segments -> [R, number of groups]."""
    first, end = torch.tensor(groups).unbind(dim=1)
    running = pad(attention.double().cumsum(dim=1), (1, 0))
    return (running[:, end] - running[:, first]).float()
