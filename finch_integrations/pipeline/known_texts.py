"""Find known texts inside long ones: as they are, escaped, with other white space, or cut off."""

import html
import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from finch_integrations.pipeline.text_samples import SHORTEST_PIECE, Hit, Needle, Needles

# Shorter texts, and shorter pieces of cut off ones, are found by chance if nothing expects them.
_FEW_WORDS, _UNEXPECTED_PIECE = 24, 256
_SPACE = 0x20
_BLANKS = bytes(range(_SPACE + 1))
# Every escape begins with one of these.
_ESCAPES = b"\\", b"&"
# What is around a short text that stands by itself.
_BEFORE, _AFTER = "\n>\"'`:|*#-•.)]}([{", "\n<\"'`|)]}"


@dataclass(frozen=True, slots=True)
class Match:
    """Where a known text is, `text[start:end]`.

    Attributes:
        start: Its first character.
        end: After its last character.
        number: Which of the known texts it is.
        whole: Whether all of it is there.
        escaped: Whether it is written with escapes.
    """

    start: int
    end: int
    number: int
    whole: bool
    escaped: bool


class KnownText:
    """A text to look for, prepared when it is first looked for.

    Attributes:
        text: Without white space around it.
    """

    __slots__ = ("_as_it_is", "_escaped", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._as_it_is: _Spelling | None = None
        self._escaped: list[_Spelling] | None = None

    @property
    def nbytes(self) -> int:
        """About the size in memory, once prepared."""
        return 4 * len(self.text) + 6000

    def spellings(self, *, escaped: bool) -> "list[_Spelling]":
        """The text as it is, and if wanted as JSON, Python and XML write it."""
        if self._as_it_is is None:
            self._as_it_is = _Spelling(self.text)
        if not escaped:
            return [self._as_it_is]
        if self._escaped is None:
            others = dict.fromkeys(
                (
                    json.dumps(self.text)[1:-1],
                    json.dumps(self.text, ensure_ascii=False)[1:-1],
                    repr(self.text)[1:-1],
                    html.escape(self.text, quote=False),
                    html.escape(self.text),
                )
            )
            others.pop(self.text, None)
            self._escaped = [_Spelling(other) for other in others]
        return [self._as_it_is, *self._escaped]


class _Spelling:
    """One way to write a text, with and without white space."""

    __slots__ = ("_squeezed", "needle")

    def __init__(self, spelling: str) -> None:
        self.needle = Needle(_encode(spelling))
        self._squeezed: Needle | None = None

    @property
    def squeezed(self) -> Needle:
        """Without white space, prepared when it is first looked for."""
        if self._squeezed is None:
            self._squeezed = Needle(self.needle.bytes.translate(None, _BLANKS))
        return self._squeezed


class KnownTexts:
    """Known texts, made ready to be looked for together."""

    def __init__(self, known: Sequence[KnownText], *, expected: Sequence[bool]) -> None:
        """Take the texts.

        Args:
            known: What to look for.
            expected: Which of them are likely there. They are also found if only 64 bytes of their
                start or end are there (others: 256), if they have only a few words and stand by
                themselves, and with other white space.
        """
        self._known, self._expected = known, expected
        self._ready: dict[bool, _Ready] = {}

    def find(self, text: str, *, squeezed: bool = False) -> list[Match]:
        """Find the texts; matches do not overlap, longer ones win, whole ones before cut off ones.

        Args:
            text: Where to look.
            squeezed: Look for all of them with other white space, which takes longer.
        """
        if not self._known:
            return []
        buffer = _encode(text)
        # Without these characters no text is there that has escapes.
        escaped = any(character in buffer for character in _ESCAPES)
        if escaped not in self._ready:
            self._ready[escaped] = _Ready(self._known, escaped=escaped)
        ready = self._ready[escaped]
        found = [*ready.needles.search(buffer)]
        complete = {ready.numbers[index] for _, _, index, whole in found if whole}
        missed = [
            index
            for index, number in enumerate(ready.numbers)
            if number not in complete and (squeezed or self._expected[number])
        ]
        if missed:
            found += ready.search_squeezed(buffer, missed)
        if len(buffer) != len(text):
            # A piece that is cut off may end inside a character.
            inside = _Marked((np.frombuffer(buffer, np.uint8) & 0xC0) == 0x80)
            found = [
                (start - inside.count(start), end - inside.count(end), index, whole)
                for start, end, index, whole in found
            ]
        matches = [
            Match(start, end, ready.numbers[index], whole, ready.escaped[index])
            for start, end, index, whole in found
        ]
        return _apart(text, matches, self._expected)


class _Ready:
    """All spellings of known texts, ready to be looked for.

    Attributes:
        needles: The spellings.
        numbers: For every one, the number of its text.
        escaped: For every one, whether it has escapes.
    """

    def __init__(self, known: Sequence[KnownText], *, escaped: bool) -> None:
        self._spellings: list[_Spelling] = []
        self.escaped: list[bool] = []
        self.numbers: list[int] = []
        for number, one in enumerate(known):
            spellings = one.spellings(escaped=escaped)
            self._spellings += spellings
            self.escaped += [False, *[True] * (len(spellings) - 1)]
            self.numbers += [number] * len(spellings)
        self.needles = Needles([one.needle for one in self._spellings])
        self._squeezed: tuple[list[int], Needles] | None = None

    def search_squeezed(self, buffer: bytes, wanted: list[int]) -> list[Hit]:
        """Find some spellings whatever their white space is."""
        if self._squeezed is None or self._squeezed[0] != wanted:
            needles = Needles([self._spellings[index].squeezed for index in wanted])
            self._squeezed = wanted, needles
        hits = [*self._squeezed[1].search(buffer.translate(None, _BLANKS))]
        if not hits:
            return []
        black = _Marked(np.frombuffer(buffer, np.uint8) > _SPACE)
        return [
            (black.place(start), black.place(end - 1) + 1, wanted[index], whole)
            for start, end, index, whole in hits
        ]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_BLOCK = 4096


class _Marked:
    """Counts the marks before a place, and finds the place of a mark, in millions of places."""

    def __init__(self, marks: NDArray[np.bool_]) -> None:
        self._marks = marks
        counts = (
            int(np.count_nonzero(marks[start : start + _BLOCK]))
            for start in range(0, len(marks), _BLOCK)
        )
        self._before = [0, *accumulate(counts)]

    def count(self, place: int) -> int:
        """How many places before this one are marked."""
        block = place // _BLOCK
        return self._before[block] + int(np.count_nonzero(self._marks[block * _BLOCK : place]))

    def place(self, number: int) -> int:
        """Where the mark with this number is."""
        block = bisect_right(self._before, number) - 1
        start = block * _BLOCK
        inside = np.flatnonzero(self._marks[start : start + _BLOCK])
        return start + int(inside[number - self._before[block]])


def _apart(text: str, found: Sequence[Match], expected: Sequence[bool]) -> list[Match]:
    """Keep matches that are certain and do not overlap better ones."""
    taken = _Apart()
    short: list[Match] = []
    for match in sorted(found, key=lambda one: (not one.whole, one.start - one.end, one.start)):
        length = match.end - match.start
        enough = _FEW_WORDS if match.whole else _UNEXPECTED_PIECE
        if length < enough and not expected[match.number]:
            continue
        if length >= SHORTEST_PIECE:
            taken.add(match)
        else:
            short.append(match)
    # A short text may stand next to another one, which is only then known.
    while standing := [match for match in short if _stands_alone(text, match, taken)]:
        for match in standing:
            taken.add(match)
        short = [match for match in short if match not in standing]
    return taken.matches


def _stands_alone(text: str, match: Match, taken: "_Apart") -> bool:
    before = text[max(0, match.start - 100) : match.start]
    after = text[match.end : match.end + 100]
    start = match.start - len(before) + len(before.rstrip(" \t"))
    end = match.end + len(after) - len(after.lstrip(" \t"))
    starts = start == 0 or text[start - 1] in _BEFORE or taken.ends_at(start)
    ends = end == len(text) or text[end] in _AFTER or taken.starts_at(end)
    return starts and ends


class _Apart:
    """Matches in order that do not overlap."""

    def __init__(self) -> None:
        self.matches: list[Match] = []
        self._starts: list[int] = []

    def add(self, match: Match) -> None:
        """Add a match unless it overlaps one that is there."""
        after = bisect_left(self._starts, match.start)
        before_ends = after == 0 or self.matches[after - 1].end <= match.start
        if before_ends and (after == len(self.matches) or match.end <= self._starts[after]):
            self.matches.insert(after, match)
            self._starts.insert(after, match.start)

    def starts_at(self, place: int) -> bool:
        after = bisect_left(self._starts, place)
        return after < len(self.matches) and self._starts[after] == place

    def ends_at(self, place: int) -> bool:
        after = bisect_left(self._starts, place)
        return after > 0 and self.matches[after - 1].end == place
