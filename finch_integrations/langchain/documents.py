"""LangChain documents to the engine's, and into a prompt's text with marks around them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.prompts import PromptTemplate

from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.pipeline.document_tags import tag_document
from finch_integrations.types import Document

# What calls a document by its name, and where in its file a chunk was cut out.
_SHOWN_METADATA = ("title", "source", "document_id", "section", "start_index")


def format_docs(documents: Iterable[LangChainDocument]) -> str:
    """Write documents into a prompt so that `ChatFinch` finds exactly them again.

    Ids, titles, sources and the places of chunks come along. Marks inside the documents' texts
    are escaped.

    Args:
        documents: Retrieved documents.

    Example:
        chain = {"context": retriever | format_docs, "question": RunnablePassthrough()} | ...
    """
    marked = [
        tag_document(
            document.page_content,
            {"id": document.id, **{name: document.metadata.get(name) for name in _SHOWN_METADATA}},
        )
        for document in documents
    ]
    return "\n".join(["<documents>", *marked, "</documents>"])


def document_prompt(*metadata: str) -> PromptTemplate:
    """Make a prompt for single documents whose marks `ChatFinch` recognises exactly.

    For chains that format the documents themselves, such as `create_stuff_documents_chain`.

    Args:
        metadata: Names of metadata to write into the marks; every document must have them. With
            `source` documents keep their name, with `document_id`, `section` and `start_index`
            the chunks of a `FinchRetriever` their place in it.

    Raises:
        ConfigurationError: A name cannot stand in a mark.
    """
    for name in metadata:
        if not name.isidentifier() or name == "page_content":
            raise ConfigurationError(
                f"{name!r} cannot name metadata in a document's marks; give plain names such as "
                "'source'"
            )
    return _DocumentPrompt(
        template="{page_content}" + "".join(f"{{{name}}}" for name in metadata),
        input_variables=["page_content", *metadata],
    )


class _DocumentPrompt(PromptTemplate):
    """Writes marks around a document, which a format string cannot escape."""

    def format(self, **kwargs: Any) -> str:
        """Write one document."""
        return tag_document(kwargs.pop("page_content"), kwargs)


def as_documents(items: object, name: str) -> tuple[Document, ...]:
    """Take LangChain documents, strings or mappings.

    Args:
        items: Documents. Mappings have `text` or `page_content`, and may have `id`, `title`
            and `metadata`.
        name: What to call them in errors.

    Raises:
        InvalidInputError: They are no list, there are none, or one is of another kind.
    """
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise InvalidInputError(
            f"{name} must be a list of documents, got {type(items).__name__}. "
            "Put a single document into a list: [document]"
        )
    if not items:
        raise InvalidInputError(f"{name} is an empty list. Leave it out to ask without documents")
    return tuple(_as_document(item, f"{name}[{n}]") for n, item in enumerate(items))


def from_langchain(document: LangChainDocument) -> Document:
    """Convert one document; id and title may stand in its metadata."""
    title = document.metadata.get("title")
    id = document.id or document.metadata.get("id")
    return Document(
        document.page_content,
        id=None if id is None else str(id),
        title=str(title) if title else None,
        metadata=document.metadata,
    )


def to_langchain(document: Document) -> LangChainDocument:
    """Convert one document; its title goes into the metadata."""
    title = {} if document.title is None else {"title": document.title}
    return LangChainDocument(document.text, id=document.id, metadata={**title, **document.metadata})


def _as_document(item: object, name: str) -> Document:
    if isinstance(item, LangChainDocument):
        return from_langchain(item)
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(item)
    if not isinstance(item, Mapping):
        raise InvalidInputError(
            f"{name} must be a Document, a string or a mapping, got {type(item).__name__}"
        )
    texts = [key for key in ("text", "page_content") if key in item]
    unknown = item.keys() - {"text", "page_content", "id", "title", "metadata", "type"}
    if len(texts) != 1 or unknown:
        raise InvalidInputError(
            f"{name} must have the key 'text' or 'page_content' and may have 'id', 'title' and "
            f"'metadata', got the keys {', '.join(map(repr, item)) or 'none'}"
        )
    metadata = item.get("metadata") or {}
    title = item.get("title") or metadata.get("title")
    return Document(item[texts[0]], id=item.get("id"), title=title, metadata=metadata)
