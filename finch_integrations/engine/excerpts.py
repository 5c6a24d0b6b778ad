"""From kept tokens back to passages of the documents' own text."""

from collections.abc import Sequence

from finch_integrations.engine.methods.base import Choice
from finch_integrations.engine.prompt import Prompt
from finch_integrations.types import Document, Excerpt


def find_excerpts(
    prompt: Prompt, documents: Sequence[Document], choice: Choice
) -> tuple[Excerpt, ...]:
    """Return the kept part of every segment, in document order.

    Headings that were put in front of a document's text are not part of it and left out.
    """
    kept = set(choice.kept.tolist())
    offsets = (*prompt.offsets, len(prompt.text))
    excerpts = []
    for segment, score in zip(choice.segments, choice.scores.tolist(), strict=True):
        # Only the end of a segment can be missing.
        length = sum(token in kept for token in range(segment.start, segment.end))
        document = documents[segment.document]
        text_start = prompt.spans[segment.document].text_start
        first, last = (
            max(0, offsets[token] - text_start) for token in (segment.start, segment.start + length)
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
                    score=score,
                )
            )
    return tuple(excerpts)
