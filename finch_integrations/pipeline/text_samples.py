"""Find byte strings in long ones by samples, thousands at a time.

A long string is sampled: of every 32 bytes the first 16. Of a string to look for all 16 bytes that
could be such a sample are known, at its start, in its middle and at its end. So some megabytes are
searched for thousands of strings in a few milliseconds, whether they are there or not.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_STRIDE, _SAMPLE = 32, 16
# So long a string contains a sample, wherever it begins.
_SAMPLED = _STRIDE + _SAMPLE - 1
# Shorter strings, and shorter pieces of cut off ones, are found by chance.
_SHORTEST, SHORTEST_PIECE = 8, 64
# Samples that this many strings share say nothing; the strings are then searched one by one.
_SHARED = 16
_PIECE = 4096
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_BITS = np.uint64(64 - 20)

Keys = NDArray[np.uint64]
Hit = tuple[int, int, int, bool]

_NO_SAMPLES = np.empty(0, np.uint64), np.empty(0, np.int64)


class Needle:
    """A byte string to look for, and its samples, made when it is first looked for."""

    __slots__ = ("bytes", "samples")

    def __init__(self, string: bytes) -> None:
        self.bytes = string
        self.samples: tuple[Keys, NDArray[np.int64]] | None = None


class Needles:
    """Byte strings, made ready to be looked for together."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        _sample([needle for needle in needles if needle.samples is None])
        samples = [needle.samples or _NO_SAMPLES for needle in needles]
        self._strings = [needle.bytes for needle in needles]
        self._counts = [len(keys) for keys, _ in samples]
        self._keys: Keys = np.concatenate([keys for keys, _ in (_NO_SAMPLES, *samples)])
        self._offsets = np.concatenate([offsets for _, offsets in (_NO_SAMPLES, *samples)])
        self._owners = np.repeat(np.arange(len(needles)), self._counts)
        self._slots = self._keys >> _BITS
        self._table = _table(self._slots)

    def search(self, buffer: bytes) -> Iterator[Hit]:
        """Find the strings, whole ones and pieces that reach a string's start or end.

        Returns:
            Start, end, number of the string, and whether it is whole.
        """
        found = _Samples(buffer, self._keys, self._slots, self._table)
        owners, offsets = self._owners[found.near].tolist(), self._offsets[found.near].tolist()
        at, covered = 0, 0
        while at < len(found.positions):
            position, places = found.positions[at], range(found.first[at], found.stop[at])
            for place in places:
                string, start = self._strings[owners[place]], position - offsets[place]
                if start >= 0 and buffer.startswith(string, start):
                    covered = max(covered, start + len(string))
                    yield start, start + len(string), owners[place], True
            for place in places if position >= covered else ():
                string = self._strings[owners[place]]
                piece = _common_piece(buffer, position, string, offsets[place])
                if piece is not None:
                    yield *piece, owners[place], False
            at = bisect_left(found.positions, covered, at + 1)
        for number in self._unsampled(found.common):
            string = self._strings[number]
            start = buffer.find(string)
            while start >= 0:
                yield start, start + len(string), number, True
                start = buffer.find(string, start + len(string))

    def _unsampled(self, common: Iterable[int]) -> Iterator[int]:
        """Strings without samples, or all of whose windows have one that too many share."""
        # A window has as many samples as a stride has bytes.
        windows = {place // _STRIDE for place in common}
        lost = Counter(self._owners[[window * _STRIDE for window in windows]].tolist())
        for number, (string, count) in enumerate(zip(self._strings, self._counts, strict=True)):
            if lost[number] * _STRIDE >= count and len(string) >= _SHORTEST:
                yield number


class _Samples:
    """Where a buffer has samples of strings.

    Attributes:
        positions: Of the samples in the buffer, ascending.
        first: For every position, where its places in `near` begin.
        stop: And where they end.
        near: Places in the strings' samples.
        common: Places of samples that too many strings share; they have no positions.
    """

    def __init__(self, buffer: bytes, keys: Keys, slots: Keys, table: NDArray[np.bool_]) -> None:
        # The last sample may end where the buffer ends.
        end = (len(buffer) + _SAMPLE) // _STRIDE * _STRIDE
        if end > len(buffer):
            buffer = buffer.ljust(end, b"\0")
        strides = np.frombuffer(buffer, np.uint8, count=end).reshape(-1, _STRIDE)
        hits, sought = _hits(strides, table)
        near = np.flatnonzero(_table(sought >> _BITS)[slots])
        self.near = near = near[np.argsort(keys[near], kind="stable")]
        first = np.searchsorted(keys[near], sought, "left")
        stop = np.searchsorted(keys[near], sought, "right")
        few = np.flatnonzero((first < stop) & (stop - first <= _SHARED))
        self.positions: list[int] = (hits[few] * _STRIDE).tolist()
        self.first: list[int] = first[few].tolist()
        self.stop: list[int] = stop[few].tolist()
        many = stop - first > _SHARED
        shared = {*zip(first[many].tolist(), stop[many].tolist(), strict=True)}
        self.common = [place for start, end in shared for place in near[start:end].tolist()]


def _keys(strides: NDArray[np.uint8]) -> Keys:
    """One number for the first half of every stride of bytes."""
    samples = np.ascontiguousarray(strides[..., :_SAMPLE]).view(np.uint64)
    halves = samples * _FACTORS
    keys: Keys = halves[..., 0] ^ (halves[..., 1] + (halves[..., 1] >> np.uint64(29)))
    return keys


def _hits(strides: NDArray[np.uint8], table: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Keys]:
    """Which strides have keys in slots of the table, and the keys."""
    numbers, keys = [_NO_SAMPLES[1]], [_NO_SAMPLES[0]]
    # In pieces that stay in the processor's cache.
    for start in range(0, len(strides), _PIECE):
        found = _keys(strides[start : start + _PIECE])
        hits = np.flatnonzero(table[found >> _BITS])
        numbers.append(hits + start)
        keys.append(found[hits])
    return np.concatenate(numbers), np.concatenate(keys)


def _table(slots: Keys) -> NDArray[np.bool_]:
    """Which slots have a key."""
    table = np.zeros(1 << 20, dtype=np.bool_)
    table[slots] = True
    return table


def _sample(needles: Sequence[Needle]) -> None:
    """Give strings their samples: those of windows at the start, in the middle and at the end.

    A window has a sample at every place where a stride may begin; none if samples repeat.
    """
    windows: list[bytes] = []
    starts: list[int] = []
    ends = [0]
    for needle in needles:
        last = len(needle.bytes) - _SAMPLED
        for first in sorted({0, max(0, last // 2), max(0, last)}) if last >= 0 else ():
            windows.append(needle.bytes[first : first + _SAMPLED])
            starts.append(first)
        ends.append(len(windows))
    data = np.frombuffer(b"".join(windows), np.uint8).reshape(-1, _SAMPLED)
    keys = _keys(np.lib.stride_tricks.sliding_window_view(data, _SAMPLE, axis=1))
    offsets = np.array(starts, np.int64)[:, None] + np.arange(_STRIDE)
    differ = (np.diff(np.sort(keys, axis=1), axis=1) != 0).all(axis=1)
    for needle, (first, end) in zip(needles, pairwise(ends), strict=True):
        few = differ[first:end]
        needle.samples = keys[first:end][few].ravel(), offsets[first:end][few].ravel()


def _common_piece(
    buffer: bytes, position: int, string: bytes, offset: int
) -> tuple[int, int] | None:
    """Start and end of the string's start or end in the buffer around a sample."""
    goes_on, went_on = slice(_SAMPLE, 2 * _SAMPLE), slice(-_SAMPLE, None)
    after = buffer[position : position + 2 * _SAMPLE][goes_on]
    before = buffer[max(0, position - _SAMPLE) : position]
    if not (
        after == string[offset : offset + 2 * _SAMPLE][goes_on]
        or before == string[:offset][went_on]
    ):
        return None
    length = min(position, offset)
    ends = buffer[position - length : position][::-1], string[offset - length : offset][::-1]
    first = position - _common_length(*ends)
    stop = position + _common_length(
        buffer[position : position + len(string) - offset], string[offset:]
    )
    start = position - offset
    reaches_end = first == start or stop == start + len(string)
    return (first, stop) if reaches_end and stop - first >= SHORTEST_PIECE else None


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
