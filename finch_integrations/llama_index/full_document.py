"""FullDocumentPostprocessor: from retrieved chunks to the whole documents that they are from."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.utils import get_tokenizer

from finch_integrations.errors import ConfigurationError, ContextTooLongError
from finch_integrations.pipeline.options import refuse_unknown

logger = logging.getLogger(__name__)

REF_DOC_ID = "ref_doc_id"
CHUNKS_KEY, DROPPED_KEY = "finch_chunks", "finch_dropped_documents"
# Splitters leave out white space between chunks; a longer gap is a missing chunk.
_LONGEST_GAP = 20


class FullDocumentPostprocessor(BaseNodePostprocessor):
    """Replaces retrieved chunks with the whole documents that they were cut from.

    Put it after rerankers. A document gets the best score of its chunks, and the place of the first
    one. Its text comes from the first source that has it: `documents`, the document in the
    `docstore`, its chunks in the `docstore`, joined by their offsets, `loader`. Without any of
    these, the chunks stay as they are, and a warning says so.

    Every document's metadata names the chunks that were found (`finch_chunks`) and, if there
    were any, the documents that were dropped (`finch_dropped_documents`); models do not see that.

    Example:
        postprocessor = FullDocumentPostprocessor(
            docstore=index.docstore, max_document_tokens=100_000
        )
        engine = index.as_query_engine(llm=llm, node_postprocessors=[postprocessor])

    Attributes:
        documents: The documents that were indexed.
        docstore: With whole documents (`IngestionPipeline(docstore=…)`) or an index's own.
        loader: Gets a retrieved chunk and returns its document's text, for example by reading
            `node.metadata["file_path"]`.
        group_by: What makes one document: `ref_doc_id`, or the name of a metadata key, such as
            `file_path` where a reader made a document of every page.
        max_document_tokens: Budget for all documents; the lowest-ranked are dropped, with a
            warning.
        tokenizer: Counts for the budget; default: LlamaIndex's.
    """

    documents: Sequence[BaseNode] | None = Field(default=None, exclude=True, repr=False)
    docstore: BaseDocumentStore | None = Field(default=None, exclude=True, repr=False)
    loader: Callable[[NodeWithScore], str] | None = Field(default=None, exclude=True)
    group_by: str = REF_DOC_ID
    max_document_tokens: int | None = None
    tokenizer: Callable[[str], Sequence[Any]] | None = Field(default=None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_options(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            refuse_unknown(values, cls.model_fields, owner="FullDocumentPostprocessor")
        return values

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.documents is None and self.docstore is None and self.loader is None:
            raise ConfigurationError(
                "there is nothing to take whole documents from. Give documents=…, docstore=… "
                "(index.docstore will do) or loader=…"
            )
        if self.max_document_tokens is not None and self.max_document_tokens < 1:
            raise ConfigurationError(
                f"max_document_tokens must be at least 1, got {self.max_document_tokens}"
            )
        return self

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised settings."""
        return "FullDocumentPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        hits: dict[str, list[NodeWithScore]] = {}
        for node in nodes:
            hits.setdefault(self._group(node.node), []).append(node)
        found = [self._expand(group, chunks) for group, chunks in hits.items()]
        kept, dropped = self._fit(found)
        if dropped:
            logger.warning(
                "The documents %s are left out: with them there would be more than "
                "max_document_tokens=%d",
                ", ".join(document.id for document in dropped),
                self.max_document_tokens,
            )
        ids = [document.id for document in dropped]
        return [node for document in kept for node in document.nodes(ids)]

    def _group(self, node: BaseNode) -> str:
        """What identifies the node's document; the node itself if it is whole."""
        value = None if self.group_by == REF_DOC_ID else node.metadata.get(self.group_by)
        return str(value if value is not None else node.ref_doc_id or node.node_id)

    def _expand(self, group: str, chunks: list[NodeWithScore]) -> "_Found":
        parts = [self._find(id) for id in self._part_ids(group, chunks)]
        whole = [part for part in parts if part is not None]
        best = max(chunks, key=lambda chunk: chunk.score or 0)
        if parts and len(whole) == len(parts):
            text = "\n\n".join(part.get_content(MetadataMode.NONE) for part in whole)
            return _Found(group, chunks, whole[0], text)
        if self.loader is not None:
            return _Found(group, chunks, best.node, self.loader(best))
        logger.warning("No source has the whole document %s; its chunks stay as they are", group)
        return _Found(group, chunks)

    def _part_ids(self, group: str, chunks: list[NodeWithScore]) -> list[str]:
        """Ids of the documents that make one; more than one if grouped by a metadata key."""
        own = [chunk.node.ref_doc_id or chunk.node.node_id for chunk in chunks]
        if self.group_by == REF_DOC_ID or self.group_by not in chunks[0].node.metadata:
            return list(dict.fromkeys(own))
        known = [*(self.documents or []), *(self.docstore.docs.values() if self.docstore else [])]
        parts: dict[str, BaseNode] = {}
        for node in known:
            if self.group_by in node.metadata and self._group(node) == group:
                parts.setdefault(node.ref_doc_id or node.node_id, node)
        ids = list(parts) or list(dict.fromkeys(own))
        numbers = {id: _page(id, node) for id, node in parts.items()}
        if None not in numbers.values():
            ids.sort(key=lambda id: numbers.get(id) or 0)
        return ids

    def _find(self, id: str) -> BaseNode | None:
        for document in self.documents or ():
            if document.node_id == id:
                return document
        if self.docstore is None:
            return None
        if self.docstore.document_exists(id):
            return self.docstore.get_document(id)
        info = self.docstore.get_ref_doc_info(id)
        return None if info is None else _rebuild(self.docstore.get_nodes(info.node_ids))

    def _fit(self, found: Sequence["_Found"]) -> tuple[list["_Found"], list["_Found"]]:
        """Drop the lowest-ranked documents until the others fit the budget."""
        if self.max_document_tokens is None:
            return list(found), []
        count = self.tokenizer or get_tokenizer()
        total = 0
        kept: list[_Found] = []
        ranked = sorted(found, key=lambda document: -document.score)  # stable: ties by first hit
        for document in ranked:
            total += len(count(document.shown))
            if total > self.max_document_tokens:
                break
            kept.append(document)
        if found and not kept:
            raise ContextTooLongError(
                f"the best document, {ranked[0].id}, has {total} tokens, which is more than "
                f"max_document_tokens={self.max_document_tokens}. Raise max_document_tokens, or "
                "leave it out: FinchLLM compresses what it gets"
            )
        return [d for d in found if d in kept], [d for d in found if d not in kept]


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A document that was found.

    Attributes:
        id: Its id, or what it is grouped by.
        chunks: Its retrieved chunks.
        source: A node with its metadata; None if only the chunks are known.
        text: Its whole text.
    """

    id: str
    chunks: list[NodeWithScore]
    source: BaseNode | None = None
    text: str = ""

    @property
    def score(self) -> float:
        return max((chunk.score for chunk in self.chunks if chunk.score is not None), default=0.0)

    @property
    def shown(self) -> str:
        """What a model reads of it."""
        return "\n\n".join(node.get_content(MetadataMode.LLM) for node in self.nodes([]))

    def nodes(self, dropped: list[str]) -> list[NodeWithScore]:
        """The whole document as a new node, or the chunks."""
        if self.source is None:
            return self.chunks
        own = {CHUNKS_KEY: [chunk.node.node_id for chunk in self.chunks]}
        if dropped:
            own[DROPPED_KEY] = dropped
        node = TextNode(
            id_=self.id,
            text=self.text,
            metadata={**self.source.metadata, **own},
            excluded_llm_metadata_keys=[*self.source.excluded_llm_metadata_keys, *own],
            excluded_embed_metadata_keys=[*self.source.excluded_embed_metadata_keys, *own],
        )
        scored = any(chunk.score is not None for chunk in self.chunks)
        return [NodeWithScore(node=node, score=self.score if scored else None)]


def _rebuild(chunks: list[BaseNode]) -> TextNode | None:
    """Join all chunks of a document; None if a chunk is missing.

    Overlaps are cut; where splitters left out white space, there are line breaks.
    """
    ids = {chunk.node_id for chunk in chunks}
    neighbours = [
        n for chunk in chunks for n in (chunk.prev_node, chunk.next_node) if n is not None
    ]
    if not chunks or any(neighbour.node_id not in ids for neighbour in neighbours):
        return None
    placed = []
    for chunk in chunks:
        text = chunk.get_content(MetadataMode.NONE)
        start = chunk.start_char_idx if isinstance(chunk, TextNode) else None
        if start is None:
            return None
        placed.append((start, text))
    whole = ""
    for start, text in sorted(placed):
        gap = start - len(whole)
        if gap > _LONGEST_GAP:
            return None
        whole += "\n" * gap if gap > 1 else " " * gap
        whole += text[len(whole) - start :]
    first = chunks[0]
    return TextNode(
        text=whole,
        metadata=first.metadata,
        excluded_llm_metadata_keys=first.excluded_llm_metadata_keys,
        excluded_embed_metadata_keys=first.excluded_embed_metadata_keys,
    )


def _page(id: str, node: BaseNode) -> int | None:
    """The page or part number that readers give."""
    label = str(node.metadata.get("page_label", ""))
    part = re.search(r"_part_(\d+)$", id)
    if label.isdecimal():
        return int(label)
    return int(part[1]) if part else None
