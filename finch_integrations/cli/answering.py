"""What `finch ask` and `finch chat` have in common: files, a model, an answer as it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finch_integrations.cli import console
from finch_integrations.config import RetrievalConfig
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.rag import FinchRAG, RagAnswer, Retriever, WholeSet
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.reading import SkippedFile, read_documents
from finch_integrations.types import Message

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringOptions:
    """The arguments that both commands have; the mappings hold fields of configurations."""

    paths: tuple[Path, ...]
    index: Path | None
    retrieval: dict[str, Any]
    model: str
    scorer: str | None
    device: str | None
    dtype: str
    compression: dict[str, Any]
    sampling: dict[str, Any]
    follow_links: bool
    max_file_bytes: int
    keep_passages: bool


def open_retriever(options: AnsweringOptions) -> tuple[Retriever, tuple[SkippedFile, ...]]:
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


def load(model: SharedEngine) -> "FinchEngine":
    """Load a model, with a spinner and without the messages of transformers."""
    with console.busy(f"Loading the model ({model.name})"):
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        return model.engine


def stream(
    rag: FinchRAG, question: str, *, history: Sequence[Message] = (), shown: bool = True
) -> RagAnswer:
    """Answer, and write the answer out as it comes."""
    with console.CompressionBar() as bar:
        pieces = rag.stream(question, history=history, progress=bar)
        first = next(pieces)
    for piece in chain([first], pieces):
        if shown:
            console.write(piece.text, end="")
    assert piece.answer is not None, "the last piece has the answer"
    return piece.answer
