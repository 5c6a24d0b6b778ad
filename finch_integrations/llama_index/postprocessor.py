"""FinchNodePostprocessor: retrieved nodes shortened for any LLM, remote ones included."""

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from finch_integrations.documents import with_unique_ids
from finch_integrations.errors import InvalidInputError
from finch_integrations.llama_index.fields import ByName, ModelKwargs
from finch_integrations.pipeline.options import make_compression, refuse_unknown
from finch_integrations.pipeline.shared_engine import SharedEngine, handle_of, resolve_model
from finch_integrations.pipeline.shorten import EXCERPTS_KEY, ShortenedDocument
from finch_integrations.types import Document


class FinchNodePostprocessor(BaseNodePostprocessor):
    """Shortens nodes to the passages that matter to the query, as text.

    A small local model chooses; any LLM answers. Nodes keep their order, ids, scores and metadata;
    `metadata["finch_excerpts"]`, which models do not see, holds every kept passage's place in the
    original text and its score. Nodes of which nothing is kept are left out; nodes without
    text pass as they are.

    Example:
        shorten = FinchNodePostprocessor(target_size=1000)
        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[shorten])

    Attributes:
        model: `embedded`, a folder, a `.gguf` file or a hub id.
        engine: A model that is already loaded, instead of `model`: an `SharedEngine` or a
            `FinchEngine`.
        device: Default: the accelerator if there is one.
        dtype: Default: by device.
        model_kwargs: Passed to transformers' `from_pretrained`.
        target_size: Tokens to keep of all nodes together.
        compression_ratio: Fraction of the tokens to remove, instead of `target_size`.
        compression: Further fields of `CompressionConfig`.
    """

    model: str = "embedded"
    engine: SharedEngine | None = Field(default=None, exclude=True, repr=False)
    device: ByName = None
    dtype: ByName = "auto"
    model_kwargs: ModelKwargs = Field(default_factory=dict, repr=False)
    target_size: int | None = None
    compression_ratio: float | None = None
    compression: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_loaded_models(cls, values: Any) -> Any:
        """Refuse unknown options, and put a loaded model behind a handle, which is never copied."""
        if not isinstance(values, Mapping):
            return values
        refuse_unknown(values, cls.model_fields, owner="FinchNodePostprocessor")
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

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised settings."""
        return "FinchNodePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        documents, places = _documents(nodes)
        if not documents:
            return nodes
        query = _query(query_bundle)
        return _shortened(
            nodes, places, self._handle.shorten(documents, query, self._compression())
        )

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        documents, places = _documents(nodes)
        if not documents:
            return nodes
        query = _query(query_bundle)
        parts = await self._handle.ashorten(documents, query, self._compression())
        return _shortened(nodes, places, parts)

    def _compression(self) -> dict[str, Any]:
        return make_compression(
            self.compression,
            target_size=self.target_size,
            compression_ratio=self.compression_ratio,
        )


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise InvalidInputError(
            "there is no query to shorten the nodes for. Call postprocess_nodes(nodes, query_str=…)"
        )
    return bundle.query_str


def _documents(nodes: list[NodeWithScore]) -> tuple[tuple[Document, ...], list[int]]:
    """Return the nodes that have text, as documents, and which nodes they are."""
    texts = [node.node.get_content(MetadataMode.NONE) for node in nodes]
    places = [place for place, text in enumerate(texts) if text.strip()]
    documents = [Document(texts[place], id=nodes[place].node.node_id) for place in places]
    return with_unique_ids(documents), places


def _shortened(
    nodes: list[NodeWithScore], places: list[int], parts: tuple[ShortenedDocument, ...]
) -> list[NodeWithScore]:
    by_place = {places[part.index]: part for part in parts}
    result = []
    for place, node in enumerate(nodes):
        if place not in places:
            result.append(node)
        elif place in by_place:
            result.append(_with_text(node, by_place[place]))
    return result


def _with_text(node: NodeWithScore, part: ShortenedDocument) -> NodeWithScore:
    copy = node.node.model_copy(deep=True)
    copy.set_content(part.text)
    copy.metadata[EXCERPTS_KEY] = part.excerpts_as_metadata()
    for keys in (copy.excluded_llm_metadata_keys, copy.excluded_embed_metadata_keys):
        keys.append(EXCERPTS_KEY)
    return NodeWithScore(node=copy, score=node.score)
