"""Patterns that begin where a line begins, found in texts of some megabytes within milliseconds.

A regular expression would try every line. Here it is tried only in lines that have a colon and
begin with the first two bytes of one of its words; bytes are compared in all lines at once.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

_MARKS = b" \t#*>"
_MOST_MARKS = 256  # lines that begin with more are tried
_IS_MARK = np.zeros(256, np.bool_)
_IS_MARK[list(_MARKS)] = True
_LINE, _COLON = ord("\n"), ord(":")
_PIECE = 1 << 17
_WIDE_COLON = "："
# What `re` takes for the same letters, in addition to upper and lower case.
_ALIKE = {"i": "ıİ", "k": "\u212a", "s": "ſ"}


class Lines:
    """Where the lines of a text begin, with what, and which of them have colons.

    Attributes:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._bytes = text.encode("utf-8", "surrogatepass")
        data = np.frombuffer(self._bytes or b"\0", np.uint8)
        ends = _places(data, _LINE)
        self._starts = np.concatenate([[0], ends + 1])
        last = len(data) - 1
        first = np.minimum(self._starts, last)
        self._marked = np.flatnonzero(_IS_MARK[data[first]])
        for _ in range(_MOST_MARKS):
            if not len(self._marked):
                break
            first[self._marked] += 1
            self._marked = self._marked[first[self._marked] <= last]
            self._marked = self._marked[_IS_MARK[data[first[self._marked]]]]
        first, second = np.minimum(first, last), np.minimum(first + 1, last)
        self._pairs = data[first].astype(np.uint16) << 8 | data[second]
        colons = _places(data, _COLON)
        if _WIDE_COLON in text:
            wide = [found.start() for found in re.finditer(_WIDE_COLON.encode(), self._bytes)]
            colons = np.union1d(colons, np.array(wide))
        self._colons = np.zeros(len(self._starts), np.bool_)
        self._colons[np.searchsorted(ends, colons)] = True

    def find(self, pairs: NDArray[np.bool_] | None, *, colon: bool) -> Iterator[int]:
        """Where lines begin that have one of these pairs of bytes after marks, in characters.

        Args:
            pairs: Which pairs; None: any.
            colon: Only lines that have a colon.
        """
        numbers = np.flatnonzero(self._colons) if colon else np.arange(len(self._starts))
        if pairs is not None:
            fitting = pairs[self._pairs[numbers]]
            fitting |= np.isin(numbers, self._marked, assume_unique=True)
            numbers = numbers[fitting]
        byte, character = 0, 0
        for start in self._starts[numbers].tolist():
            if len(self._bytes) == len(self.text):
                character = start
            else:
                character += len(self._bytes[byte:start].decode("utf-8", "surrogatepass"))
            byte = start
            yield character


class LineStart:
    """A pattern that matches only at the beginning of a line, whatever its case."""

    def __init__(self, pattern: str, *, words: str = "", colon: bool = True) -> None:
        r"""Take the pattern.

        Args:
            pattern: A regular expression that matches no line break.
            words: With one of these it begins, after marks (`[ \t#*>]*`); separated by blanks,
                each of two characters or more. Empty: it may begin with anything.
            colon: Whether it has a colon.
        """
        self._pattern = re.compile(pattern, re.IGNORECASE)
        self._colon = colon
        self._pairs = _pairs(words.split()) if words else None

    def find(self, lines: Lines, start: int = 0) -> Iterator[re.Match[str]]:
        """Find all lines from a place on that begin with the pattern."""
        for place in lines.find(self._pairs, colon=self._colon):
            if place >= start and (found := self._pattern.match(lines.text, place)):
                yield found


def _places(data: NDArray[np.uint8], byte: int) -> NDArray[np.int64]:
    """Where a byte is, found in pieces that stay in the processor's cache."""
    starts = range(0, len(data), _PIECE)
    found = [np.flatnonzero(data[start : start + _PIECE] == byte) + start for start in starts]
    return np.concatenate(found)


def _pairs(words: Sequence[str]) -> NDArray[np.bool_]:
    """Which pairs of bytes words may begin with."""
    pairs = np.zeros(1 << 16, np.bool_)
    for word in words:
        for first, second in product(_cases(word[0]), _cases(word[1])):
            pairs[int.from_bytes((first + second).encode()[:2], "big")] = True
    return pairs


def _cases(letter: str) -> set[str]:
    return {letter, letter.lower(), letter.upper(), *_ALIKE.get(letter, "")}
