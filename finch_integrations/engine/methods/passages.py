"""Methods that keep whole passages: rate segments, take the best, encode them again as one text.

No cached state depends on what was dropped, and what was kept can be shown as text. A method of
this kind only says how its segments are rated (`Rate`).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from finch_integrations.bm25 import BM25Index
from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Plan
from finch_integrations.engine.cache import KVCache
from finch_integrations.engine.methods.base import Choice, Compressed, Method, OnChunk
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, neighbourhoods

# In tokens. Shorter segments lose their context, longer ones waste budget.
SHORTEST, LONGEST = 32, 96
# Small models find what stands at the end of a long context better than what stands amid it.
_LAST = 0.25
# A neighbourhood reaches this far to either side, in tokens: about a passage.
_REACH = 128

# Segments as numbers, [first, end).
Groups = Sequence[tuple[int, int]]


class Rate(Protocol):
    """Cut the documents into segments and say how much each matters to the question."""

    def __call__(
        self,
        backbone: Backbone,
        prompt: Prompt,
        prefix: KVCache,
        chunk_length: int,
        on_chunk: OnChunk,
    ) -> tuple[list[Segment], Tensor]:
        """Rate the documents; the prefix's cache stays as it is.

        Returns:
            The segments, and their scores, [number of segments]; higher is better.
        """
        ...


def keep_passages(rate: Rate) -> Method:
    """Make the method that rates segments and encodes the best; all layers keep the same tokens."""

    def compress(
        backbone: Backbone, prompt: Prompt, plan: Plan, config: CompressionConfig, on_chunk: OnChunk
    ) -> Compressed:
        prefix = backbone.encode(prompt.prefix, plan.chunk_length)
        rated = rate(backbone, prompt, prefix, plan.chunk_length, on_chunk)
        return encode_choice(backbone, prompt, plan, prefix, choose(*rated, plan.target))

    return compress


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


def groups_of(segments: Sequence[Segment]) -> tuple[Groups, Groups]:
    """Every segment alone, and every segment with its neighbourhood."""
    return [(n, n + 1) for n in range(len(segments))], neighbourhoods(segments, _REACH)


def match_words(prompt: Prompt, segments: Sequence[Segment], groups: Groups) -> Tensor:
    """Standardised BM25 of every group's text for the question, [number of groups]."""
    index = BM25Index.build(texts_of(prompt, segments, groups))
    return standardize(torch.from_numpy(index.scores(prompt.question)))


def texts_of(prompt: Prompt, segments: Sequence[Segment], groups: Groups) -> list[str]:
    """Every group's text."""
    offsets = (*prompt.offsets, len(prompt.text))
    return [
        prompt.text[offsets[segments[first].start] : offsets[segments[end - 1].end]]
        for first, end in groups
    ]
