"""Where an answer repeats its documents word for word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finch_integrations.types import Document

# Shorter runs of words are found in any text about the subject.
MIN_WORDS = 4
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A run of words that stands in the answer and in a document.

    Attributes:
        start: First character in the answer.
        end: Behind its last character in the answer.
        document: Index of the document.
        source_start: First character in the document's text.
        source_end: Behind its last character there.
    """

    start: int
    end: int
    document: int
    source_start: int
    source_end: int


def find_quotes(answer: str, documents: Sequence[Document]) -> tuple[Quote, ...]:
    """Find the longest runs of at least `MIN_WORDS` words that answer and documents share.

    Case, punctuation and white space do not count. An answer of fewer words is a quote if it
    holds a number and stands in one document only. Runs do not overlap; of equal ones the first
    document has it.
    """
    words = _words(answer)
    size = min(MIN_WORDS, len(words))
    if not words or (size < MIN_WORDS and not any(c.isdigit() for c in answer)):
        return ()
    sought = {tuple(w for w, _, _ in words[n : n + size]) for n in range(len(words) - size + 1)}
    texts = [_words(document.text) for document in documents]
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, text in enumerate(texts):
        for at in range(len(text) - size + 1):
            run = tuple(word for word, _, _ in text[at : at + size])
            if run in sought:
                places.setdefault(run, []).append((number, at))
    if size < MIN_WORDS and any(len({n for n, _ in found}) > 1 for found in places.values()):
        return ()
    quotes = []
    position = 0
    while position <= len(words) - size:
        best, length = (-1, -1), 0
        opening = tuple(word for word, _, _ in words[position : position + size])
        for number, at in places.get(opening, ()):
            shared = _shared(words, position, texts[number], at)
            if shared > length:
                best, length = (number, at), shared
        if length:
            source = texts[best[0]]
            quotes.append(
                Quote(
                    start=words[position][1],
                    end=words[position + length - 1][2],
                    document=best[0],
                    source_start=source[best[1]][1],
                    source_end=source[best[1] + length - 1][2],
                )
            )
        position += length or 1
    return tuple(quotes)


def _words(text: str) -> list[tuple[str, int, int]]:
    """Words in lower case with their places."""
    return [(match[0].lower(), match.start(), match.end()) for match in _WORD.finditer(text)]


def _shared(
    words: list[tuple[str, int, int]], start: int, text: list[tuple[str, int, int]], at: int
) -> int:
    """How many words two texts share from these positions on."""
    length = 0
    while (
        start + length < len(words)
        and at + length < len(text)
        and words[start + length][0] == text[at + length][0]
    ):
        length += 1
    return length
