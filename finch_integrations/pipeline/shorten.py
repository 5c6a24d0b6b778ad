"""Documents shortened to the passages that matter to a question, as text for any model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finch_integrations.types import Document, Excerpt

# Where adapters put the excerpts in a document's metadata.
EXCERPTS_KEY = "finch_excerpts"
# Marks where text was left out between two passages.
GAP = "\n[…]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortenedDocument:
    """What is left of a document.

    Attributes:
        index: Which of the documents it was.
        text: Its kept passages in order; `[…]` marks where something was left out between them.
        excerpts: The passages with their places in the document.
    """

    index: int
    text: str
    excerpts: tuple[Excerpt, ...]

    def excerpts_as_metadata(self) -> list[dict[str, Any]]:
        """The excerpts as plain data, without the id of their document."""
        return [
            {name: value for name, value in asdict(excerpt).items() if name != "document_id"}
            for excerpt in self.excerpts
        ]


def shorten(
    documents: Sequence[Document], excerpts: Sequence[Excerpt]
) -> tuple[ShortenedDocument, ...]:
    """Cut documents down to their excerpts; documents without any are left out.

    Args:
        documents: With ids that differ.
        excerpts: Of a selection of them, in document order.
    """
    shortened = []
    for index, document in enumerate(documents):
        own = tuple(excerpt for excerpt in excerpts if excerpt.document_id == document.id)
        if own:
            text = _join(document.text, own)
            shortened.append(ShortenedDocument(index=index, text=text, excerpts=own))
    return tuple(shortened)


def _join(text: str, excerpts: Sequence[Excerpt]) -> str:
    """Join passages; what is between neighbours is kept if it is only white space."""
    joined, end = "", None
    for excerpt in excerpts:
        if end is not None:
            between = text[end : excerpt.start]
            joined += GAP if between.strip() else between
        joined += excerpt.text
        end = excerpt.end
    return joined
