"""Cutting documents into segments: sentences, joined or cut until they have a useful length."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.sentences import line_ends, sentence_ends


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A run of document tokens; sorted, they are in document order.

    Attributes:
        start: Its first token among the document tokens.
        end: The one after its last token.
        document: The number of its document.
        score: How much it matters to the question, once it has been scored.
    """

    start: int
    end: int
    document: int
    score: float = field(default=0.0, compare=False)

    @property
    def middle(self) -> float:
        """Where its middle is among the document tokens."""
        return (self.start + self.end) / 2

    def __len__(self) -> int:
        return self.end - self.start


def split_segments(documents: DocumentTokens, *, shortest: int, longest: int) -> list[Segment]:
    """Cut the document tokens into segments that follow each other without a gap.

    Sentences are joined until they have `shortest` tokens, as long as they stay within
    `longest`. One that is longer is made of its lines in the same way, and a line that is longer is
    cut into even pieces.
    """
    segments: list[Segment] = []
    for number, span in enumerate(documents.spans):
        first = documents.offset(span.start)
        text = documents.text_between(span.start, span.end)
        sentences, lines = (
            [documents.token_at(first + place) for place in places]
            for places in (sentence_ends(text), line_ends(text))
        )
        whole = Segment(span.start, span.end, number)
        for sentence in _joined(whole, sentences, shortest, longest):
            inside = lines if len(sentence) > longest else []
            for line in _joined(sentence, inside, shortest, longest):
                segments += _even_pieces(line, longest)
    return segments


def _joined(
    segment: Segment, cuts: Sequence[int], shortest: int, longest: int
) -> Iterator[Segment]:
    """Cut a segment and join what is short; only a piece without a cut inside may be too long."""
    inside = cuts[bisect_right(cuts, segment.start) : bisect_left(cuts, segment.end)]
    start = previous = segment.start
    for end in (*inside, segment.end):
        if end - start > longest and previous > start:
            yield Segment(start, previous, segment.document)
            start = previous
        if end > start and (end - start >= shortest or end == segment.end):
            yield Segment(start, end, segment.document)
            start = end
        previous = end


def _even_pieces(segment: Segment, longest: int) -> list[Segment]:
    count = -(-len(segment) // longest)
    borders = [segment.start + len(segment) * i // count for i in range(count + 1)]
    return [Segment(start, end, segment.document) for start, end in pairwise(borders)]


def translate_segments(
    segments: Sequence[Segment], source: DocumentTokens, target: DocumentTokens
) -> list[Segment]:
    """The same passages of the same documents in another tokenizer's tokens.

    A passage that begins and ends within one of its tokens has no token there.
    """
    starts = [
        target.spans[segment.document].start
        if segment.start == source.spans[segment.document].start
        else target.token_at(source.offsets[segment.start])
        for segment in segments
    ]
    ends = [*starts[1:], len(target)]
    return [
        Segment(start, end, segment.document)
        for segment, start, end in zip(segments, starts, ends, strict=True)
    ]


def neighbourhoods(segments: Sequence[Segment], reach: int) -> list[tuple[int, int]]:
    """For each segment, the segments of its document around it: [first, end).

    Those whose middle is at most `reach` tokens from its own.
    """
    middles = [segment.middle for segment in segments]
    documents = [segment.document for segment in segments]
    return [
        (
            max(bisect_left(middles, s.middle - reach), bisect_left(documents, s.document)),
            min(bisect_right(middles, s.middle + reach), bisect_right(documents, s.document)),
        )
        for s in segments
    ]
