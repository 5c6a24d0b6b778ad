"""From kept segments to passages of the documents' text."""

from collections.abc import Sequence

from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.segments import Segment
from finch_integrations.types import Document, Excerpt


def find_excerpts(
    documents: Sequence[Document], tokens: DocumentTokens, kept: Sequence[Segment]
) -> tuple[Excerpt, ...]:
    """Return the text of kept segments, in document order.

    Headings that were added before a document's text are not part of it and are left out.

    Args:
        documents: With their ids.
        tokens: Their tokens.
        kept: What was kept, with its scores.
    """
    excerpts = []
    for segment in sorted(kept):
        document = documents[segment.document]
        text_start = tokens.spans[segment.document].text_start
        first, last = (
            max(0, tokens.offset(token) - text_start) for token in (segment.start, segment.end)
        )
        text = document.text[first:last].rstrip()
        first += len(text) - len(text.lstrip())
        if text := text.lstrip():
            excerpts.append(
                Excerpt(
                    document_id=str(document.id),
                    start=first,
                    end=first + len(text),
                    text=text,
                    score=segment.score,
                )
            )
    return tuple(excerpts)
