"""`finch chat`: question after question about the same files, each with passages of its own.

The passages are chosen anew for every question. What was read for one question is kept for the
others, and the rest is read while the user types.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from finch_integrations.cli import console
from finch_integrations.cli.answering import AnsweringOptions, load, open_retriever, stream
from finch_integrations.cli.sources import (
    rank_sources,
    show_citations,
    show_sources,
    statistics_line,
)
from finch_integrations.config import SamplingParams
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.errors import FinchError, InvalidInputError
from finch_integrations.pipeline.options import check_compression
from finch_integrations.pipeline.rag import FinchRAG, RagAnswer, WholeSet
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.storage import passages_folder
from finch_integrations.types import CompressionProgress, Document, Message

_COMMANDS = "/sources shows what the last answer is based on, /new forgets the chat, /quit ends it"
# The part of the model's window that earlier turns may take.
_HISTORY = 1 / 4


def run_chat(options: AnsweringOptions) -> None:
    """Run the command."""
    # Options are checked before anything slow happens.
    check_compression(options.compression, has_scorer=options.scorer is not None)
    SamplingParams(**options.sampling)
    model = SharedEngine(
        options.model,
        scorer=options.scorer,
        device=options.device,
        dtype=options.dtype,
        store=PassageStore(folder=passages_folder() if options.keep_passages else None),
    )
    retriever, _ = open_retriever(options)
    load(model)
    rag = FinchRAG(retriever, model, compression=options.compression, sampling=options.sampling)
    known = retriever.documents if isinstance(retriever, WholeSet) else ()
    try:
        failed = _Chat(rag, model, known).run()
    finally:
        model.close()
    if failed:
        raise InvalidInputError("a question could not be answered, see above")


@dataclass(slots=True)
class _Chat:
    """A conversation.

    Attributes:
        rag: Answers.
        model: What it answers with.
        documents: What is read while the user types.
        history: The turns so far.
        last: The last answer.
    """

    rag: FinchRAG
    model: SharedEngine
    documents: Sequence[Document]
    history: list[Message] = field(default_factory=list)
    last: RagAnswer | None = None

    def run(self) -> bool:
        """Answer until the input ends; return whether a question of a file failed."""
        asked_by_hand = sys.stdin.isatty()
        if asked_by_hand:
            console.note(f"Ask your questions. {_COMMANDS}.", style="dim")
        while (line := self._next_line(asked_by_hand)) not in (None, "/quit"):
            assert line is not None
            if line.startswith("/"):
                self._obey(line)
            elif line and not self._answer(line) and not asked_by_hand:
                return True
        return False

    def _next_line(self, asked_by_hand: bool) -> str | None:
        """Wait for a line; None: there is no more. Meanwhile read what no question has read yet."""
        if not asked_by_hand:
            return _read_line()
        with _meanwhile(self._read_ahead):
            while True:
                try:
                    return input("> ").strip()
                except EOFError:
                    return None
                except KeyboardInterrupt:
                    console.note("\n/quit ends the chat", style="dim")

    def _read_ahead(self, progress: "_Stop") -> None:
        if self.documents:
            # A question would meet the same failure and report it.
            with suppress(_Stopped, FinchError):
                self.rag.read_ahead(self.documents, progress=progress)

    def _answer(self, question: str) -> bool:
        try:
            answer = stream(self.rag, question, history=self.history)
        except KeyboardInterrupt:
            console.note("\ncancelled", style="dim")
            return True
        except FinchError as error:
            console.error(str(error))
            return False
        console.write("")
        console.note(statistics_line(answer.details), style="dim")
        self.last, self.documents = answer, answer.documents
        self.history += [
            Message(role="user", content=question),
            # A model may write a NUL character, which no message may hold.
            Message(role="assistant", content=answer.text.replace("\0", "")),
        ]
        self._shorten()
        return True

    def _shorten(self) -> None:
        """Forget the oldest turns if all of them would take too much of the window."""
        engine = self.model.engine
        room = int(engine.window * _HISTORY)
        forgotten = 0
        while self.history and engine.count_chat_tokens(self.history) > room:
            del self.history[:2]
            forgotten += 1
        if forgotten:
            console.warn(f"the chat is long: its {forgotten} oldest questions are forgotten")

    def _obey(self, command: str) -> None:
        if command == "/new":
            self.history, self.last = [], None
        elif command != "/sources":
            console.note(f"{command} is unknown: {_COMMANDS}.")
        elif self.last is None:
            console.note("There is no answer yet.")
        else:
            details = self.last.details
            show_sources(rank_sources(details.document_shares, details.excerpts))
            show_citations(self.last.citations)


class _Stopped(Exception):
    """Ends reading ahead."""


class _Stop(threading.Event):
    """Set when reading ahead is to end; its `progress` callback."""

    def __call__(self, _: CompressionProgress) -> None:
        if self.is_set():
            raise _Stopped


@contextmanager
def _meanwhile(work: Any) -> Iterator[None]:
    """Do something in another thread until the block ends."""
    stop = _Stop()
    thread = threading.Thread(target=work, args=(stop,), name="finch-read-ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _read_line() -> str | None:
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the questions are not UTF-8 text: {error}") from error
    return line.strip() if line else None
