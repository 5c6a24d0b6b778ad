"""`finch index` and `finch search`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finch_integrations.cli import console
from finch_integrations.retrieval.build import IndexReport
from finch_integrations.types import Document

_SKIPPED_SHOWN = 10


def run_index(
    paths: Sequence[Path], out: Path, options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Build an index or bring it up to date; `options` are those of `index_files`."""
    from finch_integrations.pipeline.indexing import index_files

    _quieten()
    with console.IndexBar() as bar:
        report = index_files(paths, out, progress=bar, **options)
    if as_json:
        console.write(json.dumps(asdict(report), ensure_ascii=False, indent=2))
        return
    if report.rebuilt:
        console.warn(f"rebuilt: {report.rebuilt}")
    for path, reason in list(report.skipped.items())[:_SKIPPED_SHOWN]:
        console.warn(f"skipped {path}: {reason}")
    if len(report.skipped) > _SKIPPED_SHOWN:
        console.warn(f"and {len(report.skipped) - _SKIPPED_SHOWN} more; --json lists them all")
    console.write(_summary(out, report))


def run_search(
    query: str, index: Path, *, top_k: int, options: dict[str, Any], as_json: bool
) -> None:
    """Show what an index has on a query."""
    from finch_integrations.retrieval.hybrid import HybridRetriever

    _quieten()
    with console.busy("Searching"):
        results = HybridRetriever.load(index).retrieve(query, top_k=top_k, **options)
    if as_json:
        rows = [
            {"id": result.id, "title": result.title, "text": result.text, **result.metadata}
            for result in results
        ]
        console.write(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if not results:
        console.note("nothing found")
    for result in results:
        console.write(_headline(result))
        console.quote(result.text, indent=9)


def _headline(result: Document) -> str:
    metadata = result.metadata
    place = f"{metadata['document_id']}:{metadata['start_index']}-{metadata['end_index']}"
    section = f"  {metadata['section']}" if metadata["section"] else ""
    return f"{metadata['score']:7.4f}  {place}{section}"


def _summary(out: Path, report: IndexReport) -> str:
    return (
        f"{out}: {report.documents:,} documents, {report.chunks:,} chunks "
        f"({report.added:,} files added, {report.changed:,} changed, {report.removed:,} removed, "
        f"{report.unchanged:,} unchanged; {report.encoded:,} chunks encoded) "
        f"in {report.seconds:.1f} s"
    )


def _quieten() -> None:
    """Keep the loading bars of models out of the output."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
