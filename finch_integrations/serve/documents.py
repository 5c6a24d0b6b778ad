"""Documents as clients send them."""

from collections.abc import Sequence
from urllib.parse import quote

from finch_integrations.documents import DocumentReader, read_flat_fields
from finch_integrations.serve.schemas import DocumentField
from finch_integrations.types import Document

_READER = DocumentReader(
    one="an object with a text",
    read_fields=read_flat_fields,
    if_empty="{name} is an empty list. Leave it out to ask without documents",
)


def read_documents(items: Sequence[DocumentField]) -> tuple[Document, ...]:
    """Take texts, objects with a text, and Cohere's `{id, data}`.

    Raises:
        InvalidInputError: There is none, or one cannot be used.
    """
    return _READER.read(items)


def url_of(document: Document) -> str:
    """Where a document is: its address if it has one, else a name, which is never opened."""
    for key in ("url", "source"):
        value = document.metadata.get(key)
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            return value
    return f"urn:document:{quote(document.id or '', safe='')}"
