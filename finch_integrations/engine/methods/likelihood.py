"""The default: score a segment by how likely it makes the question.

A model that has just read the right passage finds the question less surprising. This is query
likelihood, as retrieval calls it (Ponte and Croft, SIGIR 1998; with language models as rerankers:
Sachan et al., arXiv 2204.07496), and what LongLLMLingua ranks documents by (arXiv 2310.06839,
§4.1). Each segment is read separately after the prefix, under its document's heading, many at a
time. How well its words match the question (BM25) is added: models and words err on different
segments.

What the best passage leads to comes next (`links`): it may share no word with the question.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.methods.base import Reading
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.links import raise_linked
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    WordMatcher,
    headings_of,
)
from finch_integrations.engine.passage_reader import OnBatch, PassageReader
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments

# The likelihood weighs as much as BM25 of the segment and of its neighbourhood together.
_WEIGHT = 2


def score_by_likelihood(
    reading: Reading, *, shortest: int = SHORTEST, longest: int = LONGEST, linked: bool = True
) -> tuple[list[Segment], Tensor]:
    """Score segments of `shortest` to `longest` tokens, see `SegmentScorer`.

    Where not everything is read, those are whose words match best; all others come after them, in
    the order of their words. With `linked`, what the best one leads to is raised.
    """
    documents, sizes = reading.documents, reading.read_sizes
    segments = _cut(reading, shortest, longest)
    matcher = WordMatcher(documents, segments)
    sentences = sentences_of(matcher.texts)
    questions = [frame.question for frame in reading.frames]
    words = torch.stack([matcher.both(question) for question in questions])
    read = torch.stack(
        [
            shortlist(segments, demote_copies(free, sentences), size)
            for free, size in zip(words, sizes, strict=True)
        ]
    )
    reading.tracker.total = sum(
        len(segments[number]) for number in read.any(dim=0).nonzero().flatten().tolist()
    )
    likelihoods = _reader(reading).likelihoods(
        headed_segments(documents, segments, longest=reading.chunk_length),
        [frame.window for frame in reading.frames],
        read,
        room=reading.batch_tokens,
        on_batch=_counting(reading.tracker, segments),
    )
    scores = [combine(*row) for row in zip(likelihoods, words, read, strict=True)]
    if linked:
        scores = [
            raise_linked(one, matcher, sentences, question)
            for one, question in zip(scores, questions, strict=True)
        ]
    return segments, torch.stack(scores)


def read_ahead(reading: Reading, *, shortest: int = SHORTEST, longest: int = LONGEST) -> None:
    """Read into the store what `score_by_likelihood` may need for any question."""
    segments = _cut(reading, shortest, longest)
    passages = headed_segments(reading.documents, segments, longest=reading.chunk_length)
    reader, window = _reader(reading), reading.frames[0].window
    unread = reader.unread(passages, window)
    reading.tracker.total = sum(len(segments[number]) for number in unread)
    reader.read_ahead(
        passages,
        unread,
        window,
        room=reading.batch_tokens,
        on_batch=_counting(reading.tracker, segments),
    )


def shortlist(segments: Sequence[Segment], free: Tensor, size: int) -> Tensor:
    """Which segments to read: the best by their free scores within `size` tokens, at least one.

    Args:
        segments: U of them.
        free: Scores that cost nothing, [U].
        size: Tokens.

    Returns:
        bool, [U].
    """
    read = torch.zeros(len(segments), dtype=torch.bool)
    for number in free.sort(descending=True, stable=True).indices.tolist():
        if len(segments[number]) > size and read.any():
            break
        read[number] = True
        size -= len(segments[number])
    return read


def combine(likelihood: Tensor, words: Tensor, read: Tensor) -> Tensor:
    """Put both scores together, [segments].

    The likelihoods of a shortlist are higher and closer together than those of all segments would
    be. Its worse half, by words, stands for what was not read when mean and spread are taken.

    Args:
        likelihood: Of the segments that were read, [segments].
        words: Standardised over all segments, [segments].
        read: Which were read, bool, [segments].
    """
    ranked = words.masked_fill(~read, -torch.inf).sort(descending=True, stable=True).indices
    count = int(read.sum())
    worse = ranked[count // 2 : count]
    weights = read.float()
    weights[worse] += (~read).sum() / len(worse)
    scores = _WEIGHT * standardize(likelihood.masked_fill(~read, 0.0), weights) + words
    # Whatever was read comes before whatever was not.
    last = scores[read].min() - 1
    return torch.where(read, scores, last - (words.max() - words))


def headed_segments(
    documents: DocumentTokens, segments: Sequence[Segment], *, longest: int
) -> list[tuple[int, ...]]:
    """Each segment's tokens under the start of its document's heading, at most `longest`."""
    headed = []
    for segment, heading in zip(segments, headings_of(documents, segments), strict=True):
        before = heading[: max(0, longest - len(segment))]
        headed.append(
            tuple(documents.ids[i] for i in (*before, *range(segment.start, segment.end)))
        )
    return headed


def _cut(reading: Reading, shortest: int, longest: int) -> list[Segment]:
    longest = min(longest, reading.chunk_length)
    return split_segments(reading.documents, shortest=min(shortest, longest), longest=longest)


def _reader(reading: Reading) -> PassageReader:
    prefix = reading.frames[0].prefix
    return PassageReader(reading.backbone, prefix, reading.prefix, reading.store)


def _counting(tracker: ProgressTracker, segments: Sequence[Segment]) -> OnBatch:
    """Report every batch of segments."""

    def batch_done(numbers: Sequence[int], fresh: bool, kv_tokens: int) -> None:
        tokens = sum(len(segments[number]) for number in numbers)
        if not fresh:
            tracker.reused += tokens
        tracker.chunk_done(tracker.seen + tokens, kv_tokens)

    return batch_done
