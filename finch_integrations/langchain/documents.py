"""LangChain documents to the engine's, and into a prompt's text with marks around them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.prompts import PromptTemplate

from finch_integrations.documents import DocumentReader, read_flat_fields
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.pipeline.document_tags import tag_document
from finch_integrations.types import Document

# What names a document, and where in its file a chunk was cut from.
_ITEMS = 50
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


def documents_in(value: object, *, flat: bool = False, depth: int = 3) -> Iterator[Document]:
    """Find documents, also dumped ones, in lists and mappings.

    Of a list that begins with something else, and of a mapping, only the first items count.

    Args:
        value: What a chain or a tool has passed on.
        flat: Whether any mapping with a text is a document.
        depth: How deep they may be.
    """
    if isinstance(value, LangChainDocument):
        yield from_langchain(value)
    elif isinstance(value, Mapping):
        dumped = _dumped(value, flat)
        if dumped is not None:
            yield dumped
        elif depth:
            for item in [*value.values()][:_ITEMS]:
                yield from documents_in(item, flat=flat, depth=depth - 1)
    elif isinstance(value, list | tuple) and depth:
        first = next(documents_in(value[0], flat=flat, depth=0), None) if value else None
        for item in value[:_ITEMS] if first is None else value:
            yield from documents_in(item, flat=flat, depth=depth - 1 if first is None else 0)


def _dumped(item: Mapping[Any, Any], flat: bool) -> Document | None:
    inner = item.get("kwargs", item)
    if not isinstance(inner, Mapping) or not (flat or "page_content" in inner):
        return None
    try:
        (document,) = _READER.read([item], "it")
    except InvalidInputError:
        return None
    usable = isinstance(document.text, str) and isinstance(document.id, str | None)
    return document if usable else None


def to_langchain(document: Document) -> LangChainDocument:
    """Convert one document; its title goes into the metadata."""
    title = {} if document.title is None else {"title": document.title}
    return LangChainDocument(document.text, id=document.id, metadata={**title, **document.metadata})


def read_dumped(item: Mapping[Any, Any], label: str) -> dict[str, Any]:
    """Read a mapping as `read_flat_fields` does; a dumped document names its class, too."""
    if item.get("type") == "constructor" and isinstance(item.get("kwargs"), Mapping):
        item = item["kwargs"]
    fields = {name: value for name, value in item.items() if name != "type"}
    return read_flat_fields(fields, label)


def _own(item: object) -> Document | None:
    return from_langchain(item) if isinstance(item, LangChainDocument) else None


_READER = DocumentReader(
    convert=_own,
    read_fields=read_dumped,
    skip_blank=True,
)


def as_documents(items: object, name: str) -> tuple[Document, ...]:
    """Take LangChain documents, the engine's, strings or mappings.

    Args:
        items: Documents; blank ones are set aside. Mappings have their text as `text`,
            `page_content` or `content`, also in `data` as Cohere has it; what else they have is
            metadata.
        name: What to call them in errors.

    Raises:
        InvalidInputError: They are not a list, all are blank, or one is of another type.
    """
    return _READER.read(items, name)
