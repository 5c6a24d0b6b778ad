"""Find known texts inside long ones: as they are, escaped, with other white space, or cut off.

A long text is sampled: of every 32 bytes the first 16. Of a known text all 16 bytes that could be
such a sample are known, at its start and at its end. So a text of some megabytes is searched for
thousands of others in a few milliseconds, whether they are in it or not.
"""

import html
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIDE, _SAMPLE = 32, 16
# So long a text contains a sample, wherever it begins.
_SAMPLED = _STRIDE + _SAMPLE - 1
# Shorter texts, and shorter pieces of cut off ones, are found by chance.
_SHORTEST, _SHORTEST_PIECE = 8, 64
_FEW_WORDS, _UNEXPECTED_PIECE = 24, 256
# Samples that this many texts share say nothing; the texts are then searched one by one.
_SHARED = 16
_SPACE = 0x20
_BLANKS = bytes(range(_SPACE + 1))
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_BITS = np.uint64(64 - 20)
# What is around a short text that stands by itself.
_BEFORE, _AFTER = "\n>\"'`:|*#-•.)]}([{", "\n<\"'`|)]}"

Keys = NDArray[np.uint64]


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

    __slots__ = ("_spellings", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._spellings: list[_Spelling] | None = None

    @property
    def nbytes(self) -> int:
        """About the size in memory, once prepared."""
        return 4 * len(self.text) + 6000

    @property
    def spellings(self) -> "list[_Spelling]":
        """The text as it is, then as JSON, Python and XML write it."""
        if self._spellings is None:
            self._spellings = [_Spelling(spelling) for spelling in _spell(self.text)]
        return self._spellings


class _Spelling:
    """One way to write a text, as bytes, and its samples."""

    __slots__ = ("_bare", "bytes", "keys", "offsets")

    def __init__(self, spelling: bytes) -> None:
        self._bare: _Spelling | None = None
        self.bytes = spelling
        self.keys, self.offsets = _samples_of(spelling)

    def without_blanks(self) -> "_Spelling":
        """The same without white space, prepared when it is first looked for."""
        if self._bare is None:
            self._bare = _Spelling(self.bytes.translate(None, _BLANKS))
        return self._bare


def find_known(
    text: str, known: Sequence[KnownText], *, expected: Sequence[bool], squeezed: bool = False
) -> list[Match]:
    """Find known texts; matches do not overlap, longer ones win, whole ones before cut off ones.

    Args:
        text: Where to look.
        known: What to look for.
        expected: Which of them are likely there. They are also found if only 64 bytes of their
            start or end are there (others: 256), if they have only a few words and stand by
            themselves, and with other white space.
        squeezed: Look for all of them with other white space, which takes longer.
    """
    buffer = _encode(text)
    needles = [
        (number, index > 0, spelling)
        for number, one in enumerate(known)
        for index, spelling in enumerate(one.spellings)
    ]
    found = _Found(text, buffer)
    for start, end, (number, escaped, _), whole in _search(buffer, needles):
        found.add(start, end, number, escaped, whole)
    missed = [
        (number, escaped, spelling)
        for number, escaped, spelling in needles
        if (squeezed or expected[number]) and not found.has(number)
    ]
    if missed:
        data = np.frombuffer(buffer, dtype=np.uint8)
        places = np.flatnonzero(data > _SPACE)
        bare = [(number, escaped, one.without_blanks()) for number, escaped, one in missed]
        for start, end, (number, escaped, _), whole in _search(data[places].tobytes(), bare):
            found.add(int(places[start]), int(places[end - 1]) + 1, number, escaped, whole)
    return found.matches(expected)


def _spell(text: str) -> Iterator[bytes]:
    spellings = dict.fromkeys(
        (
            text,
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            repr(text)[1:-1],
            html.escape(text, quote=False),
            html.escape(text),
        )
    )
    return map(_encode, spellings)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _keys(data: NDArray[np.uint8]) -> Keys:
    """One number for the first half of every stride of bytes."""
    samples = np.ascontiguousarray(data.reshape(-1, _STRIDE)[:, :_SAMPLE]).view(np.uint64)
    halves = samples * _FACTORS
    keys: Keys = halves[:, 0] ^ (halves[:, 1] + (halves[:, 1] >> np.uint64(29)))
    return keys


def _samples_of(spelling: bytes) -> tuple[Keys, NDArray[np.int64]]:
    """Every sample that starts in the first or the last 32 bytes; none where samples repeat."""
    last = len(spelling) - _SAMPLED
    keys, offsets = [], []
    for first in sorted({0, max(0, last // 2), max(0, last)}) if last >= 0 else ():
        piece = np.frombuffer(spelling, np.uint8)[first : first + _SAMPLED]
        strides = np.zeros((_STRIDE, _STRIDE), np.uint8)
        strides[:, :_SAMPLE] = np.lib.stride_tricks.sliding_window_view(piece, _SAMPLE)
        found = _keys(strides)
        if len(np.unique(found)) == _STRIDE:
            keys.append(found)
            offsets.append(np.arange(first, first + _STRIDE))
    if not keys:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(keys), np.concatenate(offsets)


_Needle = tuple[int, bool, _Spelling]


def _search(buffer: bytes, needles: Sequence[_Needle]) -> Iterator[tuple[int, int, _Needle, bool]]:
    """Start, end, needle, and whether it is whole; in bytes."""
    samples = _Samples(buffer, needles)
    at, covered = 0, 0
    while at < len(samples.positions):
        position, candidates = samples.positions[at], samples.candidates(at)
        for index, offset in candidates:
            spelling, start = needles[index][2].bytes, position - offset
            if start >= 0 and buffer.startswith(spelling, start):
                covered = max(covered, start + len(spelling))
                yield start, start + len(spelling), needles[index], True
        for index, offset in candidates if position >= covered else ():
            piece = _common_piece(buffer, position, needles[index][2].bytes, offset)
            if piece is not None:
                yield *piece, needles[index], False
        at = bisect_left(samples.positions, covered, at + 1)
    for index, needle in enumerate(needles):
        if index in samples.searched or len(needle[2].bytes) < _SHORTEST:
            continue
        position = buffer.find(needle[2].bytes)
        while position >= 0:
            end = position + len(needle[2].bytes)
            yield position, end, needle, True
            position = buffer.find(needle[2].bytes, end)


class _Samples:
    """Where a buffer has samples of needles.

    Attributes:
        positions: Of the samples in the buffer, ascending.
        searched: The needles that are found this way if they are there.
    """

    def __init__(self, buffer: bytes, needles: Sequence[_Needle]) -> None:
        self.positions: list[int] = []
        sampled = [index for index, needle in enumerate(needles) if len(needle[2].keys)]
        self.searched = set(sampled)
        if not sampled or len(buffer) < _STRIDE:
            return
        keys = np.concatenate([needles[index][2].keys for index in sampled])
        offsets = np.concatenate([needles[index][2].offsets for index in sampled])
        owners = np.repeat(sampled, [len(needles[index][2].keys) for index in sampled])
        # The last sample may end where the buffer ends.
        sampled_to = (len(buffer) + _SAMPLE) // _STRIDE * _STRIDE
        samples = _keys(np.frombuffer(buffer[:sampled_to].ljust(sampled_to, b"\0"), np.uint8))
        hits = np.flatnonzero(_table(keys)[samples >> _BITS])
        near = np.flatnonzero(_table(samples[hits])[keys >> _BITS])
        near = near[np.argsort(keys[near], kind="stable")]
        first = np.searchsorted(keys[near], samples[hits], "left")
        stop = np.searchsorted(keys[near], samples[hits], "right")
        self._leave_out(sampled, owners, near, first, stop)
        few = np.flatnonzero((first < stop) & (stop - first <= _SHARED))
        self.positions = (hits[few] * _STRIDE).tolist()
        self._first, self._stop = first[few].tolist(), stop[few].tolist()
        self._owners, self._offsets = owners[near], offsets[near]

    def candidates(self, at: int) -> list[tuple[int, int]]:
        """Which needles the sample is in, and at which offset."""
        places = slice(self._first[at], self._stop[at])
        return [*zip(self._owners[places].tolist(), self._offsets[places].tolist(), strict=True)]

    def _leave_out(
        self,
        sampled: list[int],
        owners: NDArray[np.int64],
        near: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> None:
        """Leave out needles all of whose windows have a sample that too many share."""
        many = stop - first > _SHARED
        common = {*zip(first[many].tolist(), stop[many].tolist(), strict=True)}
        # A window has as many keys as a stride has bytes.
        windows = {place // _STRIDE for a, b in common for place in near[a:b].tolist()}
        lost = Counter(owners[[window * _STRIDE for window in windows]].tolist() if windows else ())
        if lost:
            count = Counter(owners[::_STRIDE].tolist())
            self.searched = {index for index in sampled if lost[index] < count[index]}


def _table(keys: Keys) -> NDArray[np.bool_]:
    """Whether a key with these first bits may be among the keys."""
    table = np.zeros(1 << 20, dtype=np.bool_)
    table[keys >> _BITS] = True
    return table


def _common_piece(
    buffer: bytes, position: int, spelling: bytes, offset: int
) -> tuple[int, int] | None:
    """Start and end of the spelling's start or end in the buffer around a sample."""
    goes_on, went_on = slice(_SAMPLE, 2 * _SAMPLE), slice(-_SAMPLE, None)
    after = buffer[position : position + 2 * _SAMPLE][goes_on]
    before = buffer[max(0, position - _SAMPLE) : position]
    if not (
        after == spelling[offset : offset + 2 * _SAMPLE][goes_on]
        or before == spelling[:offset][went_on]
    ):
        return None
    length = min(position, offset)
    ends = buffer[position - length : position][::-1], spelling[offset - length : offset][::-1]
    first = position - _common_length(*ends)
    stop = position + _common_length(
        buffer[position : position + len(spelling) - offset], spelling[offset:]
    )
    start = position - offset
    reaches_end = first == start or stop == start + len(spelling)
    return (first, stop) if reaches_end and stop - first >= _SHORTEST_PIECE else None


def _common_length(one: bytes, other: bytes) -> int:
    """How many bytes at the start are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class _Found:
    """Collects what was found, and turns bytes into characters."""

    def __init__(self, text: str, buffer: bytes) -> None:
        self._text = text
        self._found: list[tuple[int, int, int, bool, bool]] = []
        self._whole: set[int] = set()
        self._inside = None
        if len(buffer) != len(text):
            data = np.frombuffer(buffer, dtype=np.uint8)
            self._inside = np.flatnonzero((data & 0xC0) == 0x80)

    def add(self, start: int, end: int, number: int, escaped: bool, whole: bool) -> None:
        self._found.append((self._character(start), self._character(end), number, escaped, whole))
        if whole:
            self._whole.add(number)

    def has(self, number: int) -> bool:
        return number in self._whole

    def matches(self, expected: Sequence[bool]) -> list[Match]:
        taken = _Apart()
        short: list[Match] = []
        best = sorted(self._found, key=lambda found: (not found[4], found[0] - found[1], found[0]))
        for start, end, number, escaped, whole in best:
            match = Match(start, end, number, whole, escaped)
            enough = _FEW_WORDS if whole else _UNEXPECTED_PIECE
            if not expected[number] and end - start < enough:
                continue
            if end - start >= _SHORTEST_PIECE:
                taken.add(match)
            else:
                short.append(match)
        # A short text may stand next to another one, which is only then known.
        while standing := [match for match in short if self._stands_alone(match, taken)]:
            for match in standing:
                taken.add(match)
            short = [match for match in short if match not in standing]
        return taken.matches

    def _stands_alone(self, match: Match, taken: "_Apart") -> bool:
        before = self._text[max(0, match.start - 100) : match.start]
        after = self._text[match.end : match.end + 100]
        start = match.start - len(before) + len(before.rstrip(" \t"))
        end = match.end + len(after) - len(after.lstrip(" \t"))
        starts = start == 0 or self._text[start - 1] in _BEFORE or taken.ends_at(start)
        ends = end == len(self._text) or self._text[end] in _AFTER or taken.starts_at(end)
        return starts and ends

    def _character(self, position: int) -> int:
        if self._inside is None:
            return position
        # A piece that is cut off may end inside a character.
        return position - int(np.searchsorted(self._inside, position))


class _Apart:
    """Matches in order that do not overlap."""

    def __init__(self) -> None:
        self.matches: list[Match] = []

    def add(self, match: Match) -> None:
        """Add a match unless it overlaps one that is there."""
        after = self._first_from(match.start)
        before_ends = after == 0 or self.matches[after - 1].end <= match.start
        if before_ends and (after == len(self.matches) or match.end <= self.matches[after].start):
            self.matches.insert(after, match)

    def starts_at(self, place: int) -> bool:
        after = self._first_from(place)
        return after < len(self.matches) and self.matches[after].start == place

    def ends_at(self, place: int) -> bool:
        after = self._first_from(place)
        return after > 0 and self.matches[after - 1].end == place

    def _first_from(self, place: int) -> int:
        return bisect_left(self.matches, place, key=lambda match: match.start)
