"""FinchNodePostprocessor: retrieved nodes shortened for any LLM, remote ones included."""

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from finch_integrations.adapters.choosing import ChoosingAdapter
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.chooser import Choice
from finch_integrations.pipeline.shorten import EXCERPTS_KEY, ShortenedDocument
from finch_integrations.types import Document


class FinchNodePostprocessor(ChoosingAdapter, BaseNodePostprocessor):
    """Shortens nodes to the passages that matter to the question, as text.

    A small local model chooses; any LLM answers. Nodes keep their order, ids, scores and metadata;
    `metadata["finch_excerpts"]`, which models do not see, has every kept passage's place in the
    original text and its score. Nodes of which nothing is kept are left out; nodes without text are
    passed on unchanged.

    Example:
        shorten = FinchNodePostprocessor(target_size=1000)
        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[shorten])

    Its options are those of `ChoosingAdapter`; the budget is for all nodes together.
    """

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
        return _shortened(nodes, places, self.chooser.choose(documents, query))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        documents, places = _documents(nodes)
        if not documents:
            return nodes
        query = _query(query_bundle)
        return _shortened(nodes, places, await self.chooser.achoose(documents, query))


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
    return tuple(documents), places


def _shortened(
    nodes: list[NodeWithScore], places: list[int], choice: Choice
) -> list[NodeWithScore]:
    by_place = {places[part.index]: part for part in choice.shortened}
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
