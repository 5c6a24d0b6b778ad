"""Marks like [2] after what an answer quotes, in a text that is there or still being written."""

from collections.abc import Sequence

from finch_integrations.pipeline.quotes import MIN_WORDS, Quote, find_quotes
from finch_integrations.types import Document
from finch_integrations.words import word_spans

_ENDS = (".", "!", "?", "\n", "。", "！", "？")


def with_marks(text: str, quotes: Sequence[Quote]) -> tuple[str, list[Quote]]:
    """Put [n] after every quote, n being the document's number; quotes move with the text."""
    parts, position, moved, shift = [], 0, [], 0
    for quote in quotes:
        mark = f" [{quote.document + 1}]"
        parts += [text[position : quote.end], mark]
        moved.append(
            Quote(
                start=quote.start + shift,
                end=quote.end + shift,
                document=quote.document,
                source_start=quote.source_start,
                source_end=quote.source_end,
            )
        )
        position, shift = quote.end, shift + len(mark)
    return "".join([*parts, text[position:]]), moved


class MarkedText:
    """Puts marks into a text that comes piece by piece: the same as `with_marks` in the whole.

    Searching documents takes time, so it is done at the ends of sentences only; what the next words
    could change is held back.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        """Start with no text.

        Args:
            documents: What is quoted.
        """
        self._documents = documents
        self._text = ""
        self._given = 0  # characters that were handed out

    def push(self, text: str) -> str:
        """Add a piece; return what can be handed out now."""
        self._text += text
        if not text.rstrip(" ").endswith(_ENDS):
            return ""
        quotes = find_quotes(self._text, self._documents)
        return self._give(quotes, self._settled(quotes))

    def finish(self) -> str:
        """Return what is left, once the text is complete."""
        return self._give(find_quotes(self._text, self._documents), len(self._text))

    def _settled(self, quotes: Sequence[Quote]) -> int:
        """Characters before which no further word changes a quote."""
        words = list(word_spans(self._text))
        if not words:
            return 0
        size, first = 0.0, len(words)
        while first > 0 and size < MIN_WORDS:
            first -= 1
            size += words[first].size
        settled = words[first].start if first else 0
        # The last word may be incomplete, and with it the quote that it is in.
        done = [quote for quote in quotes if quote.end < words[-1].start]
        if done:
            settled = max(settled, done[-1].end)
        if len(done) < len(quotes):
            settled = min(settled, quotes[len(done)].start)
        return settled

    def _give(self, quotes: Sequence[Quote], end: int) -> str:
        if end <= self._given:
            return ""
        parts, position = [], self._given
        for quote in quotes:
            # The mark of a quote that ends where the last piece ended came with it.
            if position < quote.end <= end:
                parts += [self._text[position : quote.end], f" [{quote.document + 1}]"]
                position = quote.end
        self._given = end
        return "".join([*parts, self._text[position:end]])
