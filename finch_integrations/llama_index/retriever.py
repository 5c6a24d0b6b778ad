"""FinchNodeRetriever: LlamaIndex's retriever over the hybrid retrieval."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import MetadataFilters

from finch_integrations.documents import prepare_documents
from finch_integrations.errors import ConfigurationError
from finch_integrations.llama_index.filters import as_predicate
from finch_integrations.retrieval.hybrid import HybridRetriever
from finch_integrations.retrieval.searchers import StoreSearch
from finch_integrations.retrieval.selection import SCORES
from finch_integrations.types import Document

_PLACE = ("document_id", "section", "start_index", "end_index")
# What a node has besides its metadata is saved with it, under this key.
_OWN = "finch_node"


class FinchNodeRetriever(BaseRetriever):
    """Find nodes by their words (BM25) and by their meaning, in one ranking.

    Nodes are copied, never changed: the copies have the scores of both searchers in their metadata,
    hidden from models and embeddings.

    Example:
        retriever = FinchNodeRetriever.from_nodes(nodes, vector_index=index, similarity_top_k=20)
        engine = RetrieverQueryEngine.from_args(retriever, llm=FinchLLM())
    """

    def __init__(
        self,
        hybrid: HybridRetriever,
        *,
        nodes: Mapping[str, BaseNode] | None = None,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Any,
    ) -> None:
        """Wrap a retriever; `from_nodes` and `load` are the usual ways.

        Args:
            hybrid: What searches.
            nodes: By their id; returned instead of nodes made from the found texts.
            similarity_top_k: Nodes to find.
            filters: LlamaIndex's, on the nodes' metadata.
            callback_manager: LlamaIndex's.
            options: Further fields of `RetrievalConfig`, and `filter`.
        """
        super().__init__(callback_manager=callback_manager)
        self.hybrid = hybrid
        self._nodes = dict(nodes or {})
        if filters is not None:
            if options.get("filter") is not None:
                raise ConfigurationError("filter and filters are given; give one of them")
            options["filter"] = as_predicate(filters)
        self._options = {"top_k": similarity_top_k, **options}

    @classmethod
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        *,
        embed_model: Any = None,
        vector_index: Any = None,
        reranker: Any = None,
        **options: Any,
    ) -> Self:
        """Index nodes in memory.

        Args:
            nodes: What to search, already cut into chunks; blank ones are set aside.
            embed_model: LlamaIndex's embedding model or the name of a sentence-transformers
                model. None, and no `vector_index`: search by words only.
            vector_index: An index with `as_retriever(similarity_top_k=…)` over the same nodes,
                which searches by meaning instead of `embed_model`.
            reranker: A cross-encoder or the name of one.
            options: As for the constructor.

        Raises:
            InvalidInputError: There is no node, or one is unusable.
            ConfigurationError: The arguments contradict each other.
        """
        # Images and scanned pages have no text to search.
        nodes = [n for n in nodes if n.get_content(metadata_mode=MetadataMode.NONE).strip()]
        documents = prepare_documents([_document(node) for node in nodes])
        _refuse_two(embed_model, vector_index)
        hybrid = HybridRetriever.from_documents(
            documents,
            encoder=embed_model,
            store=_search_of(vector_index),
            chunk_size=None,
            reranker=reranker,
        )
        return cls(hybrid, nodes={node.node_id: node for node in nodes}, **options)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        embed_model: Any = None,
        vector_index: Any = None,
        reranker: Any = None,
        **options: Any,
    ) -> Self:
        """Open an index on disk, from `save` or `finch index`.

        Args:
            path: The index's folder.
            embed_model: What it was built with; not needed if that was given as a name.
            vector_index: The index that was given when it was built.
            reranker: A cross-encoder or the name of one.
            options: As for the constructor.

        Raises:
            InvalidInputError: There is no index, it is damaged, or was built with another model.
            ConfigurationError: The arguments contradict each other, or the index was not built
                for a vector index.
        """
        _refuse_two(embed_model, vector_index)
        hybrid = HybridRetriever.load(
            path, encoder=embed_model, store=_search_of(vector_index), reranker=reranker
        )
        return cls(hybrid, **options)

    def save(self, path: str | Path) -> None:
        """Write texts, words and vectors to a folder; a vector index saves its own vectors.

        Raises:
            InvalidInputError: The folder holds other files, or metadata cannot be saved.
        """
        self.hybrid.save(path)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.hybrid.retrieve(query_bundle.query_str, **self._options)
        return [
            NodeWithScore(node=self._node(document), score=document.metadata["score"])
            for document in found
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _node(self, document: Document) -> BaseNode:
        known = self._nodes.get(str(document.id))
        if known is not None:
            scores = {name: document.metadata[name] for name in SCORES if name in document.metadata}
            return known.model_copy(
                update={
                    "metadata": {**known.metadata, **scores},
                    "excluded_llm_metadata_keys": [*known.excluded_llm_metadata_keys, *scores],
                    "excluded_embed_metadata_keys": [*known.excluded_embed_metadata_keys, *scores],
                }
            )
        metadata = dict(document.metadata)
        own = metadata.pop(_OWN, {})
        hidden = [name for name in (*_PLACE, *SCORES) if name in metadata]
        source = own.get("ref_doc_id") or metadata.get("document_id", document.id)
        return TextNode(
            id_=str(document.id),
            text=document.text,
            metadata=metadata,
            excluded_llm_metadata_keys=[*own.get("excluded_llm", ()), *hidden],
            excluded_embed_metadata_keys=[*own.get("excluded_embed", ()), *hidden],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=str(source))},
        )


def _document(node: BaseNode) -> Document:
    title = node.metadata.get("title")
    own = {
        "ref_doc_id": node.ref_doc_id,
        "excluded_llm": node.excluded_llm_metadata_keys,
        "excluded_embed": node.excluded_embed_metadata_keys,
    }
    return Document(
        node.get_content(metadata_mode=MetadataMode.NONE),
        id=node.node_id,
        title=str(title) if title else None,
        metadata={**node.metadata, _OWN: own},
    )


def _refuse_two(embed_model: Any, vector_index: Any) -> None:
    if embed_model is not None and vector_index is not None:
        raise ConfigurationError(
            "embed_model and vector_index both search by meaning. Give one of them"
        )


def _search_of(vector_index: Any) -> StoreSearch | None:
    if vector_index is None:
        return None

    def search(query: str, k: int) -> list[Document]:
        hits = vector_index.as_retriever(similarity_top_k=k).retrieve(query)
        return [_document(hit.node) for hit in hits]

    return search
