"""`finch ask`: read or find files, compress them under the question, stream the answer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finch_integrations.cli import console
from finch_integrations.cli.answering import AnsweringOptions, load, open_retriever, stream
from finch_integrations.cli.ask_report import check_report, make_page
from finch_integrations.cli.sources import (
    Source,
    rank_sources,
    show_citations,
    show_sources,
    statistics_line,
)
from finch_integrations.config import SamplingParams
from finch_integrations.constraints import Constraint
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
from finch_integrations.pipeline.options import check_compression
from finch_integrations.pipeline.rag import FinchRAG, RagAnswer
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.reading import SkippedFile
from finch_integrations.storage import passages_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions(AnsweringOptions):
    """The command's arguments."""

    question: str
    base_url: str | None
    api_key_env: str
    schema: Path | None
    regex: str | None
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
    retriever, skipped = open_retriever(options)
    engine = load(model.here)
    rag = FinchRAG(
        retriever,
        model.answers,
        compression=options.compression,
        sampling=options.sampling,
        constraint=constraint,
        keep_context=options.report is not None,
    )
    try:
        answer = stream(rag, options.question, shown=not options.as_json)
        page = None
        if options.report:
            page = make_page(engine, answer, options.compression, options.compare)
    finally:
        model.here.close()
    sources = rank_sources(answer.details.document_shares, answer.details.excerpts)
    if options.as_json:
        content = _as_json(options, skipped, answer, sources)
        console.write(json.dumps(content, ensure_ascii=False, indent=2))
    else:
        console.write("")
        show_sources(sources)
        show_citations(answer.citations)
        console.note(statistics_line(answer.details), style="dim")
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


def _as_json(
    options: AskOptions,
    skipped: Sequence[SkippedFile],
    answer: RagAnswer,
    sources: Sequence[Source],
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
