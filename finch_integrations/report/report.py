"""From a compressed context to an HTML page that shows what was kept of the documents."""

import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor

from finch_integrations.documents import prepare_documents
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.document_tokens import DocumentTokens, tokenize_documents
from finch_integrations.engine.engine import FinchEngine
from finch_integrations.errors import InvalidInputError
from finch_integrations.storage import replaced
from finch_integrations.types import Document, DocumentShare

# Columns of the per-layer picture.
_BINS = 160
# Passages quoted at the top.
_BEST = 3
# Kept passages are at least this dark, so that the weakest is visible.
_FAINTEST = 0.25


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
        # A frame separates the page's style from the notebook's.
        source = html.escape(self.html)
        return f'<iframe srcdoc="{source}" style="width:100%;height:40em;border:0"></iframe>'


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch of text and how strongly it was kept: 0 (dropped) to 1."""

    text: str
    strength: float
    hint: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A document in the page."""

    share: DocumentShare
    runs: tuple[_Run, ...]


def make_report(
    engine: FinchEngine,
    documents: Iterable[Document | str | Mapping[str, Any]],
    context: CompressedContext,
    *,
    answer: str | None = None,
) -> Report:
    """Show what was kept of the documents.

    Args:
        engine: The engine that made the context.
        documents: As given to `compress`.
        context: What `compress` returned.
        answer: Shown above, when given.

    Raises:
        InvalidInputError: The context belongs to other documents.
    """
    checked = prepare_documents(documents)
    tokens = tokenize_documents(engine.backbone.tokenizer, checked)
    ids = [document.id for document in checked]
    if (
        len(tokens) != context.stats.document_tokens
        or [share.id for share in context.document_shares] != ids
    ):
        raise InvalidInputError(
            "the context was made from other documents. Give those that were compressed"
        )
    parts = [
        _Part(share, tuple(runs))
        for share, runs in zip(
            context.document_shares,
            _passages(checked, context) if context.excerpts else _tokens(tokens, context),
            strict=True,
        )
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finch_integrations.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.jinja").render(
        question=context.question,
        answer=answer,
        model=engine.backbone.name,
        stats=context.stats,
        parts=parts,
        best=sorted(context.excerpts, key=lambda excerpt: -excerpt.score)[:_BEST],
        numbers={document.id: number for number, document in enumerate(checked, start=1)},
        layers=_density(context.kept, context.stats.document_tokens).tolist(),
    )
    return Report(page)


def _passages(documents: Sequence[Document], context: CompressedContext) -> Iterator[list[_Run]]:
    """Split every document at its excerpts; the best excerpt is the darkest."""
    scores = [excerpt.score for excerpt in context.excerpts]
    low, high = min(scores), max(scores)
    for document in documents:
        runs, position = [], 0
        for excerpt in context.excerpts:
            if excerpt.document_id != document.id:
                continue
            runs.append(_Run(document.text[position : excerpt.start], 0, ""))
            relative = (excerpt.score - low) / (high - low) if high > low else 1.0
            strength = _FAINTEST + (1 - _FAINTEST) * relative
            runs.append(_Run(excerpt.text, strength, f"score {excerpt.score:.2f}"))
            position = excerpt.end
        runs.append(_Run(document.text[position:], 0, ""))
        yield runs


def _tokens(tokens: DocumentTokens, context: CompressedContext) -> Iterator[list[_Run]]:
    """Colour every token by the share of layers (and KV heads) that kept it."""
    total = len(tokens)
    selections = sum(len(layer) for layer in context.kept)
    positions = torch.cat([layer.flatten() for layer in context.kept])
    shares = torch.bincount(positions, minlength=total) / selections
    # In tenths, so that neighbours of nearly the same colour are one run.
    tenths = (shares * 10).ceil().int().tolist()
    for span in tokens.spans:
        runs, start = [], span.start
        for token in range(span.start, span.end):
            if token + 1 == span.end or tenths[token + 1] != tenths[token]:
                text = tokens.text_between(start, token + 1)
                hint = f"kept in up to {tenths[token]}0 % of the layers" if tenths[token] else ""
                runs.append(_Run(text, tenths[token] / 10, hint))
                start = token + 1
        yield runs


def _density(kept: Sequence[Tensor], total: int) -> Tensor:
    """The kept share of every stretch of the documents, per layer: [layers, bins]."""
    bins = min(_BINS, total)
    sizes = torch.bincount(torch.arange(total) * bins // total, minlength=bins)
    rows = [
        torch.bincount(layer.flatten() * bins // total, minlength=bins) / len(layer) / sizes
        for layer in kept
    ]
    return torch.stack(rows)
