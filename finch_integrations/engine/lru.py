"""Values by key within a byte cap: the least recently used are removed first."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteLRU(Generic[Value]):
    """Values in the order of their last use, with their sizes; not thread-safe.

    Args:
        max_bytes: The cap. `shrink` enforces it, `add` does not check it.

    Attributes:
        max_bytes: The cap.
        nbytes: Sum of the sizes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._items: OrderedDict[str, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, the least recently used first."""
        return iter(self._items)

    def get(self, key: str) -> Value | None:
        """Look up a value without marking it as used."""
        value, _ = self._items.get(key, (None, 0))
        return value

    def use(self, key: str) -> Value | None:
        """Get a value and make it the most recently used."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def add(self, key: str, value: Value, nbytes: int) -> None:
        """Add or replace a value as the most recently used."""
        self.remove(key)
        self._items[key] = value, nbytes
        self.nbytes += nbytes

    def remove(self, key: str) -> None:
        """Remove a key if it is there."""
        _, nbytes = self._items.pop(key, (None, 0))
        self.nbytes -= nbytes

    def shrink(self, nbytes: int = 0) -> list[str]:
        """Remove the least recently used until that many more bytes fit under the cap.

        Returns:
            The removed keys.
        """
        removed = []
        while self._items and self.nbytes + nbytes > self.max_bytes:
            key, (_, size) = self._items.popitem(last=False)
            self.nbytes -= size
            removed.append(key)
        return removed
