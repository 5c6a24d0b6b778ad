"""The default: rate a segment by how likely it makes the question.

A model that has just read the right passage finds the question less surprising. This is query
likelihood, as retrieval calls it (Ponte and Croft, SIGIR 1998; with language models as rerankers:
Sachan et al., arXiv 2204.07496), and what LongLLMLingua ranks documents by (arXiv 2310.06839,
§4.1). Each segment is read alone after the prefix, under its document's heading, many at a time.
How well its words match the question (BM25) is added: models and words err on different segments.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from finch_integrations.engine.cache import cache_length
from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.methods.base import Reading
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    groups_of,
    match_words,
)
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments

# Of a longer heading only this many tokens are read again before a segment.
_HEADING = 32
# Of a longer question only its last tokens are rated: their logits fill memory.
_ROWS = 128
# The likelihood weighs as much as BM25 of the segment and of its neighbourhood together.
_WEIGHT = 2


def score_by_likelihood(
    reading: Reading, *, shortest: int = SHORTEST, longest: int = LONGEST
) -> tuple[list[Segment], Tensor]:
    """Rate segments of `shortest` to `longest` tokens, see `SegmentScorer`."""
    documents, question = reading.documents, reading.frame.question
    longest = min(longest, reading.chunk_length)
    segments = split_segments(documents, shortest=min(shortest, longest), longest=longest)
    scores = _WEIGHT * standardize(_question_likelihoods(reading, segments))
    for groups in groups_of(segments):
        scores += match_words(documents, question, segments, groups)
    return segments, scores


def headed_segments(
    documents: DocumentTokens, segments: Sequence[Segment], *, longest: int
) -> list[tuple[int, ...]]:
    """Each segment's tokens under the start of its document's heading, at most `longest`."""
    headed = []
    for segment in segments:
        span = documents.spans[segment.document]
        room = min(_HEADING, longest - len(segment))
        before = range(span.start, min(segment.start, span.start + room))
        heading = [i for i in before if documents.offsets[i] < span.text_start]
        own = range(segment.start, segment.end)
        headed.append(tuple(documents.ids[i] for i in (*heading, *own)))
    return headed


def _question_likelihoods(reading: Reading, segments: Sequence[Segment]) -> Tensor:
    """Mean log-likelihood of the question's tokens after each segment, [number of segments].

    score[u] = 1/Q · Σ_i log p(q_i | prefix, segment u, instruction, q_<i): arXiv 2204.07496, eq. 2.
    """
    window, room = reading.frame.window, reading.chunk_length
    first = cache_length(reading.prefix)
    contexts = headed_segments(reading.documents, segments, longest=room)
    scores = torch.zeros(len(contexts))
    seen = 0
    for batch in _batches(contexts, beside=first + len(window.ids), room=room):
        sequences = [(*contexts[number], *window.ids) for number in batch]
        likelihoods = reading.backbone.log_likelihoods(
            sequences, reading.prefix, rows=min(window.length, _ROWS)
        )
        scores[batch] = likelihoods.mean(dim=1)
        seen += sum(len(segments[number]) for number in batch)
        reading.on_chunk(seen, len(batch) * (first + max(map(len, sequences))))
    return scores


def _batches(contexts: Sequence[tuple[int, ...]], *, beside: int, room: int) -> Iterator[list[int]]:
    """Group contexts of similar length, so that little is padded.

    A batch takes no more memory than one text of `beside + room` tokens, where `beside` tokens
    are beside every context.
    """
    batch: list[int] = []
    for number in sorted(range(len(contexts)), key=lambda number: len(contexts[number])):
        if batch and (len(batch) + 1) * (beside + len(contexts[number])) > beside + room:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
