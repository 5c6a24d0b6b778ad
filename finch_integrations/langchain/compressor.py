"""FinchCompressor: retrieved documents shortened for any chat model, remote ones included."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field, PrivateAttr, model_validator

from finch_integrations.config import CompressionConfig, with_overrides
from finch_integrations.documents import with_unique_ids
from finch_integrations.errors import ConfigurationError
from finch_integrations.langchain.documents import from_langchain
from finch_integrations.pipeline.handle import EngineHandle
from finch_integrations.pipeline.shorten import ShortenedDocument


class FinchCompressor(BaseDocumentCompressor):
    """Shortens documents to the passages that matter to the query, as text.

    A small local model chooses; any model answers. Documents keep their order, ids and metadata;
    `metadata["finch_excerpts"]` holds every kept passage's place in the original text and its
    score. Documents of which nothing is kept are left out.

    Example:
        retriever = ContextualCompressionRetriever(
            base_compressor=FinchCompressor(target_size=1000), base_retriever=retriever
        )

    Attributes:
        model: `embedded`, a folder, a `.gguf` file or a hub id.
        engine: A model that is already loaded, instead of `model`: an `EngineHandle` or a
            `FinchEngine`.
        device: Default: the accelerator if there is one.
        dtype: Default: by device.
        model_kwargs: Passed to transformers' `from_pretrained`.
        target_size: Tokens to keep of all documents together.
        compression_ratio: Fraction of the tokens to remove, instead of `target_size`.
        compression: Further fields of `CompressionConfig`.
    """

    model: str = "embedded"
    engine: Any = Field(default=None, exclude=True, repr=False)
    device: Any = None
    dtype: Any = "auto"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    target_size: int | None = None
    compression_ratio: float | None = None
    compression: dict[str, Any] = Field(default_factory=dict)

    _handle: EngineHandle = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_options(cls, values: Any) -> Any:
        unknown = values.keys() - cls.model_fields if isinstance(values, Mapping) else ()
        if unknown:
            raise ConfigurationError(
                f"FinchCompressor has no option {', '.join(map(repr, sorted(unknown)))}; "
                f"known: {', '.join(sorted(cls.model_fields))}"
            )
        return values

    @model_validator(mode="after")
    def _make_handle(self) -> "FinchCompressor":
        if isinstance(self.engine, EngineHandle):
            self._handle = self.engine
        else:
            self._handle = EngineHandle(
                self.model if self.engine is None else self.engine,
                device=self.device,
                dtype=self.dtype,
                model_kwargs=self.model_kwargs,
            )
        with_overrides(CompressionConfig(), self._overrides())  # wrong values are named now
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Shorten documents.

        Raises:
            FinchError: As `FinchEngine.extract` raises it.
        """
        if not documents:
            return []
        prepared = with_unique_ids([from_langchain(document) for document in documents])
        return _to_langchain(documents, self._handle.shorten(prepared, query, self._overrides()))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Shorten documents without blocking the event loop; arguments as above."""
        if not documents:
            return []
        prepared = with_unique_ids([from_langchain(document) for document in documents])
        return _to_langchain(
            documents, await self._handle.ashorten(prepared, query, self._overrides())
        )

    def _overrides(self) -> dict[str, Any]:
        budgets = {"target_size": self.target_size, "compression_ratio": self.compression_ratio}
        return self.compression | {k: v for k, v in budgets.items() if v is not None}


def _to_langchain(
    documents: Sequence[Document], shortened: Sequence[ShortenedDocument]
) -> list[Document]:
    return [
        Document(
            page_content=part.text,
            id=documents[part.index].id,
            metadata={
                **documents[part.index].metadata,
                "finch_excerpts": [
                    {k: v for k, v in asdict(excerpt).items() if k != "document_id"}
                    for excerpt in part.excerpts
                ],
            },
        )
        for part in shortened
    ]
