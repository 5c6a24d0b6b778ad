"""Quotes as LangChain's standard citations, and the translator that shows them in blocks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import (
    Citation,
    ContentBlock,
    ReasoningContentBlock,
    TextContentBlock,
)

from finch_integrations.pipeline import citations as pipeline
from finch_integrations.pipeline.citations import cite
from finch_integrations.pipeline.quotes import Quote
from finch_integrations.types import Document, DocumentShare

PROVIDER = "finch"


def make_citations(
    quotes: Sequence[Quote], documents: Sequence[Document], shares: Sequence[DocumentShare]
) -> list[Citation]:
    """Make a citation of every run of words that the answer shares with a document.

    `extras` has the place in the document as it was given and, as `place`, in the file that it is a
    chunk of, if it is one; there `start` and `end` are None if a chunk does not say where it
    begins.
    """
    named = [
        replace(document, id=share.id) for document, share in zip(documents, shares, strict=True)
    ]
    return [
        _make_citation(quote, named[quote.document], found)
        for quote, found in zip(quotes, cite(quotes, named), strict=True)
    ]


def _make_citation(quote: Quote, document: Document, found: pipeline.Citation) -> Citation:
    source = document.metadata.get("source")
    citation = Citation(
        type="citation",
        start_index=found.start,
        end_index=found.end,
        cited_text=found.text,
        extras={
            "document_index": quote.document,
            "document_id": document.id,
            "source_start": quote.source_start,
            "source_end": quote.source_end,
            "place": {
                "document_id": found.document_id,
                "source": found.source,
                "section": found.section,
                "start": found.source_start,
                "end": found.source_end,
            },
        },
    )
    if title := document.title or source:
        citation["title"] = str(title)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        citation["url"] = source
    return citation


def _translate(message: AIMessage) -> list[ContentBlock]:
    """Thoughts, one text block with the citations as annotations, and calls."""
    if not isinstance(message.content, str):
        raise NotImplementedError  # already blocks: LangChain reads them itself
    citations = message.response_metadata.get("citations") or []
    blocks: list[Any] = []
    if thoughts := message.additional_kwargs.get("reasoning_content"):
        blocks.append(ReasoningContentBlock(type="reasoning", reasoning=thoughts))
    if message.content or citations:
        block = TextContentBlock(type="text", text=message.content)
        if citations:
            block["annotations"] = list(citations)
        blocks.append(block)
    if isinstance(message, AIMessageChunk) and message.chunk_position != "last":
        blocks += message.tool_call_chunks
    else:
        blocks += message.tool_calls
        blocks += message.invalid_tool_calls
    return blocks


register_translator(PROVIDER, _translate, _translate)
