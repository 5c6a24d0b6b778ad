"""LlamaIndex nodes to the engine's documents."""

from collections.abc import Mapping, Sequence

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Document


def as_documents(items: object, name: str) -> tuple[Document, ...]:
    """Take nodes with or without scores, the engine's documents, strings or mappings.

    A node's text is what LlamaIndex shows to models: with its metadata above it, except for
    `excluded_llm_metadata_keys`.

    Args:
        items: Documents. Mappings have the fields of `Document`.
        name: What to call them in errors.

    Raises:
        InvalidInputError: They are no list, there are none, or one is of another kind.
    """
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise InvalidInputError(
            f"{name} must be a list of nodes or documents, got {type(items).__name__}. "
            "Put a single one into a list: [node]"
        )
    if not items:
        raise InvalidInputError(f"{name} is an empty list. Leave it out to ask without documents")
    return tuple(_as_document(item, f"{name}[{n}]") for n, item in enumerate(items))


def _as_document(item: object, name: str) -> Document:
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(item)
    if isinstance(item, NodeWithScore):
        return _from_node(item.node, item.score)
    if isinstance(item, BaseNode):
        return _from_node(item, None)
    if not isinstance(item, Mapping):
        raise InvalidInputError(
            f"{name} must be a node, a Document, a string or a mapping, got {type(item).__name__}"
        )
    if "text" not in item or item.keys() - {"text", "id", "title", "metadata"}:
        raise InvalidInputError(
            f"{name} must have the key 'text' and may have 'id', 'title' and 'metadata', "
            f"got the keys {', '.join(map(repr, item)) or 'none'}"
        )
    return Document(**item)


def _from_node(node: BaseNode, score: float | None) -> Document:
    return Document(
        node.get_content(metadata_mode=MetadataMode.LLM),
        id=node.node_id,
        metadata={**node.metadata, "score": score},
    )
