"""What the methods that keep passages share: how passages are cut, matched, chosen and ordered.

No cached state depends on what was dropped, and what was kept can be shown as text. A method of
this kind only scores the segments (`SegmentScorer`).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from finch_integrations.bm25 import BM25Index, Groups
from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, neighbourhoods
from finch_integrations.words import words

# In tokens. Shorter segments lose their context, longer ones waste budget.
SHORTEST, LONGEST = 32, 96
# Small models find what is at the end of a long context better than what is in its middle.
_LAST = 0.25
# A neighbourhood extends this far to each side, in tokens: about a passage.
_REACH = 128
# A word in more segments than this, a name of the subject for instance, leads nowhere.
_RARE = 3
# Of a longer heading, only this many tokens belong to each of its document's segments.
_HEADING = 32


def choose(segments: Sequence[Segment], scores: Tensor, budget: int) -> list[Segment]:
    """Choose exactly `budget` tokens, in the order in which they are to be encoded.

    Args:
        segments: In document order.
        scores: [number of segments]; equal scores favour earlier segments.
        budget: Tokens to take, at most all.
    """
    return arrange(take_best(segments, scores, budget))


def take_best(segments: Sequence[Segment], scores: Tensor, budget: int) -> list[Segment]:
    """Take the best segments until `budget` tokens are taken; of the last one, only its start.

    Args:
        segments: In document order.
        scores: [number of segments]; equal scores favour earlier segments.
        budget: Tokens to take, at most all.

    Returns:
        Segments with their scores, the best first.
    """
    taken: list[Segment] = []
    ranked, order = scores.sort(descending=True, stable=True)
    for score, index in zip(ranked.tolist(), order.tolist(), strict=True):
        if budget == 0:
            break
        segment = replace(segments[index], score=score)
        if len(segment) > budget:
            segment = replace(segment, end=segment.start + budget)
        taken.append(segment)
        budget -= len(segment)
    return taken


def arrange(ranked: Sequence[Segment]) -> list[Segment]:
    """Put segments into document order, except the best ones: they come last, next to the question.

    Args:
        ranked: The best first. Those of the first quarter of the tokens come last, the best of
            all at the very end.
    """
    tokens = list(accumulate(len(segment) for segment in ranked))
    last = bisect_left(tokens, tokens[-1] * _LAST) + 1
    return [*sorted(ranked[last:]), *reversed(ranked[:last])]


def positions_of(segments: Sequence[Segment]) -> tuple[int, ...]:
    """The document tokens of segments, in the segments' order."""
    return tuple(token for segment in segments for token in range(segment.start, segment.end))


def groups_of(segments: Sequence[Segment]) -> tuple[Groups, Groups]:
    """Each segment by itself, and each segment with its neighbourhood."""
    return [(n, n + 1) for n in range(len(segments))], neighbourhoods(segments, _REACH)


class WordMatcher:
    """Compares the words of questions with those of segments and of their neighbourhoods.

    A segment has the words of its document's heading, too: what a document is about is often said
    there only.

    Attributes:
        texts: The segments' texts, without headings.
    """

    def __init__(self, documents: DocumentTokens, segments: Sequence[Segment]) -> None:
        """Index the segments' words."""
        groups = groups_of(segments)
        self.texts = texts_of(documents, segments)
        headings = (
            documents.text_between(h.start, h.stop) for h in headings_of(documents, segments)
        )
        self._headed = [heading + text for heading, text in zip(headings, self.texts, strict=True)]
        self._indexes = BM25Index.build_many(self._headed, groups)

    def both(self, question: str) -> Tensor:
        """The sum of the standardised BM25 of segment and neighbourhood, [number of segments]."""
        alone, around = (
            standardize(torch.from_numpy(index.scores(question))) for index in self._indexes
        )
        return alone + around

    def links(self, number: int, question: str) -> Tensor:
        """How much each segment shares with one of them that the question does not say.

        Returns:
            Sum of the BM25 weights of the rare words that both have, [number of segments]; 0 for
            the segment itself.
        """
        index, shared = self._indexes[0], torch.zeros(len(self.texts))
        asked = set(words(question))
        for word in dict.fromkeys(words(self._headed[number])):
            holders = torch.from_numpy(index.holding(word).astype("int64"))
            if word not in asked and len(holders) <= _RARE:
                shared[holders] += index.weight(word)
        shared[number] = 0
        return shared


def headings_of(documents: DocumentTokens, segments: Sequence[Segment]) -> list[range]:
    """The tokens of the start of each segment's document's heading that it does not have itself."""
    found = []
    for segment in segments:
        span = documents.spans[segment.document]
        own_start = bisect_left(documents.offsets, span.text_start, span.start)
        found.append(range(span.start, min(segment.start, own_start, span.start + _HEADING)))
    return found


def texts_of(documents: DocumentTokens, segments: Sequence[Segment]) -> list[str]:
    """Every segment's text."""
    return [documents.text_between(segment.start, segment.end) for segment in segments]
