"""What an answer is based on and what it took, on standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finch_integrations.cli import console
from finch_integrations.pipeline.ask import AnswerDetails
from finch_integrations.pipeline.citations import Citation
from finch_integrations.types import DocumentShare, Excerpt

_SOURCES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Source:
    """A document and the best of the passages that were kept of it."""

    share: DocumentShare
    best: Excerpt | None


def rank_sources(documents: Sequence[DocumentShare], excerpts: Sequence[Excerpt]) -> list[Source]:
    """Put the document with the best passage first; without passages, the one kept most."""
    best: dict[str, Excerpt] = {}
    for excerpt in excerpts:
        known = best.get(excerpt.document_id)
        if known is None or excerpt.score > known.score:
            best[excerpt.document_id] = excerpt
    sources = [Source(share, best.get(share.id)) for share in documents]
    return sorted(
        sources, key=lambda s: (-(s.best.score if s.best else -math.inf), -s.share.kept_share)
    )


def show_sources(sources: Sequence[Source]) -> None:
    """Show the best ones, with the start of their best passage."""
    shown = [source for source in sources if source.share.kept_tokens][:_SOURCES_SHOWN]
    console.note("\nSources (how much of each was kept, and its best passage):", style="bold")
    for source in shown:
        console.note(f"  {source.share.kept_share:6.1%}  {source.share.id}")
        if source.best:
            console.quote(source.best.text, indent=10)
    if len(sources) > len(shown):
        console.note(f"  and {len(sources) - len(shown)} more", style="dim")


def show_citations(citations: Sequence[Citation]) -> None:
    """Show where the answer repeats the documents."""
    if citations:
        console.note("\nCitations (what the answer shares with them, word for word):", style="bold")
    for citation in citations:
        section = f"  {citation.section}" if citation.section else ""
        place = f"{citation.source}:{citation.source_start}-{citation.source_end}"
        console.note(f"  {place}{section}")
        console.quote(citation.text, indent=10)


# With --target-size auto.
_REASONS = {
    "scores": ", no others score nearly as high",
    "floor": ", the least",
    "ceiling": ", the most",
}


def statistics_line(details: AnswerDetails) -> str:
    """Say how much was read and kept, and how long that and the answer took."""
    stats = details.compression
    assert stats is not None, "there are documents"
    smaller = stats.document_tokens / stats.kept_tokens
    kept = f"{stats.kept_tokens:,} kept ({smaller:.1f}x smaller)" if smaller > 1 else "all kept"
    kept += _REASONS.get(stats.limited_by, "")
    before = stats.rated_tokens - stats.read_tokens
    rated = f", {stats.rated_tokens:,} rated" if stats.rated_tokens else ""
    rated += f" ({before:,} of them read before)" if before else ""
    return (
        f"{stats.document_tokens:,} document tokens{rated}, {kept}, "
        f"peak KV {stats.peak_kv_tokens:,} tokens\n"
        f"compressed in {stats.seconds:.1f} s, "
        f"answered {details.generation_tokens} tokens in {details.generation_seconds:.1f} s"
    )
