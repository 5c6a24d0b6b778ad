"""LlamaIndex nodes to the engine's documents."""

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from finch_integrations.documents import DocumentReader, read_flat_fields
from finch_integrations.types import Document

# Where a node's own text begins in what is shown of the node, and its length.
_OWN_TEXT = "finch_own_text"


def place_in_node(document: Document, start: int, end: int) -> tuple[int, int] | None:
    """Where a stretch of a document's text is in the text of the node that it was made of.

    Returns:
        First character and end; None if it is not, or not only, the node's own text.
    """
    first, length = document.metadata.get(_OWN_TEXT, (0, len(document.text)))
    place = start - first, end - first
    return place if place[0] >= 0 and place[1] <= length else None


def from_node(node: BaseNode, score: float | None) -> Document:
    """Convert one node; its text is what LlamaIndex shows to models.

    One without a text of its own, such as an image, is blank whatever its metadata says.
    """
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    shown = node.get_content(metadata_mode=MetadataMode.LLM) if text.strip() else ""
    # Templates write metadata and text together, by default the text last, and strip the result.
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


def _own(item: object) -> Document | None:
    if isinstance(item, NodeWithScore):
        return from_node(item.node, item.score)
    return from_node(item, None) if isinstance(item, BaseNode) else None


_READER = DocumentReader(
    convert=_own,
    one="a node, a Document",
    many="nodes or documents",
    read_fields=read_flat_fields,
    skip_blank=True,
)


def as_documents(items: object, name: str) -> tuple[Document, ...]:
    """Take nodes with or without scores, the engine's documents, strings or mappings.

    A node's text is what LlamaIndex shows to models: with its metadata above it, except for
    `excluded_llm_metadata_keys`.

    Args:
        items: Documents; blank ones, such as images, are set aside. Mappings have their text as
            `text` or `content`; what else they have is metadata.
        name: What to call them in errors.

    Raises:
        InvalidInputError: They are not a list, all are blank, or one is of another type.
    """
    return _READER.read(items, name)
