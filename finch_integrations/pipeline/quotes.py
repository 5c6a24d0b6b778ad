"""Where an answer repeats its documents word for word."""

from collections.abc import Sequence
from dataclasses import dataclass

from finch_integrations.types import Document
from finch_integrations.words import Word, word_spans

# Shorter runs of words are found in any text about the subject. Where words cannot be told apart,
# as many characters as make that many words: 8 of Chinese or Japanese, 16 of Thai, Lao, Myanmar or
# Khmer.
MIN_WORDS = 4
# A text that repeats a few words endlessly has as many runs as words; the first ones do.
_MOST_PLACES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A run of words that is in the answer and in a document.

    Attributes:
        start: First character in the answer.
        end: After its last character in the answer.
        document: Index of the document.
        source_start: First character in the document's text.
        source_end: After its last character there.
    """

    start: int
    end: int
    document: int
    source_start: int
    source_end: int


def find_quotes(answer: str, documents: Sequence[Document]) -> tuple[Quote, ...]:
    """Find the longest runs of at least `MIN_WORDS` words that answer and documents share.

    Case, punctuation and white space do not count. An answer of fewer words is a quote if it
    holds a number and is in one document only. Runs do not overlap; of equal runs, that of the
    first document is taken.
    """
    words = list(word_spans(answer))
    whole = sum(word.size for word in words) < MIN_WORDS
    if not words or (whole and not any(c.isdigit() for c in answer)):
        return ()
    ends = [len(words)] if whole else _run_ends(words)
    openings = [_texts(words[start:end]) for start, end in enumerate(ends)]
    texts = [list(word_spans(document.text)) for document in documents]
    places = _find(set(openings), texts, len(words) if whole else None)
    if whole and len({number for found in places.values() for number, _ in found}) > 1:
        return ()
    quotes = []
    position = 0
    while position < len(openings):
        best, length = (-1, -1), 0
        for number, at in places.get(openings[position], ())[:_MOST_PLACES]:
            shared = _shared(words, position, texts[number], at)
            if shared > length:
                best, length = (number, at), shared
        if length:
            source = texts[best[0]]
            quotes.append(
                Quote(
                    start=words[position].start,
                    end=words[position + length - 1].end,
                    document=best[0],
                    source_start=source[best[1]].start,
                    source_end=source[best[1] + length - 1].end,
                )
            )
        position += length or 1
    return tuple(quotes)


def _run_ends(words: Sequence[Word]) -> list[int]:
    """Where the shortest run of `MIN_WORDS` from every word on ends; none near the text's end."""
    ends: list[int] = []
    end, size = 0, 0.0
    for word in words:
        while size < MIN_WORDS and end < len(words):
            size += words[end].size
            end += 1
        if size < MIN_WORDS:
            break
        ends.append(end)
        size -= word.size
    return ends


def _find(
    openings: set[tuple[str, ...]], texts: Sequence[Sequence[Word]], length: int | None
) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Where runs are: (number of the text, first word). All have `length` words, or the least."""
    first_words = {opening[0] for opening in openings}
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, text in enumerate(texts):
        ends = range(length, len(text) + 1) if length else _run_ends(text)
        for start, end in enumerate(ends):
            if text[start].text in first_words:
                run = _texts(text[start:end])
                if run in openings:
                    places.setdefault(run, []).append((number, start))
    return places


def _texts(words: Sequence[Word]) -> tuple[str, ...]:
    return tuple([word.text for word in words])


def _shared(words: Sequence[Word], start: int, text: Sequence[Word], at: int) -> int:
    """How many words two texts share from these positions on."""
    length = 0
    while (
        start + length < len(words)
        and at + length < len(text)
        and words[start + length].text == text[at + length].text
    ):
        length += 1
    return length
