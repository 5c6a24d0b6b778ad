"""Documents shortened to the passages that matter, as text for any other model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from finch_integrations.documents import prepare_documents
from finch_integrations.types import Document, Excerpt

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine

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
    engine: "FinchEngine",
    documents: Sequence[Document],
    question: str,
    compression: Mapping[str, Any],
    check: Callable[[], None] = lambda: None,
) -> tuple[ShortenedDocument, ...]:
    """Keep the passages that matter to a question; documents without any are left out.

    Args:
        engine: Chooses the passages.
        documents: Ids, if given, differ.
        question: The question that decides what matters.
        compression: Fields of `CompressionConfig` to change.
        check: Called after every chunk; raises to cancel.

    Raises:
        FinchError: As `FinchEngine.extract` raises it.
    """
    documents = prepare_documents(documents)
    excerpts = engine.extract(documents, question, progress=lambda _: check(), **compression)
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
