"""LangChain documents to the engine's, and into a prompt's text with marks around them."""

from collections.abc import Iterable
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.prompts import PromptTemplate

from finch_integrations.documents import DocumentReader
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.document_tags import tag_document
from finch_integrations.types import Document

# What names a document, and where in its file a chunk was cut from.
_SHOWN_METADATA = ("title", "source", "document_id", "section", "start_index")


def format_docs(documents: Iterable[LangChainDocument]) -> str:
    """Write documents into a prompt so that `ChatFinch` finds exactly them again.

    Ids, titles, sources and the places of chunks are written, too. Marks inside the documents'
    texts are escaped.

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
        ConfigurationError: A name cannot be written in a mark.
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


def from_langchain(document: LangChainDocument) -> Document:
    """Convert one document; id and title may be in its metadata."""
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


def _own(item: object) -> Document | None:
    return from_langchain(item) if isinstance(item, LangChainDocument) else None


_READER = DocumentReader(
    convert=_own,
    text_keys=("text", "page_content"),
    ignored_keys=frozenset({"type"}),  # a dumped document names its class
    title_in_metadata=True,
)


def as_documents(items: object, name: str) -> tuple[Document, ...]:
    """Take LangChain documents, the engine's, strings or mappings.

    Args:
        items: Documents. Mappings have `text` or `page_content`, and may have `id`, `title`
            and `metadata`.
        name: What to call them in errors.

    Raises:
        InvalidInputError: They are not a list, there are none, or one is of another type.
    """
    return _READER.read(items, name)
