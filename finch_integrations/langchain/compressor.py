"""FinchCompressor: retrieved documents shortened for any chat model, remote ones included."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, model_validator

from finch_integrations.documents import with_unique_ids
from finch_integrations.langchain.documents import from_langchain
from finch_integrations.pipeline.options import make_compression, refuse_unknown
from finch_integrations.pipeline.shared_engine import SharedEngine, handle_of, resolve_model
from finch_integrations.pipeline.shorten import EXCERPTS_KEY, ShortenedDocument
from finch_integrations.types import Document as EngineDocument


class FinchCompressor(BaseDocumentCompressor):
    """Shortens documents to the passages that matter to the query, as text.

    A small local model chooses; any model answers. Documents keep their order, ids and metadata;
    `metadata["finch_excerpts"]` holds every kept passage's place in the original text and its
    score. Documents of which nothing is kept, and blank ones, are left out.

    Example:
        retriever = ContextualCompressionRetriever(
            base_compressor=FinchCompressor(target_size=1000), base_retriever=retriever
        )

    Attributes:
        model: `embedded`, a folder, a `.gguf` file or a hub id.
        engine: A model that is already loaded, instead of `model`: an `SharedEngine` or a
            `FinchEngine`.
        device: Default: the accelerator if there is one.
        dtype: Default: by device.
        model_kwargs: Passed to transformers' `from_pretrained`.
        target_size: Tokens to keep of all documents together.
        compression_ratio: Fraction of the tokens to remove, instead of `target_size`.
        compression: Further fields of `CompressionConfig`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str = "embedded"
    engine: SharedEngine | None = Field(default=None, exclude=True, repr=False)
    device: Any = None
    dtype: Any = "auto"
    model_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    target_size: int | None = None
    compression_ratio: float | None = None
    compression: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_loaded_models(cls, values: Any) -> Any:
        """Refuse unknown options, and put a loaded model behind a handle, which is never copied."""
        if not isinstance(values, Mapping):
            return values
        refuse_unknown(values, cls.model_fields, owner="FinchCompressor")
        model, engine = resolve_model(values.get("model"), None, values.get("engine"))
        return {**values, "model": model, "engine": engine}

    @model_validator(mode="after")
    def _set_finch_up(self) -> Self:
        # Wrong values are named now, not at the first call.
        _ = self._handle
        self._compression()
        return self

    @property
    def _handle(self) -> SharedEngine:
        """Of the fields as they are now: copies and assignments may have changed them."""
        return handle_of(self)

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
        return _to_langchain(written, self._handle.shorten(prepared, query, self._compression()))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Shorten documents without blocking the event loop; arguments as above."""
        written, prepared = _prepare(documents)
        if not written:
            return []
        return _to_langchain(
            written, await self._handle.ashorten(prepared, query, self._compression())
        )

    def _compression(self) -> dict[str, Any]:
        return make_compression(
            self.compression,
            target_size=self.target_size,
            compression_ratio=self.compression_ratio,
        )


def _prepare(documents: Sequence[Document]) -> tuple[list[Document], tuple[EngineDocument, ...]]:
    """The documents that are not blank, as scanned pages are, and the same for the engine."""
    written = [document for document in documents if document.page_content.strip()]
    return written, with_unique_ids([from_langchain(document) for document in written])


def _to_langchain(
    documents: Sequence[Document], shortened: Sequence[ShortenedDocument]
) -> list[Document]:
    return [
        Document(
            page_content=part.text,
            id=documents[part.index].id,
            metadata={
                **documents[part.index].metadata,
                EXCERPTS_KEY: part.excerpts_as_metadata(),
            },
        )
        for part in shortened
    ]
