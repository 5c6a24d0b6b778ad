"""`finch ask`: read files, compress them under the question, stream the answer."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finch_integrations.cli import console
from finch_integrations.config import CompressionConfig, RetrievalConfig, SamplingParams
from finch_integrations.errors import InvalidInputError
from finch_integrations.reading import ReadResult, read_documents
from finch_integrations.types import CompressionStats, DocumentShare, Excerpt, GenerationResponse

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine

_SOURCES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """The command's arguments; the mappings hold fields of configurations."""

    question: str
    paths: tuple[Path, ...]
    index: Path | None
    retrieval: dict[str, Any]
    model: str
    device: str | None
    dtype: str
    compression: dict[str, Any]
    sampling: dict[str, Any]
    report: Path | None
    as_json: bool


def run_ask(options: AskOptions) -> None:
    """Run the command."""
    # Options are checked before anything slow happens.
    compression = CompressionConfig(**options.compression)
    sampling = SamplingParams(**options.sampling)
    if options.report:
        _check_place(options.report)
    retrieval = RetrievalConfig(**options.retrieval)
    files = _read_or_open(options)
    with console.busy(f"Loading the model ({options.model})"):
        from transformers.utils import logging

        from finch_integrations.engine.engine import FinchEngine

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        engine = FinchEngine.from_pretrained(
            options.model,
            device=options.device,
            dtype=options.dtype,
            compression=compression,
            sampling=sampling,
        )
    with engine:
        if options.index:
            files = _search(options, retrieval, engine)
        with console.CompressionBar() as bar:
            context = engine.compress(files.documents, options.question, progress=bar)
        started = time.perf_counter()
        pieces = []
        for piece in engine.stream(context):
            pieces.append(piece)
            if not options.as_json:
                console.write(piece.text, end="")
        seconds = time.perf_counter() - started
        report = None
        if options.report:
            from finch_integrations.report import make_report

            answer = "".join(piece.text for piece in pieces)
            report = make_report(engine, files.documents, options.question, context, answer=answer)
    sources = _rank_sources(context.documents, context.excerpts)
    if options.as_json:
        console.write(
            json.dumps(
                _as_json(options, files, pieces, sources, context.stats, seconds),
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        console.write("")
        _show_sources(sources)
        console.note(_statistics_line(context.stats, pieces[-1], seconds), style="dim")
    # Last, so that nothing is lost if the disk is full.
    if options.report and report:
        try:
            report.save(options.report)
        except OSError as error:
            raise InvalidInputError(
                f"the report cannot be written to {options.report} ({error.strerror}). "
                "Choose another place"
            ) from error
        console.note(f"Report: {options.report}", style="dim")


def _check_place(path: Path) -> None:
    """Refuse a report's path that cannot be a file's."""
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder. Give the report a file name in it")
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write the report to. Make it first"
        )


def _read_or_open(options: AskOptions) -> ReadResult:
    """Read the files; of an index, only make sure that it is there."""
    if bool(options.paths) == bool(options.index):
        raise InvalidInputError("give files or folders to read, or --index; one of the two")
    if options.index:
        from finch_integrations.retrieval.store import read_index

        read_index(options.index)
        return ReadResult((), ())
    files = read_documents(options.paths)
    for file in files.skipped:
        console.warn(f"skipped {file.path}: {file.reason}")
    return files


def _search(options: AskOptions, config: RetrievalConfig, engine: "FinchEngine") -> ReadResult:
    """Find the documents that the question is about."""
    from finch_integrations.retrieval.hybrid import HybridRetriever

    assert options.index is not None, "there is an index"
    tokenizer = engine.backbone.tokenizer
    retriever = HybridRetriever.load(
        options.index,
        config=config,
        count_tokens=lambda text: len(
            tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        ),
    )
    with console.busy("Searching"):
        documents = retriever.retrieve(options.question)
    if not documents:
        raise InvalidInputError(f"the index {options.index} has nothing on this question")
    return ReadResult(tuple(documents), ())


@dataclass(frozen=True, slots=True)
class _Source:
    """A document and the best of the passages that were kept of it."""

    share: DocumentShare
    best: Excerpt | None


def _rank_sources(documents: Sequence[DocumentShare], excerpts: Sequence[Excerpt]) -> list[_Source]:
    """Put the document with the best passage first; without passages, the one kept most."""
    best: dict[str, Excerpt] = {}
    for excerpt in excerpts:
        known = best.get(excerpt.document_id)
        if known is None or excerpt.score > known.score:
            best[excerpt.document_id] = excerpt
    sources = [_Source(share, best.get(share.id)) for share in documents]
    return sorted(
        sources, key=lambda s: (-(s.best.score if s.best else -math.inf), -s.share.kept_share)
    )


def _show_sources(sources: Sequence[_Source]) -> None:
    shown = [source for source in sources if source.share.kept_tokens][:_SOURCES_SHOWN]
    console.note("\nSources (how much of each was kept, and its best passage):", style="bold")
    for source in shown:
        console.note(f"  {source.share.kept_share:6.1%}  {source.share.id}")
        if source.best:
            console.quote(source.best.text, indent=10)
    if len(sources) > len(shown):
        console.note(f"  and {len(sources) - len(shown)} more", style="dim")


def _statistics_line(stats: CompressionStats, last: GenerationResponse, seconds: float) -> str:
    return (
        f"{stats.document_tokens:,} document tokens, {stats.kept_tokens:,} kept "
        f"({stats.document_tokens / stats.kept_tokens:.1f}x smaller), "
        f"peak KV {stats.peak_kv_tokens:,} tokens, "
        f"compressed in {stats.seconds:.1f} s, "
        f"answered {last.generation_tokens} tokens in {seconds:.1f} s"
    )


def _as_json(
    options: AskOptions,
    files: ReadResult,
    pieces: Sequence[GenerationResponse],
    sources: Sequence[_Source],
    stats: CompressionStats,
    seconds: float,
) -> dict[str, Any]:
    return {
        "question": options.question,
        "answer": "".join(piece.text for piece in pieces),
        "finish_reason": pieces[-1].finish_reason,
        "model": options.model,
        "method": options.compression["method"],
        "sources": [
            asdict(source.share)
            | {
                "kept_share": source.share.kept_share,
                "best_passage": source.best and asdict(source.best),
            }
            for source in sources
        ],
        "skipped": [asdict(file) for file in files.skipped],
        "statistics": asdict(stats)
        | {
            "compression_ratio": stats.compression_ratio,
            "prompt_tokens": pieces[-1].prompt_tokens,
            "generation_tokens": pieces[-1].generation_tokens,
            "generation_seconds": seconds,
        },
    }
