"""LlamaIndex nodes to the engine's documents."""

from collections.abc import Mapping, Sequence

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Document

# Where a node's own text begins in what is shown of the node, and its length.
_OWN_TEXT = "finch_own_text"


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


def place_in_node(document: Document, start: int, end: int) -> tuple[int, int] | None:
    """Where a stretch of a document's text stands in the text of the node that it was made of.

    Returns:
        First character and end; None if it is not, or not wholly, the node's own text.
    """
    first, length = document.metadata.get(_OWN_TEXT, (0, len(document.text)))
    place = start - first, end - first
    return place if place[0] >= 0 and place[1] <= length else None


def _from_node(node: BaseNode, score: float | None) -> Document:
    shown = node.get_content(metadata_mode=MetadataMode.LLM)
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    # Templates write the text into the metadata, by default behind it, and strip the whole.
    found = shown.rfind(text.strip())
    first = found - (len(text) - len(text.lstrip()))
    return Document(
        shown,
        id=node.node_id,
        metadata={
            **node.metadata,
            "score": score,
            _OWN_TEXT: (first, len(text) if found >= 0 else 0),
        },
    )
