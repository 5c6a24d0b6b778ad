"""`finch ask`: read or find files, compress them under the question, stream the answer."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from finch_integrations.cli import console
from finch_integrations.cli.ask_report import check_report, make_page
from finch_integrations.config import RetrievalConfig, SamplingParams
from finch_integrations.constraints import Constraint
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.ask import AnswerDetails
from finch_integrations.pipeline.citations import Citation
from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
from finch_integrations.pipeline.options import check_compression
from finch_integrations.pipeline.rag import FinchRAG, RagAnswer, Retriever, WholeSet
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.reading import SkippedFile, read_documents
from finch_integrations.storage import passages_folder
from finch_integrations.types import DocumentShare, Excerpt

_SOURCES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """The command's arguments; the mappings hold fields of configurations."""

    question: str
    paths: tuple[Path, ...]
    index: Path | None
    retrieval: dict[str, Any]
    model: str
    scorer: str | None
    base_url: str | None
    api_key_env: str
    device: str | None
    dtype: str
    compression: dict[str, Any]
    sampling: dict[str, Any]
    schema: Path | None
    regex: str | None
    follow_links: bool
    max_file_bytes: int
    keep_passages: bool
    report: Path | None
    compare: tuple[str, ...]
    as_json: bool


def run_ask(options: AskOptions) -> None:
    """Run the command."""
    # Options are checked before anything slow happens.
    elsewhere = options.base_url is not None
    check_compression(options.compression, has_scorer=options.scorer is not None and not elsewhere)
    SamplingParams(**options.sampling)
    constraint = _read_constraint(options)
    check_report(options.report, options.compare)
    model = _name_model(options)
    retriever, skipped = _open_retriever(options)
    with console.busy(f"Loading the model ({model.here.name})"):
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        engine = model.here.engine
    rag = FinchRAG(
        retriever,
        model.answers,
        compression=options.compression,
        sampling=options.sampling,
        constraint=constraint,
        keep_context=options.report is not None,
    )
    try:
        answer = _stream(rag, options)
        page = None
        if options.report:
            page = make_page(engine, answer, options.compression, options.compare)
    finally:
        model.here.close()
    sources = _rank_sources(answer.details.document_shares, answer.details.excerpts)
    if options.as_json:
        content = _as_json(options, skipped, answer, sources)
        console.write(json.dumps(content, ensure_ascii=False, indent=2))
    else:
        console.write("")
        _show_sources(sources)
        _show_citations(answer.citations)
        console.note(_statistics_line(answer.details), style="dim")
    # Last, so that nothing is lost if the disk is full.
    if options.report and page:
        try:
            page.save(options.report)
        except OSError as error:
            raise InvalidInputError(
                f"the report cannot be written to {options.report} ({error.strerror}). "
                "Choose another place"
            ) from error
        console.note(f"Report: {options.report}", style="dim")


@dataclass(frozen=True, slots=True)
class _Model:
    """What answers, and the model that runs here: the same one, or the one that chooses."""

    answers: SharedEngine | ChooseThenGenerate
    here: SharedEngine


def _name_model(options: AskOptions) -> _Model:
    from finch_integrations.engine.passage_store import PassageStore

    # For one question there is no use in keeping anything in memory.
    folder = passages_folder() if options.keep_passages else None
    store = PassageStore(memory_bytes=0, folder=folder)
    place: dict[str, Any] = {"device": options.device, "dtype": options.dtype, "store": store}
    if options.base_url is None:
        shared = SharedEngine(options.model, scorer=options.scorer, **place)
        return _Model(shared, shared)
    if options.report:
        raise InvalidInputError(
            "the report shows what the answering model's cache holds, which a server keeps to "
            "itself. Leave --report or --base-url out"
        )
    from finch_integrations import OpenAIServer

    server = OpenAIServer(options.base_url, options.model, api_key_env=options.api_key_env)
    scorer = SharedEngine(options.scorer or "embedded", **place)
    answers = ChooseThenGenerate(server, scorer)
    answers.check_options(options.compression)
    return _Model(answers, scorer)


def _read_constraint(options: AskOptions) -> Constraint | None:
    if options.schema is not None and options.regex is not None:
        raise InvalidInputError("give --schema or --regex, not both")
    if options.regex is not None:
        return Constraint.regex(options.regex)
    if options.schema is None:
        return None
    try:
        return Constraint.json_schema(options.schema.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"the schema {options.schema} cannot be read ({error}). Give a file with a JSON schema"
        ) from error


def _open_retriever(options: AskOptions) -> tuple[Retriever, tuple[SkippedFile, ...]]:
    """Read all files, or open the index to search them in."""
    config = RetrievalConfig(**options.retrieval)
    if bool(options.paths) == bool(options.index):
        raise InvalidInputError("give files or folders to read, or --index; one of the two")
    if options.index:
        from finch_integrations.retrieval.hybrid import HybridRetriever

        return HybridRetriever.load(options.index, config=config), ()
    files = read_documents(
        options.paths, follow_links=options.follow_links, max_file_bytes=options.max_file_bytes
    )
    for file in files.skipped:
        console.warn(f"skipped {file.path}: {file.reason}")
    return WholeSet(files.documents), files.skipped


def _stream(rag: FinchRAG, options: AskOptions) -> RagAnswer:
    """Answer, and write the answer out as it comes."""
    with console.CompressionBar() as bar:
        pieces = rag.stream(options.question, progress=bar)
        first = next(pieces)
    for piece in chain([first], pieces):
        if not options.as_json:
            console.write(piece.text, end="")
    assert piece.answer is not None, "the last piece has the answer"
    return piece.answer


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


def _show_citations(citations: Sequence[Citation]) -> None:
    if citations:
        console.note("\nCitations (what the answer shares with them, word for word):", style="bold")
    for citation in citations:
        section = f"  {citation.section}" if citation.section else ""
        place = f"{citation.source}:{citation.source_start}-{citation.source_end}"
        console.note(f"  {place}{section}")
        console.quote(citation.text, indent=10)


def _statistics_line(details: AnswerDetails) -> str:
    stats = details.compression
    assert stats is not None, "there are documents"
    smaller = stats.document_tokens / stats.kept_tokens
    kept = f"{stats.kept_tokens:,} kept ({smaller:.1f}x smaller)" if smaller > 1 else "all kept"
    before = stats.rated_tokens - stats.read_tokens
    rated = f", {stats.rated_tokens:,} rated" if stats.rated_tokens else ""
    rated += f" ({before:,} of them read before)" if before else ""
    return (
        f"{stats.document_tokens:,} document tokens{rated}, {kept}, "
        f"peak KV {stats.peak_kv_tokens:,} tokens\n"
        f"compressed in {stats.seconds:.1f} s, "
        f"answered {details.generation_tokens} tokens in {details.generation_seconds:.1f} s"
    )


def _as_json(
    options: AskOptions,
    skipped: Sequence[SkippedFile],
    answer: RagAnswer,
    sources: Sequence[_Source],
) -> dict[str, Any]:
    details = answer.details
    stats = details.compression
    assert stats is not None, "there are documents"
    return {
        "question": options.question,
        "answer": answer.text,
        "finish_reason": details.finish_reason,
        "model": options.model,
        "scorer": options.scorer,
        "method": options.compression["method"],
        "citations": [asdict(citation) for citation in answer.citations],
        "sources": [
            asdict(source.share)
            | {
                "kept_share": source.share.kept_share,
                "best_passage": source.best and asdict(source.best),
            }
            for source in sources
        ],
        "skipped": [asdict(file) for file in skipped],
        "statistics": asdict(stats)
        | {
            "compression_ratio": stats.compression_ratio,
            "prompt_tokens": details.prompt_tokens,
            "generation_tokens": details.generation_tokens,
            "generation_seconds": details.generation_seconds,
        },
    }
