"""The retriever's searchers, each of which ranks chunks in its own way."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from finch_integrations.bm25 import BM25Index
from finch_integrations.retrieval.collection import Collection, MetadataFilter, as_predicate
from finch_integrations.retrieval.dense import DenseIndex
from finch_integrations.retrieval.ranking import best_rows
from finch_integrations.types import Document

# A vector store's search: a query and how many hits it wants, to hits, best first.
StoreSearch = Callable[[str, int], Iterable[Document]]


@dataclass(frozen=True)
class Hits:
    """What a searcher found.

    Attributes:
        ranked: Chunks, best first, with scores; None if only their order means something.
        rows: Their numbers in the collection; empty where `similarity` is None.
        similarity: Tells of chunks, by their numbers, how much they are like the query: up to 1, so
            that it can be added to other searchers'. None: only order means something.
    """

    ranked: Sequence[tuple[Document, float | None]]
    rows: Sequence[int] = ()
    similarity: Callable[[Sequence[int]], Sequence[float]] | None = None


class Searcher(Protocol):
    """One way to search.

    Attributes:
        name: `bm25` or `dense`; says which weight and score it has.
    """

    name: str

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks; each has an id."""
        ...


class BM25Searcher:
    """Chunks that share words with the query; similar by the share of its words in them."""

    name = "bm25"

    def __init__(self, collection: Collection, index: BM25Index) -> None:
        self.index = index
        self._collection = collection

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks; those that share no word with the query are left out."""
        scores = self.index.scores(query)
        scores = np.where(scores > 0, scores, np.float32(-np.inf))
        rows = best_rows(scores, k, self._collection.mask(filter))
        ranked = [(self._collection.chunk(row), float(scores[row])) for row in rows]
        return Hits(ranked, rows, lambda rows: self.index.query_coverage(query)[rows].tolist())


class DenseSearcher:
    """Chunks whose vectors point in the direction of the query's; similar by the cosine."""

    name = "dense"

    def __init__(self, collection: Collection, index: DenseIndex) -> None:
        self.index = index
        self._collection = collection

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks with their cosines, -1 to 1."""
        scores = self.index.scores(query)
        rows = best_rows(scores, k, self._collection.mask(filter))
        ranked = [(self._collection.chunk(row), float(scores[row])) for row in rows]
        return Hits(ranked, rows, lambda rows: scores[rows].tolist())


class StoreSearcher:
    """A vector store of another library as the dense searcher.

    Its hits are looked up in the collection, by their id or else by their text, so that both
    searchers return the same chunks; a hit that is not in the collection is returned as it is.
    Scores of stores differ in scale and direction, so only the order of the hits counts.
    """

    name = "dense"

    def __init__(self, collection: Collection, search: StoreSearch) -> None:
        """Wrap a search.

        Args:
            collection: Has the store's chunks as documents: its `chunk_size` is None.
            search: Returns up to that many hits of a query, best first.
        """
        self._collection = collection
        self._search = search
        self._ids = {document.text: str(document.id) for document in collection.documents}

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks; the filter is applied to what the store returns."""
        hits = [self._known(hit) for hit in self._search(query, k)]
        # The store itself cannot always filter.
        matches = (lambda _: True) if filter is None else as_predicate(filter)
        return Hits([(hit, None) for hit in hits if matches(hit.metadata)])

    def _known(self, hit: Document) -> Document:
        for id in (hit.id, self._ids.get(hit.text)):
            if id is not None and (row := self._collection.row(id)) is not None:
                return self._collection.chunk(row)
        id = hit.id or hashlib.sha256(hit.text.encode()).hexdigest()
        return replace(hit, id=id)
