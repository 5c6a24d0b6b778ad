"""What an answer repeats of its documents, with its place in the file they came from."""

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
        end: Behind its last character in the answer.
        document_id: Id of the whole document.
        source: Where the document came from, such as a file's path; its id if that is not known.
        section: The heading that the words stand under.
        source_start: First character in the whole document's text.
        source_end: Behind its last character there.
        text: The words as the document has them.
    """

    start: int
    end: int
    document_id: str
    source: str
    section: str | None
    source_start: int
    source_end: int
    text: str


def cite(quotes: Sequence[Quote], documents: Sequence[Document]) -> tuple[Citation, ...]:
    """Trace quotes back to the files that the documents, or chunks of documents, came from.

    Args:
        quotes: Of an answer.
        documents: That the quotes were found in; each with an id.
    """
    return tuple(_citation(quote, documents[quote.document]) for quote in quotes)


def _citation(quote: Quote, document: Document) -> Citation:
    metadata = document.metadata
    # A chunk's place in its document; whole documents start at 0. Metadata may be anybody's.
    start = metadata.get("start_index")
    offset = start if isinstance(start, int) else 0
    section = heading_at(find_headings(document.text), quote.source_start)
    id = str(metadata.get("document_id", document.id))
    return Citation(
        start=quote.start,
        end=quote.end,
        document_id=id,
        source=str(metadata.get("source") or id),
        section=section or metadata.get("section"),
        source_start=quote.source_start + offset,
        source_end=quote.source_end + offset,
        text=document.text[quote.source_start : quote.source_end],
    )
