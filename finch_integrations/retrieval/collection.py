"""Documents and the chunks that they are searched by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finch_integrations.errors import ConfigurationError
from finch_integrations.retrieval.chunking import find_headings, heading_at, split_text
from finch_integrations.types import Document

# Condition on a document's metadata: a function, or the values that it must have.
MetadataFilter = Callable[[Mapping[str, Any]], bool] | Mapping[str, Any]


class Collection:
    """Documents in order, cut into chunks.

    Attributes:
        documents: Each with its own id.
        spans: One row per chunk: number of its document, first character, end; [C, 3] int64.
            Ordered.
        chunk_size: Upper limit of a chunk's characters; None: every document is one chunk and
            the chunk has its id.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        spans: NDArray[np.int64],
        chunk_size: int | None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.documents = documents
        self.spans = spans
        self.chunk_size = chunk_size
        self._headings = lru_cache(maxsize=256)(
            lambda number: find_headings(documents[number].text)
        )
        self._ids = ids  # given where reading all documents for them would take long

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what has been found of headings."""
        return Collection, (self.documents, self.spans, self.chunk_size, self._ids)

    @classmethod
    def build(cls, documents: Sequence[Document], chunk_size: int | None) -> "Collection":
        """Cut documents into chunks of at most `chunk_size` characters; None: do not cut them."""
        spans = [
            (number, start, end)
            for number, document in enumerate(documents)
            for start, end in (
                [(0, len(document.text))]
                if chunk_size is None
                else split_text(document.text, chunk_size)
            )
        ]
        return cls(documents, np.array(spans, dtype=np.int64).reshape(-1, 3), chunk_size)

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.spans)

    def chunk(self, row: int) -> Document:
        """Make a document of a chunk.

        Its metadata is its document's and `document_id`, `section` (the heading that it
        is under), `start_index` and `end_index` (its place in the document's text, in characters).
        A document that already is a chunk keeps those that it has: it may know its place in a text
        that is not in this collection.
        """
        number, start, end = (int(value) for value in self.spans[row])
        document = self.documents[number]
        place = {
            "document_id": document.id,
            "section": self._section(number, start),
            "start_index": start,
            "end_index": end,
        }
        if self.chunk_size is None:
            own = document.metadata.get("start_index")
            if isinstance(own, int):
                place["end_index"] = own + end
            return replace(document, metadata={**place, **document.metadata})
        first = int(np.searchsorted(self.spans[:, 0], number))
        return Document(
            document.text[start:end],
            id=self._chunk_id(document, row - first + 1),
            title=document.title,
            metadata={**document.metadata, **place},
        )

    def document_id(self, result: Document) -> str:
        """Id of the document that a chunk is from, or of the document that a result is."""
        whole = self.chunk_size is None  # then its metadata is its owner's
        return str(result.id if whole else result.metadata.get("document_id"))

    def chunk_texts(self) -> Iterator[str]:
        """What the chunks are searched by, in order: title, heading and text."""
        for number, start, end in self.spans.tolist():
            document = self.documents[number]
            text = document.text[start:end]
            section = self._section(number, start)
            # A heading at the chunk's start is in its text.
            above = section if section and section not in text[: len(section) + 8] else None
            yield "\n".join(part for part in (document.title, above, text) if part)

    def document(self, id: str) -> Document | None:
        """The whole document with this id."""
        number = self._numbers.get(id)
        return None if number is None else self.documents[number]

    def find(self, id: str) -> tuple[Document, int, list[tuple[int, int]]]:
        """An existing document, the row of its first chunk, and its chunks' places."""
        number = self._numbers[id]
        first, last = np.searchsorted(self.spans[:, 0], [number, number + 1]).tolist()
        spans = [(start, end) for _, start, end in self.spans[first:last].tolist()]
        return self.documents[number], first, spans

    def row(self, id: str) -> int | None:
        """The row of the first chunk of the document with this id."""
        number = self._numbers.get(id)
        return None if number is None else int(np.searchsorted(self.spans[:, 0], number))

    def position(self, id: str) -> int:
        """Where a document is in the collection; after all others if it is not in it."""
        return self._numbers.get(id, len(self._numbers))

    def mask(self, filter: MetadataFilter | None) -> NDArray[np.bool_] | None:
        """Which chunks' documents satisfy a filter, [C]; None: all."""
        if filter is None:
            return None
        matches = as_predicate(filter)
        kept = np.fromiter((matches(doc.metadata) for doc in self.documents), dtype=np.bool_)
        mask: NDArray[np.bool_] = kept[self.spans[:, 0]]
        return mask

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Every document's number by its id."""
        ids = (str(document.id) for document in self.documents) if self._ids is None else self._ids
        return {id: number for number, id in enumerate(ids)}

    def _chunk_id(self, document: Document, number: int) -> str:
        """The document's id and the chunk's number; never the id of a document."""
        id = f"{document.id}#{number}"
        while id in self._numbers:
            id += "#"
        return id

    def _section(self, number: int, start: int) -> str | None:
        return heading_at(self._headings(number), start)


def as_predicate(filter: MetadataFilter) -> Callable[[Mapping[str, Any]], bool]:
    """Make a function of a filter.

    Raises:
        ConfigurationError: It is neither a function nor a mapping.
    """
    if callable(filter):
        return filter
    if not isinstance(filter, Mapping):
        raise ConfigurationError(
            "a filter must be a mapping of metadata names to values, or a function of the "
            f"metadata, got {type(filter).__name__}"
        )
    wanted = {
        name: tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
        for name, value in filter.items()
    }
    return lambda metadata: all(
        name in metadata and metadata[name] in values for name, values in wanted.items()
    )
