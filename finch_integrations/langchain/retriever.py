"""FinchRetriever: LangChain's retriever over the hybrid retrieval."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, model_validator

from finch_integrations.config import RetrievalConfig
from finch_integrations.documents import prepare_documents, with_unique_ids
from finch_integrations.errors import ConfigurationError
from finch_integrations.langchain.documents import as_documents, from_langchain, to_langchain
from finch_integrations.pipeline.options import refuse_unknown
from finch_integrations.retrieval.hybrid import CHUNK_SIZE, HybridRetriever
from finch_integrations.retrieval.searchers import StoreSearch
from finch_integrations.types import Document

_SEARCH_OPTIONS = {field.name for field in fields(RetrievalConfig)} | {"filter"}


class FinchRetriever(BaseRetriever):
    """Find documents by their words (BM25) and by their meaning, in one ranking.

    Found documents have scores and places in their metadata, see `HybridRetriever`. Options
    can be given to a call: `retriever.invoke(query, k=3, filter={"year": 2024})`.

    Example:
        retriever = FinchRetriever.from_documents(documents, vectorstore=store, k=20)
        chain = create_retrieval_chain(retriever, create_stuff_documents_chain(model, prompt))

    Attributes:
        hybrid: What searches.
        k: Chunks to find.
        search_kwargs: Further fields of `RetrievalConfig`, such as `score_threshold`,
            `max_document_tokens` and `return_parents`; and `filter`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    hybrid: HybridRetriever = Field(repr=False)
    k: int = 10
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_options(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "top_k" in values:
            raise ConfigurationError(
                f"FinchRetriever has no option 'top_k'; here it is called k: k={values['top_k']!r}"
            )
        if further := sorted(values.keys() & _SEARCH_OPTIONS):
            shown = ", ".join(f"{name!r}: …" for name in further)
            raise ConfigurationError(
                f"FinchRetriever takes {', '.join(further)} inside search_kwargs: "
                f"search_kwargs={{{shown}}}"
            )
        refuse_unknown(values, cls.model_fields, owner="FinchRetriever")
        return values

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[LangChainDocument],
        *,
        embeddings: Any = None,
        vectorstore: VectorStore | None = None,
        store_kwargs: dict[str, Any] | None = None,
        chunk_size: int | None = CHUNK_SIZE,
        reranker: Any = None,
        **fields: Any,
    ) -> Self:
        """Index documents in memory.

        Args:
            documents: What to search; blank ones are set aside. With a store: the same chunks that
                the store holds.
            embeddings: LangChain embeddings or the name of a sentence-transformers model. None,
                and no store: search by words only.
            vectorstore: Searches by meaning instead of `embeddings`; hits and documents are
                matched by their id, or else by their text.
            store_kwargs: For the store's `similarity_search`, such as its own `filter`.
            chunk_size: Upper limit of a chunk's characters; None: the documents already are chunks,
                as with a store.
            reranker: LangChain's or sentence-transformers' cross-encoder, or the name of one.
            fields: Of this class.

        Raises:
            InvalidInputError: There is no document, or one is unusable.
            ConfigurationError: The arguments contradict each other.
        """
        prepared = prepare_documents(with_unique_ids(as_documents(documents, "documents")))
        _refuse_two(embeddings, vectorstore)
        hybrid = HybridRetriever.from_documents(
            prepared,
            encoder=embeddings,
            store=_search_of(vectorstore, store_kwargs),
            chunk_size=chunk_size if vectorstore is None else None,
            reranker=reranker,
        )
        return cls(hybrid=hybrid, **fields)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        embeddings: Any = None,
        vectorstore: VectorStore | None = None,
        store_kwargs: dict[str, Any] | None = None,
        reranker: Any = None,
        **fields: Any,
    ) -> Self:
        """Open an index on disk, from `save` or `finch index`.

        Args:
            path: The index's folder.
            embeddings: What it was built with; not needed if that was given as a name.
            vectorstore: The store that was given when it was built.
            store_kwargs: As for `from_documents`.
            reranker: As for `from_documents`.
            fields: Of this class.

        Raises:
            InvalidInputError: There is no index, it is damaged, or was built with other embeddings.
            ConfigurationError: The arguments contradict each other, or the index was not built
                for a store.
        """
        _refuse_two(embeddings, vectorstore)
        hybrid = HybridRetriever.load(
            path,
            encoder=embeddings,
            store=_search_of(vectorstore, store_kwargs),
            reranker=reranker,
        )
        return cls(hybrid=hybrid, **fields)

    def save(self, path: str | Path) -> None:
        """Write documents, words and vectors to a folder; a store saves its own vectors.

        Raises:
            InvalidInputError: The folder holds other files, or metadata cannot be saved.
        """
        self.hybrid.save(path)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[LangChainDocument]:
        return self._search(query, k, options)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[LangChainDocument]:
        return await asyncio.to_thread(self._search, query, k, options)

    def _search(
        self, query: str, k: int | None, options: dict[str, Any]
    ) -> list[LangChainDocument]:
        options = {"top_k": self.k if k is None else k, **self.search_kwargs, **options}
        return [to_langchain(document) for document in self.hybrid.retrieve(query, **options)]


def _refuse_two(embeddings: Any, vectorstore: VectorStore | None) -> None:
    if embeddings is not None and vectorstore is not None:
        raise ConfigurationError(
            "embeddings and vectorstore both search by meaning. Give one of them"
        )


def _search_of(
    vectorstore: VectorStore | None, store_kwargs: dict[str, Any] | None
) -> StoreSearch | None:
    return None if vectorstore is None else _Search(vectorstore, store_kwargs or {})


@dataclass(frozen=True, slots=True)
class _Search:
    """Searches a store; can be pickled if the store can."""

    store: VectorStore
    options: Mapping[str, Any]

    def __call__(self, query: str, k: int) -> list[Document]:
        hits = self.store.similarity_search(query, k=k, **self.options)
        return [from_langchain(hit) for hit in hits]
