"""Checking the header of a GGUF file before a reader trusts its numbers.

A reader that is told of an array with 2⁶⁰ items tries to read them. Here every length must fit the
bytes that are left.
"""

import os
import struct
from typing import BinaryIO

# Type of a value in the header -> its bytes.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 8
_DEEPEST = 4


def check_header(file: BinaryIO) -> None:
    """Walk over the header of a GGUF file.

    Raises:
        ValueError: A number in it cannot be true.
    """
    size = os.fstat(file.fileno()).st_size
    _Walk(file, size).walk()


class _Walk:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def walk(self) -> None:
        self._file.seek(4)
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; 2 and 3 are read")
        tensors, values = self._count(least=24), self._count(least=13)
        for _ in range(values):
            self._skip(self._count())
            self._value(self._number("<I"))
        for _ in range(tensors):
            self._skip(self._count())
            dimensions = self._number("<I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor has {dimensions} dimensions")
            self._skip(8 * dimensions + 12)

    def _value(self, kind: int, depth: int = 0) -> None:
        if kind in _SIZES:
            self._skip(_SIZES[kind])
        elif kind == _STRING:
            self._skip(self._count())
        elif kind == _ARRAY and depth < _DEEPEST:
            item = self._number("<I")
            if item in _SIZES:
                self._skip(self._count(least=_SIZES[item]) * _SIZES[item])
            else:
                for _ in range(self._count(least=8)):
                    self._value(item, depth + 1)
        else:
            raise ValueError(f"a value has the type {kind}")

    def _count(self, least: int = 1) -> int:
        """Read how many items of at least so many bytes follow."""
        count = self._number("<Q")
        if count * least > self._size - self._file.tell():
            raise ValueError(f"it promises {count} items and is too short for them")
        return count

    def _number(self, form: str) -> int:
        content = self._file.read(struct.calcsize(form))
        if len(content) < struct.calcsize(form):
            raise ValueError("its header is cut off")
        return int(struct.unpack(form, content)[0])

    def _skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise ValueError("its header is cut off")
        self._file.seek(count, os.SEEK_CUR)
