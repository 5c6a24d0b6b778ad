"""The default: rate a segment by how likely it makes the question.

A model that has just read the right passage finds the question less surprising. This is query
likelihood, as retrieval calls it (Ponte and Croft, SIGIR 1998; with language models as rerankers:
Sachan et al., arXiv 2204.07496), and what LongLLMLingua ranks documents by (arXiv 2310.06839,
§4.1). Each segment is read alone behind the prefix, under its document's heading, many at a time.
How well its words match the question (BM25) is added: models and words err on different segments.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, cache_length
from finch_integrations.engine.methods.base import OnChunk
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    groups_of,
    match_words,
)
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments

# Of a longer heading only this many tokens are read again in front of a segment.
_HEADING = 32
# Of a longer question only its last tokens are rated: their logits fill memory.
_ROWS = 128
# The likelihood weighs as much as BM25 of the segment and of its neighbourhood together.
_WEIGHT = 2


def rate_by_likelihood(
    backbone: Backbone,
    prompt: Prompt,
    prefix: KVCache,
    chunk_length: int,
    on_chunk: OnChunk,
    *,
    shortest: int = SHORTEST,
    longest: int = LONGEST,
) -> tuple[list[Segment], Tensor]:
    """Rate segments of `shortest` to `longest` tokens, see `passages.Rate`."""
    longest = min(longest, chunk_length)
    segments = split_segments(prompt, shortest=min(shortest, longest), longest=longest)
    likelihoods = _question_likelihoods(backbone, prompt, segments, prefix, chunk_length, on_chunk)
    scores = _WEIGHT * standardize(likelihoods)
    for groups in groups_of(segments):
        scores += match_words(prompt, segments, groups)
    return segments, scores


def headed_segments(
    prompt: Prompt, segments: Sequence[Segment], *, longest: int
) -> list[tuple[int, ...]]:
    """Each segment's tokens under the start of its document's heading, at most `longest`."""
    headed = []
    for segment in segments:
        span = prompt.spans[segment.document]
        room = min(_HEADING, longest - len(segment))
        in_front = range(span.start, min(segment.start, span.start + room))
        heading = [i for i in in_front if prompt.offsets[i] < span.text_start]
        own = range(segment.start, segment.end)
        headed.append(tuple(prompt.documents[i] for i in (*heading, *own)))
    return headed


def _question_likelihoods(
    backbone: Backbone,
    prompt: Prompt,
    segments: Sequence[Segment],
    prefix: KVCache,
    chunk_length: int,
    on_chunk: OnChunk,
) -> Tensor:
    """Mean log-likelihood of the question's tokens behind each segment, [number of segments].

    score[u] = 1/Q · Σ_i log p(q_i | prefix, segment u, instruction, q_<i): arXiv 2204.07496, eq. 2.
    """
    guide, first = prompt.guide, cache_length(prefix)
    contexts = headed_segments(prompt, segments, longest=chunk_length)
    scores = torch.zeros(len(contexts))
    seen = 0
    for batch in _batches(contexts, beside=first + len(guide.ids), room=chunk_length):
        sequences = [(*contexts[number], *guide.ids) for number in batch]
        likelihoods = backbone.log_likelihoods(sequences, prefix, rows=min(guide.rows, _ROWS))
        scores[batch] = likelihoods.mean(dim=1)
        seen += sum(len(segments[number]) for number in batch)
        on_chunk(seen, len(batch) * (first + max(map(len, sequences))))
    return scores


def _batches(contexts: Sequence[tuple[int, ...]], *, beside: int, room: int) -> Iterator[list[int]]:
    """Group contexts of similar length, so that little is padded.

    A batch takes no more memory than one text of `beside + room` tokens, where `beside` tokens
    stand beside every context.
    """
    batch: list[int] = []
    for number in sorted(range(len(contexts)), key=lambda number: len(contexts[number])):
        if batch and (len(batch) + 1) * (beside + len(contexts[number])) > beside + room:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
