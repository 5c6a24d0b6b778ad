"""From kept tokens back to passages of the documents' own text."""

from collections.abc import Iterator, Sequence

from finch_integrations.engine.methods.base import Choice
from finch_integrations.engine.prompt import Prompt
from finch_integrations.types import Document, Excerpt


def find_excerpts(
    prompt: Prompt, documents: Sequence[Document], choice: Choice
) -> tuple[Excerpt, ...]:
    """Return the kept passages in document order; neighbours are one excerpt.

    Headings that were put in front of a document's text are not part of it and left out.
    """
    offsets = (*prompt.offsets, len(prompt.text))
    excerpts = []
    for number, start, end, score in _runs(choice):
        document, text_start = documents[number], prompt.spans[number].text_start
        first, last = (max(0, offsets[token] - text_start) for token in (start, end))
        last = min(last, len(document.text.rstrip()))
        text = document.text[first:last]
        first += len(text) - len(text.lstrip())
        text = text.strip()
        if text:
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


def _runs(choice: Choice) -> Iterator[tuple[int, int, int, float]]:
    """Yield (document, first token, end, best score) of all runs of kept tokens."""
    kept = set(choice.kept.tolist())
    run: tuple[int, int, int, float] | None = None
    for segment, score in zip(choice.segments, choice.scores.tolist(), strict=True):
        # Only the end of a segment can be missing.
        inside = sum(token in kept for token in range(segment.start, segment.end))
        if not inside:
            continue
        end = segment.start + inside
        if run and run[0] == segment.document and run[2] == segment.start:
            run = (run[0], run[1], end, max(run[3], score))
            continue
        if run:
            yield run
        run = (segment.document, segment.start, end, score)
    if run:
        yield run
