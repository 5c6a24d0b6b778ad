"""The retriever's legs: each ranks chunks in its own way."""

from typing import Protocol

import numpy as np

from finch_integrations.retrieval.bm25 import BM25Index
from finch_integrations.retrieval.collection import Collection, MetadataFilter
from finch_integrations.retrieval.dense import DenseIndex
from finch_integrations.retrieval.ranking import best_rows
from finch_integrations.types import Document

Hits = list[tuple[Document, float]]


class Leg(Protocol):
    """One way to search.

    Attributes:
        name: `bm25` or `dense`; whose weight and score it has.
    """

    name: str

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks with their scores, best first; chunks have ids."""
        ...


class BM25Leg:
    """Chunks that share words with the query."""

    name = "bm25"

    def __init__(self, collection: Collection, index: BM25Index) -> None:
        self.index = index
        self._collection = collection

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks; those that share no word with the query are left out."""
        scores = self.index.scores(query)
        scores = np.where(scores > 0, scores, np.float32(-np.inf))
        rows = best_rows(scores, k, self._collection.mask(filter))
        return [(self._collection.chunk(row), float(scores[row])) for row in rows]


class DenseLeg:
    """Chunks whose vectors point where the query's does."""

    name = "dense"

    def __init__(self, collection: Collection, index: DenseIndex) -> None:
        self.index = index
        self._collection = collection

    def search(self, query: str, k: int, filter: MetadataFilter | None) -> Hits:
        """Find up to `k` chunks with their cosines, -1 to 1."""
        scores = self.index.scores(query)
        rows = best_rows(scores, k, self._collection.mask(filter))
        return [(self._collection.chunk(row), float(scores[row])) for row in rows]
