"""FinchCompressor: retrieved documents shortened for any chat model, remote ones included."""

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from finch_integrations.adapters.choosing import ChoosingAdapter
from finch_integrations.langchain.documents import from_langchain
from finch_integrations.pipeline.chooser import Choice
from finch_integrations.pipeline.shorten import EXCERPTS_KEY
from finch_integrations.types import Document as EngineDocument


class FinchCompressor(ChoosingAdapter, BaseDocumentCompressor):
    """Shortens documents to the passages that matter to the question, as text.

    A small local model chooses; any model answers. Documents keep their order, ids and metadata;
    `metadata["finch_excerpts"]` has every kept passage's place in the original text and its
    score. Documents of which nothing is kept, and blank documents, are left out.

    Example:
        retriever = ContextualCompressionRetriever(
            base_compressor=FinchCompressor(target_size=1000), base_retriever=retriever
        )

    Its options are those of `ChoosingAdapter`; the budget is for all documents together.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Shorten documents.

        Raises:
            FinchError: As `FinchEngine.extract` raises it.
        """
        written, prepared = _prepare(documents)
        if not written:
            return []
        return _to_langchain(written, self.chooser.choose(prepared, query))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Shorten documents without blocking the event loop; arguments as above."""
        written, prepared = _prepare(documents)
        if not written:
            return []
        return _to_langchain(written, await self.chooser.achoose(prepared, query))


def _prepare(documents: Sequence[Document]) -> tuple[list[Document], tuple[EngineDocument, ...]]:
    """The documents that are not blank, as scanned pages are, and the same for the engine."""
    written = [document for document in documents if document.page_content.strip()]
    return written, tuple(from_langchain(document) for document in written)


def _to_langchain(documents: Sequence[Document], choice: Choice) -> list[Document]:
    return [
        Document(
            page_content=part.text,
            id=documents[part.index].id,
            metadata={
                **documents[part.index].metadata,
                EXCERPTS_KEY: part.excerpts_as_metadata(),
            },
        )
        for part in choice.shortened
    ]
