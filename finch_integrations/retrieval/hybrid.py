"""HybridRetriever: search by words and by meaning, fuse, rerank, expand."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from finch_integrations.bm25 import BM25Index
from finch_integrations.config import RetrievalConfig, with_overrides
from finch_integrations.documents import check_text, prepare_documents
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.retrieval.collection import Collection, MetadataFilter
from finch_integrations.retrieval.dense import DenseIndex
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder, as_encoder
from finch_integrations.retrieval.fusion import reciprocal_rank_fusion, score_fusion
from finch_integrations.retrieval.reranking import as_reranker
from finch_integrations.retrieval.searchers import (
    BM25Searcher,
    DenseSearcher,
    Hits,
    Searcher,
    StoreSearch,
    StoreSearcher,
)
from finch_integrations.retrieval.selection import select_hits, select_parents, with_metadata
from finch_integrations.retrieval.store import (
    DocumentWriter,
    Sources,
    digest_of,
    make_settings,
    new_index,
    read_index,
    write_sources,
    write_vectors,
)
from finch_integrations.types import Document
from finch_integrations.words import words

# About 250 tokens of English: what all-MiniLM-L6-v2 reads of a text.
CHUNK_SIZE = 1000


def estimate_tokens(text: str) -> int:
    """Estimate a text's length in tokens: four bytes each."""
    return -(-len(text.encode()) // 4)


class HybridRetriever:
    """Find chunks of documents by their words (BM25) and by their meaning (dense vectors).

    The two rankings are fused: a chunk's cosine is added to the share of the query's words that it
    contains, or reciprocal ranks are added. Results are `Document`s that the engine takes as they
    are. In addition to the metadata of their document they have `document_id`, `section`,
    `start_index`, `end_index` (characters of the document's text), `score`, and those of
    `bm25_score`, `dense_score`, `fused_score` and `rerank_score` that were computed. `score` is the
    one that they are ranked by.

    Example:
        retriever = HybridRetriever.from_documents(documents, encoder="embedded")
        for document in retriever.retrieve("What is the door code?", top_k=5):
            print(document.metadata["score"], document.text)
    """

    def __init__(
        self,
        collection: Collection,
        searchers: Sequence[Searcher],
        *,
        reranker: Any = None,
        config: RetrievalConfig | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        """Make a retriever from its parts; `from_documents` and `load` are the usual ways.

        Args:
            collection: Where whole documents are found.
            searchers: One or both of the names `bm25` and `dense`.
            reranker: A CrossEncoder or its name, LangChain's cross-encoder, or a function of
                (query, text) pairs that returns their scores.
            config: Defaults for `retrieve`.
            count_tokens: Measures texts against `max_document_tokens`; None: as `retrieve` is
                told, or else by an estimate.

        Raises:
            ConfigurationError: The searchers or the reranker are unusable.
        """
        names = [searcher.name for searcher in searchers]
        if not names or len(set(names)) < len(names) or not {"bm25", "dense"}.issuperset(names):
            raise ConfigurationError(
                f"searchers must be one or both of bm25 and dense, got {', '.join(names) or 'none'}"
            )
        self.collection = collection
        self.searchers = tuple(searchers)
        self.config = config or RetrievalConfig()
        self.count_tokens = count_tokens
        self._rerank = None if reranker is None else as_reranker(reranker)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document | str | Mapping[str, Any]],
        *,
        encoder: Any = None,
        store: StoreSearch | None = None,
        chunk_size: int | None = CHUNK_SIZE,
        reranker: Any = None,
        config: RetrievalConfig | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> Self:
        """Index documents in memory.

        Args:
            documents: `Document`s, strings, or mappings with the fields of `Document`.
            encoder: An embedding model of sentence-transformers, LangChain or LlamaIndex, or the
                name of a sentence-transformers model (`embedded`: all-MiniLM-L6-v2). None: search
                by words only.
            store: Searches by meaning instead of an encoder: a vector store's search, that takes
                a query and a number of hits, and returns hits, best first. It has `documents` as
                they are; `chunk_size` must be None.
            chunk_size: Upper limit of a chunk's characters; None: the documents already are chunks,
                and the place in their metadata is kept.
            reranker: As for the constructor.
            config: Defaults for `retrieve`.
            count_tokens: As for the constructor.

        Raises:
            InvalidInputError: A document is unusable, or there is none.
            ConfigurationError: Encoder, store, chunk size or reranker are unusable.
            ModelLoadError: The encoder cannot be loaded.
        """
        _refuse_two(encoder, store)
        if chunk_size is not None:
            check_chunk_size(chunk_size)
            if store is not None:
                raise ConfigurationError(
                    f"a store's documents already are chunks, got chunk_size={chunk_size}. "
                    "Give chunk_size=None"
                )
        collection = Collection.build(prepare_documents(documents), chunk_size)
        searchers: list[Searcher] = [
            BM25Searcher(collection, BM25Index.build(collection.chunk_texts()))
        ]
        if store is not None:
            searchers.append(StoreSearcher(collection, store))
        elif encoder is not None:
            index = DenseIndex.build(list(collection.chunk_texts()), as_encoder(encoder))
            searchers.append(DenseSearcher(collection, index))
        return cls(
            collection, searchers, reranker=reranker, config=config, count_tokens=count_tokens
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        encoder: Any = None,
        store: StoreSearch | None = None,
        chunk_size: int | None = None,
        reranker: Any = None,
        config: RetrievalConfig | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> Self:
        """Open an index on disk; its documents, words and vectors stay there.

        Args:
            path: The index's folder, from `save` or `finch index`.
            encoder: The embedding model that it was built with; not needed if that was given by
                its name.
            store: The search of the store that the saved retriever had.
            chunk_size: What it must have been built with; None: anything.
            reranker: As for the constructor.
            config: Defaults for `retrieve`.
            count_tokens: As for the constructor.

        Raises:
            InvalidInputError: There is no index, it is damaged, or was built with another encoder
                or chunk size.
            ConfigurationError: The encoder must be given, or it or the reranker are unusable; or
                the index was not saved by a retriever with a store.
        """
        _refuse_two(encoder, store)
        stored = read_index(Path(path))
        settings = stored.settings
        if chunk_size not in (None, settings.chunk_size):
            raise InvalidInputError(
                f"the index {path} was built with chunk_size={settings.chunk_size}, not "
                f"{chunk_size}. Build it again, or leave chunk_size out"
            )
        searchers: list[Searcher] = [BM25Searcher(stored.collection, stored.bm25)]
        model = None if encoder is None else as_encoder(encoder)
        if model is not None and model.name != settings.encoder:
            raise InvalidInputError(
                f"the index {path} was built with the encoder {settings.encoder!r}, not "
                f"{model.name!r}. Build it again with this one, or search with the other"
            )
        if store is not None:
            if settings.chunk_size is not None or settings.encoder is not None:
                raise ConfigurationError(
                    f"the index {path} was not built for a vector store. Save a retriever that "
                    "has the store, and load what it saved"
                )
            searchers.append(StoreSearcher(stored.collection, store))
        elif stored.vectors is not None and stored.probe is not None:
            if model is None and not settings.encoder_by_name:
                raise ConfigurationError(
                    f"the index {path} was built with the encoder {settings.encoder!r}, which "
                    "cannot be loaded by its name. Give it: encoder=…"
                )
            # Whoever wrote the index may have named any model: nothing is fetched for it.
            model = model or SentenceTransformerEncoder(str(settings.encoder), download=False)
            index = DenseIndex(stored.vectors, model, stored.probe)
            searchers.append(DenseSearcher(stored.collection, index))
        return cls(
            stored.collection,
            searchers,
            reranker=reranker,
            config=config,
            count_tokens=count_tokens,
        )

    def save(self, path: str | Path) -> None:
        """Write documents, words and vectors to a folder; `load` opens it.

        An existing index is replaced when the new one is complete. A wrapped store saves its own
        vectors.

        Args:
            path: The index's folder.

        Raises:
            InvalidInputError: The folder holds other files, or metadata cannot be saved.
        """
        collection = self.collection
        bm25 = next(
            (searcher.index for searcher in self.searchers if isinstance(searcher, BM25Searcher)),
            None,
        )
        dense = next(
            (searcher.index for searcher in self.searchers if isinstance(searcher, DenseSearcher)),
            None,
        )
        encoder = None if dense is None else dense.encoder
        with new_index(Path(path), make_settings(encoder, collection.chunk_size)) as folder:
            writer = DocumentWriter(folder, collection.chunk_size)
            try:
                for document in collection.documents:
                    writer.add(*collection.find(str(document.id))[::2])
                writer.finish()
            finally:
                writer.close()
            digests = {str(document.id): digest_of(document) for document in collection.documents}
            write_sources(folder, Sources(digests=digests, skipped={}))
            (bm25 or BM25Index.build(collection.chunk_texts())).save(folder / "bm25")
            if dense is not None:
                write_vectors(folder, dense.vectors, dense.probe)

    def retrieve(
        self,
        query: str,
        *,
        filter: MetadataFilter | None = None,
        count_tokens: Callable[[str], int] | None = None,
        **overrides: Any,
    ) -> list[Document]:
        """Find what a query asks for.

        Args:
            query: A question or some words.
            filter: Metadata that documents must have, `{"year": 2024}`, where a list names
                alternatives; or a function of the metadata.
            count_tokens: Measures texts against `max_document_tokens` if the constructor was not
                given a way to.
            overrides: Fields of `RetrievalConfig` to change for this call.

        Returns:
            Chunks, best first; with `return_parents` whole documents, in the collection's order.

        Raises:
            InvalidInputError: The query has no word, or no result fits `max_document_tokens`.
            ConfigurationError: An option is unknown or wrong.
        """
        config = with_overrides(self.config, overrides)
        if not words(check_text("the query", query)):
            raise InvalidInputError(f"the query {query!r} has no word to search for")
        hits = self._fused(query, filter, config)
        if self._rerank is not None:
            hits = self._reranked(query, hits[: max(config.fetch_k, config.top_k)])
        threshold = -math.inf if config.score_threshold is None else config.score_threshold
        hits = [hit for hit in hits if hit.metadata["score"] >= threshold][: config.top_k]
        measure = self.count_tokens or count_tokens or estimate_tokens
        if config.return_parents:
            return select_parents(hits, self.collection, config.max_document_tokens, measure)
        return select_hits(hits, config.max_document_tokens, measure)

    def _fused(
        self, query: str, filter: MetadataFilter | None, config: RetrievalConfig
    ) -> list[Document]:
        """Run the searchers and fuse what they find."""
        weights = {"bm25": config.bm25_weight, "dense": config.dense_weight}
        searchers = [searcher for searcher in self.searchers if weights[searcher.name]]
        if not searchers:
            raise ConfigurationError(
                f"this retriever has only the searcher {self.searchers[0].name}, whose weight is 0"
            )
        found: dict[str, Document] = {}
        scores: dict[str, dict[str, float]] = {}
        found_by = [
            searcher.search(query, max(config.fetch_k, config.top_k), filter)
            for searcher in searchers
        ]
        for searcher, hits in zip(searchers, found_by, strict=True):
            for document, score in hits.ranked:
                id = str(document.id)
                found.setdefault(id, document)
                known = scores.setdefault(id, {})
                if score is not None:
                    known.setdefault(f"{searcher.name}_score", score)
        fused = _fuse(found_by, [weights[searcher.name] for searcher in searchers], config)
        alone = f"{searchers[0].name}_score" if len(searchers) == 1 else "fused_score"
        results = []
        for id, score in fused:
            all_scores = scores[id] | {"fused_score": score}
            final = all_scores.get(alone, score)
            results.append(with_metadata(found[id], all_scores | {"score": final}))
        return results

    def _reranked(self, query: str, hits: Sequence[Document]) -> list[Document]:
        assert self._rerank is not None, "there is a reranker"
        if not hits:
            return []
        scores = self._rerank([(query, hit.text) for hit in hits])
        ranked = [
            with_metadata(hit, {"rerank_score": score, "score": score})
            for hit, score in zip(hits, scores, strict=True)
        ]
        return sorted(ranked, key=lambda hit: -float(hit.metadata["score"]))


def _fuse(
    found_by: Sequence[Hits], weights: Sequence[float], config: RetrievalConfig
) -> list[tuple[str, float]]:
    similarities = [hits.similarity for hits in found_by if hits.similarity is not None]
    if config.fusion == "rrf" or len(similarities) < len(found_by):
        ids = [[str(chunk.id) for chunk, _ in hits.ranked] for hits in found_by]
        return reciprocal_rank_fusion(ids, weights=weights, k=config.rrf_k)
    if len(found_by) == 1:
        (hits,) = found_by
        scored = [(str(chunk.id), score) for chunk, score in hits.ranked if score is not None]
        return score_fusion([scored], weights=weights)
    # Every searcher scores every candidate, also those that only another searcher found.
    rows = {
        str(chunk.id): row
        for hits in found_by
        for (chunk, _), row in zip(hits.ranked, hits.rows, strict=True)
    }
    numbers = list(rows.values())
    rated = [list(zip(rows, similarity(numbers), strict=True)) for similarity in similarities]
    return score_fusion(rated, weights=weights)


def _refuse_two(encoder: Any, store: StoreSearch | None) -> None:
    if encoder is not None and store is not None:
        raise ConfigurationError("encoder and store both search by meaning. Give one of them")


def check_chunk_size(chunk_size: object) -> None:
    """Check a chunk size.

    Raises:
        ConfigurationError: It is unusable.
    """
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool) or chunk_size < 1:
        raise ConfigurationError(
            f"chunk_size must be a whole number of at least 1, got {chunk_size!r}"
        )
