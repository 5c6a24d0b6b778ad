"""FinchRAG: from a question to an answer over a large collection, with citations."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.ask import AnswerPiece, AnswerReport, AskRequest
from finch_integrations.pipeline.handle import EngineHandle
from finch_integrations.pipeline.quotes import Quote
from finch_integrations.retrieval.chunking import find_headings, heading_at
from finch_integrations.types import Document, Message


class Retriever(Protocol):
    """What finds documents, such as a `HybridRetriever`."""

    def retrieve(self, query: str, **options: Any) -> Sequence[Document]:
        """Find what a query asks for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A run of words that the answer shares with a document.

    Attributes:
        start: First character in the answer.
        end: Behind its last character in the answer.
        document_id: Id of the whole document.
        source: Where the document came from, such as a file's path; its id if that is not known.
        section: The heading that the words stand under.
        source_start: First character in the whole document's text.
        source_end: Behind its last character there.
        text: The words as the document has them.
    """

    start: int
    end: int
    document_id: str
    source: str
    section: str | None
    source_start: int
    source_end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RagAnswer:
    """An answer and what it rests on.

    Attributes:
        text: The answer.
        documents: What was found and compressed, with its scores in the metadata.
        citations: Where the answer repeats the documents word for word.
        report: What retrieval left to do: compression and decoding.
    """

    text: str
    documents: tuple[Document, ...]
    citations: tuple[Citation, ...]
    report: AnswerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RagPiece:
    """A piece of an answer; the last one, and only the last, has the whole answer."""

    text: str
    answer: RagAnswer | None = None


class FinchRAG:
    """Find documents, compress them under the question, answer from the compressed cache.

    Example:
        rag = FinchRAG(HybridRetriever.load("handbook.index"))
        for piece in rag.stream("What is the door code?", return_parents=True):
            print(piece.text, end="")
    """

    def __init__(
        self,
        retriever: Retriever,
        model: Any = "embedded",
        *,
        system: str | None = None,
        instruction: str | None = None,
        compression: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the halves together; the model is loaded when it is first used.

        Args:
            retriever: Finds the documents; its configuration says how many and how long.
            model: An `EngineHandle`, or what it takes: a model's name, or a `FinchEngine`.
            system: System text, kept verbatim.
            instruction: Stands between documents and question; None: the engine's own.
            compression: Fields of `CompressionConfig` to change.
            sampling: Fields of `SamplingParams` to change.
        """
        self.retriever = retriever
        self.handle = model if isinstance(model, EngineHandle) else EngineHandle(model)
        self._system = system
        self._instruction = instruction
        self._compression = dict(compression or {})
        self._sampling = dict(sampling or {})

    def stream(
        self, query: str, *, history: Sequence[Message] = (), **retrieval: Any
    ) -> Generator[RagPiece, None, None]:
        """Answer a question piece by piece; closing the generator stops the work.

        Args:
            query: The question.
            history: Earlier user and assistant turns.
            retrieval: For the retriever, such as `filter`, `top_k` and `return_parents`.

        Raises:
            InvalidInputError: The question is unusable, or nothing was found on it.
            FinchError: As retriever and engine raise it.
        """
        documents = self._retrieve(query, retrieval)
        text = ""
        for piece in self.handle.stream(self._request(query, history, documents)):
            text += piece.text
            yield _piece(piece, text, documents)

    async def astream(
        self, query: str, *, history: Sequence[Message] = (), **retrieval: Any
    ) -> AsyncGenerator[RagPiece, None]:
        """Like `stream`, without blocking the event loop; cancelling the task stops the work."""
        documents = await asyncio.to_thread(self._retrieve, query, retrieval)
        text = ""
        request = self._request(query, history, documents)
        async with aclosing(self.handle.astream(request)) as pieces:
            async for piece in pieces:
                text += piece.text
                yield _piece(piece, text, documents)

    def answer(self, query: str, *, history: Sequence[Message] = (), **retrieval: Any) -> RagAnswer:
        """Answer a question at once; arguments and errors as for `stream`."""
        *_, last = self.stream(query, history=history, **retrieval)
        assert last.answer is not None, "the last piece has the answer"
        return last.answer

    async def aanswer(
        self, query: str, *, history: Sequence[Message] = (), **retrieval: Any
    ) -> RagAnswer:
        """Like `answer`, without blocking the event loop."""
        answer = None
        async with aclosing(self.astream(query, history=history, **retrieval)) as pieces:
            async for piece in pieces:
                answer = piece.answer
        assert answer is not None, "the last piece has the answer"
        return answer

    def _retrieve(self, query: str, options: Mapping[str, Any]) -> tuple[Document, ...]:
        check_text("the question", query)
        documents = tuple(self.retriever.retrieve(query, **options))
        if not documents:
            raise InvalidInputError(
                f"the collection has nothing on {query!r}. Ask in other words, widen the filter "
                "or lower score_threshold"
            )
        return documents

    def _request(
        self, query: str, history: Sequence[Message], documents: tuple[Document, ...]
    ) -> AskRequest:
        system: list[Message] = (
            [{"role": "system", "content": self._system}] if self._system else []
        )
        return AskRequest(
            messages=(*system, *history, {"role": "user", "content": query}),
            documents=documents,
            instruction=self._instruction,
            compression=self._compression,
            sampling=self._sampling,
        )


def _piece(piece: AnswerPiece, text: str, documents: tuple[Document, ...]) -> RagPiece:
    if piece.report is None:
        return RagPiece(text=piece.text)
    citations = tuple(_citation(quote, documents[quote.document]) for quote in piece.report.quotes)
    answer = RagAnswer(text=text, documents=documents, citations=citations, report=piece.report)
    return RagPiece(text=piece.text, answer=answer)


def _citation(quote: Quote, document: Document) -> Citation:
    metadata = document.metadata
    # A chunk's place in its document; whole documents start at 0.
    offset = int(metadata.get("start_index", 0))
    section = heading_at(find_headings(document.text), quote.source_start)
    id = str(metadata.get("document_id", document.id))
    return Citation(
        start=quote.start,
        end=quote.end,
        document_id=id,
        source=str(metadata.get("source") or id),
        section=section or metadata.get("section"),
        source_start=quote.source_start + offset,
        source_end=quote.source_end + offset,
        text=document.text[quote.source_start : quote.source_end],
    )
