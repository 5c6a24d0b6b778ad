"""Reading a long sequence of tokens in chunks."""

from collections.abc import Iterator, Sequence


def chunks_of(ids: Sequence[int], length: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Cut token ids into chunks of at most `length`.

    Yields:
        Where the chunk starts, and its ids.
    """
    for start in range(0, len(ids), length):
        yield start, ids[start : start + length]
