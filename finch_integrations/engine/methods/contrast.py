"""The default method: keep the passages that matter to this question more than to any question.

Where a small model looks when asked is mostly habit. So every chunk is read under the question and
under a content-free one, and each segment is scored by the ratio of the attention it gets from
the two. How well its words match the question (BM25) is added: models and words err on different
segments. Both are taken of the segment and of its neighbourhood. The best segments are encoded
again as one text, so that no cached state depends on what was dropped: in document order, but
the very best last.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from finch_integrations.bm25 import BM25Index
from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Plan
from finch_integrations.engine.cache import KVCache, cache_length, share_cache
from finch_integrations.engine.methods.base import Choice, Compressed, OnChunk
from finch_integrations.engine.prompt import Guide, Prompt
from finch_integrations.engine.scoring import contrast_scores, standardize
from finch_integrations.engine.segments import Segment, neighbourhoods, split_segments

# In tokens. Shorter segments lose their context, longer ones waste budget.
_SHORTEST, _LONGEST = 32, 96
# Small models find what stands at the end of a long context better than what stands amid it.
_LAST = 0.25
# A neighbourhood reaches this far to either side, about a passage.
_REACH = 128


def compress_contrast(
    backbone: Backbone,
    prompt: Prompt,
    plan: Plan,
    config: CompressionConfig,
    on_chunk: OnChunk,
) -> Compressed:
    """Score chunk by chunk, then encode the best segments; every layer keeps the same tokens."""
    prefix = backbone.encode(prompt.prefix, plan.chunk_length)
    rated = rate_segments(backbone, prompt, prefix, plan.chunk_length, on_chunk)
    return encode_choice(backbone, prompt, plan, prefix, choose(*rated, plan.target))


def encode_choice(
    backbone: Backbone, prompt: Prompt, plan: Plan, prefix: KVCache, choice: Choice
) -> Compressed:
    """Feed the chosen tokens behind the prefix's cache, which grows into the result."""
    chosen = [prompt.documents[position] for position in choice.kept.tolist()]
    backbone.prefill(chosen, prefix, plan.chunk_length)
    return Compressed(prefix, (choice.kept[None],) * backbone.spec.num_layers, choice)


def choose(segments: Sequence[Segment], scores: Tensor, budget: int) -> Choice:
    """Choose exactly `budget` tokens."""
    chosen = arrange(take_best(segments, scores, budget))
    kept = torch.cat([torch.arange(segment.start, segment.end) for segment in chosen])
    return Choice(kept, segments, scores)


def rate_segments(
    backbone: Backbone, prompt: Prompt, prefix: KVCache, chunk_length: int, on_chunk: OnChunk
) -> tuple[list[Segment], Tensor]:
    """Cut the documents into segments and say how much each matters to the question.

    The prefix's cache stays as it is.

    A score is the sum of four standardised ones: contrast of attention and BM25, each of the
    segment itself and of its neighbourhood.

    Returns:
        The segments, and their scores, [number of segments]; higher is better.
    """
    segments = split_segments(prompt, shortest=_SHORTEST, longest=_LONGEST)
    asked, null = _segment_attention(backbone, prompt, segments, prefix, chunk_length, on_chunk)
    around = neighbourhoods(segments, _REACH)
    alone = [(number, number + 1) for number in range(len(segments))]
    scores = torch.zeros(len(segments))
    for groups in (alone, around):
        texts = _texts(prompt, segments, groups)
        scores += standardize(contrast_scores(_sum_over(asked, groups), _sum_over(null, groups)))
        scores += standardize(_match_words(texts, prompt.question))
    return segments, scores


def take_best(segments: Sequence[Segment], scores: Tensor, budget: int) -> list[Segment]:
    """Take the best segments until `budget` tokens are taken; of the last one only its start.

    Args:
        segments: In document order.
        scores: [number of segments]; equal scores favour earlier segments.
        budget: Tokens to take, at most all.

    Returns:
        Segments, the best first.
    """
    taken: list[Segment] = []
    for index in scores.sort(descending=True, stable=True).indices.tolist():
        if budget == 0:
            break
        segment = segments[index]
        if len(segment) > budget:
            segment = replace(segment, end=segment.start + budget)
        taken.append(segment)
        budget -= len(segment)
    return taken


def arrange(ranked: Sequence[Segment]) -> list[Segment]:
    """Put segments into document order, but the best ones last, next to the question.

    Args:
        ranked: The best first. Those of the first quarter of the tokens come last, the best of
            all at the very end.
    """
    tokens = list(accumulate(len(segment) for segment in ranked))
    last = bisect_left(tokens, tokens[-1] * _LAST) + 1
    return [*sorted(ranked[last:], key=lambda segment: segment.start), *reversed(ranked[:last])]


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
        behind = [share_cache(cache) for _ in guides]
        attention = [
            _attention(backbone, guide, twin, columns, layers)
            for guide, twin in zip(guides, behind, strict=True)
        ]
        sums = sums or [part.new_zeros(len(part), len(segments)) for part in attention]
        for total_of, part in zip(sums, attention, strict=True):
            total_of.index_add_(1, owner[start:end], part)
        on_chunk(end, max(cache_length(twin) for twin in behind))
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


def _sum_over(attention: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """Add up segments: attention [R, U] and ranges of segments -> [R, number of groups]."""
    first, end = torch.tensor(groups).unbind(dim=1)
    running = pad(attention.double().cumsum(dim=1), (1, 0))
    return (running[:, end] - running[:, first]).float()


def _match_words(texts: Sequence[str], question: str) -> Tensor:
    """BM25 of every text for the question, [number of texts]."""
    return torch.from_numpy(BM25Index.build(texts).scores(question))


def _texts(
    prompt: Prompt, segments: Sequence[Segment], groups: Sequence[tuple[int, int]]
) -> list[str]:
    """The text of every range of segments."""
    offsets = (*prompt.offsets, len(prompt.text))
    return [
        prompt.text[offsets[segments[first].start] : offsets[segments[end - 1].end]]
        for first, end in groups
    ]
