"""From what was kept of documents to an HTML page that shows it."""

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from finch_integrations.documents import prepare_documents
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.document_tokens import DocumentTokens, tokenize_documents
from finch_integrations.engine.engine import FinchEngine
from finch_integrations.engine.selection import Selection
from finch_integrations.errors import InvalidInputError
from finch_integrations.pages import templates_of
from finch_integrations.pipeline.citations import cite
from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.report.answer import Passage, render_answer
from finch_integrations.report.kept import Kept, kept_of, kept_passages
from finch_integrations.storage import replaced
from finch_integrations.types import Document, Excerpt

# Passages quoted at the top.
_BEST = 3
# What was left out between two passages is folded if it is longer, in characters.
_LONGEST_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Report:
    """A self-contained HTML page; shown as such in notebooks.

    Attributes:
        html: The page.
    """

    html: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, atomically."""
        with replaced(Path(path)) as draft:
            draft.write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        # A frame separates the page's style from the notebook's, and nothing runs in it.
        source = html.escape(self.html)
        return (
            f'<iframe sandbox srcdoc="{source}" style="width:100%;height:40em;border:0"></iframe>'
        )


def make_report(
    engine: FinchEngine,
    documents: Iterable[Document | str | Mapping[str, Any]],
    kept: CompressedContext | Selection,
    *,
    answer: str | None = None,
    method: str | None = None,
    compare: Mapping[str, CompressedContext | Selection | Sequence[Excerpt]] | None = None,
) -> Report:
    """Show what was kept of the documents.

    Args:
        engine: The engine that made it.
        documents: As given to `compress` or `select`.
        kept: What these returned.
        answer: Shown at the top, when given, with links from its words to the passages that have
            them.
        method: How it was chosen; shown as it is.
        compare: Other ways to choose from the same documents, by name, shown next to it: what
            `compress` or `select` returned, or passages chosen by anything else.

    Raises:
        InvalidInputError: Something was chosen from other documents.
    """
    checked = prepare_documents(documents)
    tokens = tokenize_documents(engine.backbone.tokenizer, checked)
    shown = [_describe(method or "kept", checked, tokens, kept)]
    shown += [_describe(name, checked, tokens, other) for name, other in (compare or {}).items()]
    own = shown[0]
    by_share = sorted(range(len(checked)), key=lambda n: -own.shares[n] / _length(tokens, n))
    quotes = find_quotes(answer or "", checked)
    anchors = [_anchor(quote, checked, own) for quote in quotes]
    linked = None if answer is None else render_answer(answer, _places(checked, own), kept.question)
    page = (
        templates_of("finch_integrations.report")
        .get_template("report.html.jinja")
        .render(
            question=kept.question,
            answer=linked,
            citations=list(zip(cite(quotes, checked), anchors, strict=True)),
            model=engine.backbone.name,
            method=method,
            today=date.today().isoformat(),
            stats=kept.stats,
            shown=shown,
            documents=checked,
            lengths=[_length(tokens, number) for number in range(len(checked))],
            order=by_share,
            steps=_steps(own, by_share, checked),
            best=sorted(enumerate(own.excerpts, start=1), key=lambda item: -item[1].score)[:_BEST],
            longest_shown=_LONGEST_SHOWN,
        )
    )
    return Report(page)


def _describe(
    name: str,
    documents: Sequence[Document],
    tokens: DocumentTokens,
    kept: CompressedContext | Selection | Sequence[Excerpt],
) -> Kept:
    if isinstance(kept, CompressedContext | Selection):
        same = kept.stats.document_tokens == len(tokens) and [
            share.id for share in kept.document_shares
        ] == [d.id for d in documents]
        found = kept.excerpts
    else:
        same, found = True, tuple(kept)
    texts = {document.id: document.text for document in documents}
    if not same or any(
        texts.get(excerpt.document_id, "")[excerpt.start : excerpt.end] != excerpt.text
        for excerpt in found
    ):
        raise InvalidInputError(
            "what was kept is of other documents. Give those that it was chosen from"
        )
    if isinstance(kept, CompressedContext | Selection):
        return kept_of(name, documents, tokens, kept)
    return kept_passages(name, documents, tokens, found)


def _length(tokens: DocumentTokens, number: int) -> int:
    return max(1, tokens.spans[number].end - tokens.spans[number].start)


def _places(documents: Sequence[Document], kept: Kept) -> list[Passage]:
    """What words of the answer may be from: the kept passages; without any, the documents."""
    if kept.excerpts:
        return [
            Passage(excerpt.text, f"p{number}", excerpt.score)
            for number, excerpt in enumerate(kept.excerpts, start=1)
        ]
    return [
        Passage(document.text, f"d{number}", kept.shares[number - 1])
        for number, document in enumerate(documents, start=1)
    ]


def _anchor(quote: Quote, documents: Sequence[Document], kept: Kept) -> str:
    """The passage that has a quote, or else its document."""
    for number, excerpt in enumerate(kept.excerpts, start=1):
        if (
            excerpt.document_id == documents[quote.document].id
            and excerpt.start <= quote.source_start
            and quote.source_end <= excerpt.end
        ):
            return f"p{number}"
    return f"d{quote.document + 1}"


def _steps(
    kept: Kept, order: Sequence[int], documents: Sequence[Document]
) -> dict[int, tuple[int | None, int | None]]:
    """For every passage the ones before and after it on the page."""
    ids = [documents[number].id for number in order]
    numbers = sorted(
        range(1, len(kept.excerpts) + 1),
        key=lambda number: (ids.index(kept.excerpts[number - 1].document_id), number),
    )
    steps: dict[int, list[int | None]] = {number: [None, None] for number in numbers}
    for before, after in pairwise(numbers):
        steps[before][1], steps[after][0] = after, before
    return {number: (before, after) for number, (before, after) in steps.items()}
