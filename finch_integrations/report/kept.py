"""What one way of choosing kept of the documents, as the page draws it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.selection import Selection
from finch_integrations.types import Document, Excerpt

# Columns of a picture with a row per layer.
_BINS = 160
# Kept passages are at least this strong, so that the weakest is visible.
_FAINTEST = 0.25


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a document's text.

    Attributes:
        text: The text.
        strength: How strongly it was kept, from 0 (left out) to 1.
        hint: Says why.
        passage: Its number among the kept passages, from 1; 0: it is none.
    """

    text: str
    strength: float = 0.0
    hint: str = ""
    passage: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of a strip: where it is, as shares of the strip's width, and how strong."""

    start: float
    width: float
    strength: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept.

    Attributes:
        label: Method and budget.
        tokens: Document tokens kept.
        shares: Per document, tokens kept of it; averages where layers choose separately.
        excerpts: The kept passages in document order; none for methods that keep single tokens.
        runs: Per document, its text in runs.
        strip: Rows of bars over all documents: one row, or one per layer.
    """

    label: str
    tokens: int
    shares: tuple[float, ...]
    excerpts: tuple[Excerpt, ...]
    runs: tuple[tuple[Run, ...], ...]
    strip: tuple[tuple[Bar, ...], ...]


def kept_passages(
    label: str, documents: Sequence[Document], tokens: DocumentTokens, excerpts: Sequence[Excerpt]
) -> Kept:
    """Describe passages, however they were chosen.

    Args:
        label: What to call the way of choosing.
        documents: All of them, with ids.
        tokens: Their tokens.
        excerpts: The passages; they do not overlap.
    """
    places = {document.id: number for number, document in enumerate(documents)}
    ordered = sorted(excerpts, key=lambda excerpt: (places[excerpt.document_id], excerpt.start))
    shares = [0.0] * len(documents)
    bars = []
    for excerpt, strength in zip(ordered, _strengths(ordered), strict=True):
        number = places[excerpt.document_id]
        start = tokens.spans[number].text_start
        first, last = (tokens.token_at(start + at) for at in (excerpt.start, excerpt.end))
        shares[number] += last - first
        bars.append(Bar(first / len(tokens), (last - first) / len(tokens), strength))
    return Kept(
        label=label,
        tokens=int(sum(shares)),
        shares=tuple(shares),
        excerpts=tuple(ordered),
        runs=tuple(_split(documents, ordered)),
        strip=(tuple(bars),),
    )


def kept_of(
    label: str,
    documents: Sequence[Document],
    tokens: DocumentTokens,
    kept: CompressedContext | Selection,
) -> Kept:
    """Describe what a compression or a selection kept; arguments as for `kept_passages`."""
    whole = kept.stats.kept_tokens == kept.stats.document_tokens
    if kept.excerpts and not whole:
        drawn = kept_passages(label, documents, tokens, kept.excerpts)
        runs, strip, excerpts = drawn.runs, drawn.strip, drawn.excerpts
    elif whole:
        runs = tuple((Run(document.text, 1.0, "kept whole"),) for document in documents)
        strip, excerpts = ((Bar(0, 1, 1.0),),), ()
    else:
        assert isinstance(kept, CompressedContext), "only caches keep single tokens"
        runs, excerpts = tuple(_colour(tokens, kept.kept)), ()
        strip = tuple(_rows(kept.kept, len(tokens)))
    return Kept(
        label=label,
        tokens=kept.stats.kept_tokens,
        shares=tuple(share.kept_tokens for share in kept.document_shares),
        excerpts=excerpts,
        runs=runs,
        strip=strip,
    )


def _strengths(excerpts: Sequence[Excerpt]) -> list[float]:
    """The better a passage's rank, the stronger: one high score would make all others faint."""
    ranked = sorted({excerpt.score for excerpt in excerpts})
    step = (1 - _FAINTEST) / max(1, len(ranked) - 1)
    return [1 - step * (len(ranked) - 1 - ranked.index(excerpt.score)) for excerpt in excerpts]


def _split(documents: Sequence[Document], excerpts: Sequence[Excerpt]) -> Iterator[tuple[Run, ...]]:
    """Split every document at its excerpts."""
    numbered = list(enumerate(zip(excerpts, _strengths(excerpts), strict=True), start=1))
    for document in documents:
        runs, position = [], 0
        for number, (excerpt, strength) in numbered:
            if excerpt.document_id != document.id:
                continue
            runs.append(Run(document.text[position : excerpt.start]))
            runs.append(Run(excerpt.text, strength, f"score {excerpt.score:.2f}", number))
            position = excerpt.end
        runs.append(Run(document.text[position:]))
        yield tuple(run for run in runs if run.text)


def _colour(tokens: DocumentTokens, kept: Sequence[Tensor]) -> Iterator[tuple[Run, ...]]:
    """Colour every token by the share of layers (and KV heads) that kept it."""
    selections = sum(len(layer) for layer in kept)
    positions = torch.cat([layer.flatten() for layer in kept])
    shares = torch.bincount(positions, minlength=len(tokens)) / selections
    # In tenths, so that neighbours of nearly the same colour are one run.
    tenths = (shares * 10).ceil().int().tolist()
    for span in tokens.spans:
        runs, start = [], span.start
        for token in range(span.start, span.end):
            if token + 1 == span.end or tenths[token + 1] != tenths[token]:
                text = tokens.text_between(start, token + 1)
                hint = f"kept in up to {tenths[token]}0 % of the layers" if tenths[token] else ""
                runs.append(Run(text, tenths[token] / 10, hint))
                start = token + 1
        yield tuple(runs)


def _rows(kept: Sequence[Tensor], total: int) -> Iterator[tuple[Bar, ...]]:
    """The kept share of every stretch of the documents, a row per layer."""
    bins = min(_BINS, total)
    sizes = torch.bincount(torch.arange(total) * bins // total, minlength=bins)
    for layer in kept:
        counts = torch.bincount(layer.flatten() * bins // total, minlength=bins)
        shares = (counts / len(layer) / sizes).tolist()
        yield tuple(
            Bar(number / bins, 1 / bins, 0.1 + 0.9 * share)
            for number, share in enumerate(shares)
            if share
        )
