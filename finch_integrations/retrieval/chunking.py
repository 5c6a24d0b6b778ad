"""Cutting documents into chunks at headings and sentence ends."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finch_integrations.sentences import line_ends, sentence_ends

_SPACE = re.compile(r"\s+")
# A fenced block is skipped as a whole: its lines with '#' are code.
_HEADING = re.compile(
    r"^(?P<fence>```|~~~).*?^(?P=fence)|^#{1,6}[ \t]+(?P<heading>\S.*?)[ \t]*#*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
# Shorter sections are joined with the next one.
_SHORTEST = 1 / 4


@dataclass(frozen=True, slots=True)
class Heading:
    """A Markdown heading that starts at the character `start`."""

    start: int
    text: str


def find_headings(text: str) -> list[Heading]:
    """Find a text's Markdown headings (`# …`), in order."""
    return [
        Heading(match.start(), match["heading"].splitlines()[0])
        for match in _HEADING.finditer(text)
        if match["heading"]
    ]


def heading_at(headings: Sequence[Heading], position: int) -> str | None:
    """The heading that a character is under; None before the first one."""
    number = bisect_right(headings, position, key=lambda heading: heading.start)
    return headings[number - 1].text if number else None


def split_text(text: str, chunk_size: int) -> list[tuple[int, int]]:
    """Cut a text into chunks of at most `chunk_size` characters.

    Chunks end at headings, else at a sentence's end, else at a line break, else at white space;
    a longer run without any is cut anywhere. Those of one section are about equally long. Together
    they contain every character except white space.

    Args:
        text: A document's text.
        chunk_size: At least 1.

    Returns:
        The chunks' first characters and ends, [start, end), without outer white space.
    """
    sentences, lines = sentence_ends(text), line_ends(text)
    chunks: list[tuple[int, int]] = []
    for start, end in _blocks(text, chunk_size):
        while end - start > chunk_size:
            cut = _cut(text, start, end, chunk_size, (sentences, lines))
            chunks += _trimmed(text, start, cut)
            start = cut
        chunks += _trimmed(text, start, end)
    return chunks


def _blocks(text: str, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Sections; short ones are joined."""
    start = 0
    for heading in find_headings(text):
        if heading.start - start >= chunk_size * _SHORTEST:
            yield start, heading.start
            start = heading.start
    yield start, len(text)


def _cut(text: str, start: int, end: int, chunk_size: int, borders: Sequence[Sequence[int]]) -> int:
    """The best end of the chunk that begins at `start`: a border near an even share of the rest."""
    share = (end - start) / -(-(end - start) // chunk_size)
    goal = start + round(share)
    first, last = start + max(1, round(share / 2)), start + chunk_size
    for kind in borders:
        if near := kind[bisect_left(kind, first) : bisect_right(kind, last)]:
            return min(near, key=lambda border: abs(border - goal))
    # Found only where they are needed: a long text has more spaces than fit the memory.
    spaces = [match.end() for match in _SPACE.finditer(text, first - 1, last)]
    return min(spaces, key=lambda border: abs(border - goal), default=goal)


def _trimmed(text: str, start: int, end: int) -> list[tuple[int, int]]:
    piece = text[start:end]
    if not (inner := piece.strip()):
        return []
    start += len(piece) - len(piece.lstrip())
    return [(start, start + len(inner))]
