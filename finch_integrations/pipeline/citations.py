"""What an answer repeats from its documents, with its place in the files that they came from."""

from collections.abc import Sequence
from dataclasses import dataclass

from finch_integrations.pipeline.quotes import Quote
from finch_integrations.retrieval.chunking import find_headings, heading_at
from finch_integrations.types import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A run of words that the answer shares with a document.

    Attributes:
        start: First character in the answer.
        end: The character after its last one in the answer.
        document_id: Id of the whole document.
        source: Where the document came from, such as a file's path; its id if that is not known.
        section: The heading that the words are under.
        source_start: First character in the whole document's text; None if the words are in a part
            of it that does not say where it begins.
        source_end: The character after its last one there, or None.
        text: The words as the document has them.
    """

    start: int
    end: int
    document_id: str
    source: str
    section: str | None
    source_start: int | None
    source_end: int | None
    text: str


def cite(quotes: Sequence[Quote], documents: Sequence[Document]) -> tuple[Citation, ...]:
    """Trace quotes back to the files that the documents, or chunks of documents, came from.

    Args:
        quotes: Of an answer.
        documents: The documents that the quotes were found in; each with an id.
    """
    return tuple(_citation(quote, documents[quote.document]) for quote in quotes)


def _citation(quote: Quote, document: Document) -> Citation:
    metadata = document.metadata
    offset = _offset(document)
    section = heading_at(find_headings(document.text), quote.source_start)
    id = str(metadata.get("document_id", document.id))
    return Citation(
        start=quote.start,
        end=quote.end,
        document_id=id,
        source=str(metadata.get("source") or id),
        section=section or metadata.get("section"),
        source_start=None if offset is None else quote.source_start + offset,
        source_end=None if offset is None else quote.source_end + offset,
        text=document.text[quote.source_start : quote.source_end],
    )


def _offset(document: Document) -> int | None:
    """Where the text begins in the whole document; None if that is not known.

    Metadata can come from anywhere, and has become text in a prompt's marks.
    """
    metadata = document.metadata
    start = metadata.get("start_index")
    if isinstance(start, str) and start.isdecimal():
        start = int(start)
    if isinstance(start, int) and start >= 0:
        return start
    if "document_id" in metadata:
        whole = str(metadata["document_id"]) == document.id
    else:
        whole = not metadata.get("source")  # else it may be a chunk of that
    return 0 if whole else None
