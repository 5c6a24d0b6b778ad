"""FinchRAG: from a question to an answer over a large collection, with citations."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, Protocol

from finch_integrations.config import CompressionConfig
from finch_integrations.constraints import Constraint
from finch_integrations.documents import check_text, prepare_documents, with_unique_ids
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions
from finch_integrations.pipeline.ask import (
    AnswerDetails,
    AnswerPiece,
    AskRequest,
    Progress,
    convert,
)
from finch_integrations.pipeline.citations import Citation, cite
from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
from finch_integrations.pipeline.generator import Generator as AnyGenerator
from finch_integrations.pipeline.options import check_compression, refuse_unknown
from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.types import Document, Message


class Retriever(Protocol):
    """What finds documents, such as a `HybridRetriever`."""

    def retrieve(
        self, query: str, *, count_tokens: Callable[[str], int], **options: Any
    ) -> Sequence[Document]:
        """Find what a query asks for.

        Args:
            query: The question.
            count_tokens: Counts the tokens of a text as the model that answers does.
            options: The caller's.
        """
        ...


class WholeSet:
    """A retriever that leaves nothing out: for sets that can be compressed as they are.

    Attributes:
        documents: All of them.
    """

    def __init__(self, documents: Iterable[Document | str | Mapping[str, Any]]) -> None:
        """Take documents as the engine does.

        Raises:
            InvalidInputError: There is none, or one is unusable.
        """
        self.documents = tuple(prepare_documents(documents))

    def retrieve(
        self, query: str, *, count_tokens: Callable[[str], int], **options: Any
    ) -> tuple[Document, ...]:
        """Return all documents.

        Raises:
            ConfigurationError: There are options, which would do nothing.
        """
        if options:
            refuse_unknown(options, (), owner="a whole document set's retrieval")
        return self.documents


@dataclass(frozen=True, slots=True, kw_only=True)
class RagAnswer:
    """An answer and what it is based on.

    Attributes:
        text: The answer.
        documents: What was found and compressed, with its scores in the metadata.
        citations: Where the answer repeats the documents word for word.
        details: What compression and decoding took.
    """

    text: str
    documents: tuple[Document, ...]
    citations: tuple[Citation, ...]
    details: AnswerDetails


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
        scorer: Any = None,
        count_tokens: Callable[[str], int] | None = None,
        token_ratio: float | None = None,
        system: str | None = None,
        instruction: str | None = None,
        compression: CompressionConfig | Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
        constraint: Constraint | None = None,
        keep_context: bool = False,
    ) -> None:
        """Combine retriever and model; the model is loaded when it is first used.

        Args:
            retriever: Finds the documents; its configuration says how many and how long. Its
                `max_document_tokens` counts the model's tokens.
            model: A `SharedEngine`, or what it takes: a model's name, or a `FinchEngine`; or a
                generator elsewhere, such as an `OpenAIServer`.
            scorer: A smaller model that chooses the passages, as `SharedEngine` takes it. For a
                generator elsewhere the default is `embedded`.
            count_tokens: The tokenizer of a generator elsewhere, for the budget. Default: the
                scorer's.
            token_ratio: Or: that generator's tokens per token of the scorer.
            system: System text, always kept.
            instruction: Goes between documents and question; None: the engine's own.
            compression: A `CompressionConfig`, or fields of one to change.
            sampling: Fields of `SamplingParams` to change.
            constraint: What the answers must look like.
            keep_context: Return the compressed documents with the answer, to be saved, shown or
                asked again; they are as large as the cache.

        Raises:
            ConfigurationError: The arguments contradict each other, or an option is wrong.
            UnsupportedModelError: A ready model cannot be compressed for.
        """
        self.retriever = retriever
        counting = {"count_tokens": count_tokens, "token_ratio": token_ratio}
        self.handle = _handle(model, scorer, {k: v for k, v in counting.items() if v is not None})
        self._system = system
        self._instruction = instruction
        has_scorer = isinstance(self.handle, SharedEngine) and self.handle.has_scorer
        self._compression = check_compression(compression or {}, has_scorer=has_scorer)
        if isinstance(self.handle, ChooseThenGenerate):
            self.handle.check_options(self._compression, keep_context=keep_context)
        self._sampling = dict(sampling or {})
        self._answer = AnswerOptions(constraint=constraint)
        self._keep_context = keep_context

    def retrieve(self, question: str, **retrieval: Any) -> tuple[Document, ...]:
        """Find the documents that an answer would be based on; there may be none.

        Args:
            question: The question.
            retrieval: For the retriever, such as `filter`, `top_k` and `return_parents`.

        Raises:
            InvalidInputError: The question is unusable.
            FinchError: As the retriever raises it.
        """
        check_text("the question", question)
        found = self.retriever.retrieve(
            question, count_tokens=self.handle.count_tokens, **retrieval
        )
        return tuple(found)

    async def aretrieve(self, question: str, **retrieval: Any) -> tuple[Document, ...]:
        """Like `retrieve`, without blocking the event loop."""
        return await asyncio.to_thread(self.retrieve, question, **retrieval)

    def stream(
        self,
        question: str,
        *,
        history: Sequence[Message] = (),
        progress: Progress | None = None,
        **retrieval: Any,
    ) -> Generator[RagPiece, None, None]:
        """Answer a question piece by piece; closing the generator stops the work.

        Args:
            question: The question.
            history: Earlier user and assistant turns.
            progress: Called after every chunk of the compression, in another thread.
            retrieval: For the retriever, as for `retrieve`.

        Raises:
            InvalidInputError: The question is unusable, or nothing was found on it.
            FinchError: As retriever and engine raise it.
        """
        request = self._request(question, history, self.retrieve(question, **retrieval))
        keep = self._keep_context
        with closing(self.handle.stream(request, progress=progress, keep_context=keep)) as pieces:
            for piece in pieces:
                yield _piece(piece, request.documents)

    async def astream(
        self,
        question: str,
        *,
        history: Sequence[Message] = (),
        progress: Progress | None = None,
        **retrieval: Any,
    ) -> AsyncGenerator[RagPiece, None]:
        """Like `stream`, without blocking the event loop; cancelling the task stops the work."""
        request = self._request(question, history, await self.aretrieve(question, **retrieval))
        keep = self._keep_context
        answering = self.handle.astream(request, progress=progress, keep_context=keep)
        async with aclosing(answering) as pieces:
            async for piece in pieces:
                yield await convert(lambda piece: _piece(piece, request.documents), piece)

    def answer(self, question: str, **options: Any) -> RagAnswer:
        """Answer a question in one piece; options and errors as for `stream`."""
        *_, last = self.stream(question, **options)
        assert last.answer is not None, "the last piece has the answer"
        return last.answer

    async def aanswer(self, question: str, **options: Any) -> RagAnswer:
        """Like `answer`, without blocking the event loop."""
        answer = None
        async with aclosing(self.astream(question, **options)) as pieces:
            async for piece in pieces:
                answer = piece.answer
        assert answer is not None, "the last piece has the answer"
        return answer

    def read_ahead(self, documents: Sequence[Document], *, progress: Progress | None = None) -> int:
        """Read documents before a question is asked, or before the next one; see `finch chat`.

        Args:
            documents: Such as an answer's.
            progress: Called after every batch, in another thread; an exception that it raises ends
                the reading.

        Returns:
            How many document tokens were read. Those that had been read, that fit the budget or
            that the model's `PassageStore` has no room for are not.

        Raises:
            FinchError: As `FinchEngine.read_ahead` raises it.
        """
        request = self._request("?", (), tuple(documents))
        return self.handle.read_ahead(request, progress=progress)

    def batch(
        self, questions: Sequence[str], *, history: Sequence[Message] = (), **retrieval: Any
    ) -> list[RagAnswer]:
        """Answer several questions; documents that several of them are about are read once.

        Args:
            questions: The questions.
            history: Earlier user and assistant turns, the same for all.
            retrieval: For the retriever, as for `retrieve`.

        Returns:
            An answer to every question, in order.

        Raises:
            InvalidInputError: A question is unusable, or nothing was found on one.
            FinchError: As retriever and engine raise it.
        """
        requests = [
            self._request(question, history, self.retrieve(question, **retrieval))
            for question in _several(questions)
        ]
        found = self.handle.answer_all(requests, keep_context=self._keep_context)
        return _answers(found, requests)

    async def abatch(
        self, questions: Sequence[str], *, history: Sequence[Message] = (), **retrieval: Any
    ) -> list[RagAnswer]:
        """Like `batch`, without blocking the event loop; cancelling the task stops the work."""
        requests = [
            self._request(question, history, await self.aretrieve(question, **retrieval))
            for question in _several(questions)
        ]
        found = await self.handle.aanswer_all(requests, keep_context=self._keep_context)
        return await asyncio.to_thread(_answers, found, requests)

    def _request(
        self,
        question: str,
        history: object,
        documents: tuple[Document, ...],
    ) -> AskRequest:
        if isinstance(history, str) or not isinstance(history, Sequence):
            raise InvalidInputError(
                f"history must be a list of messages, got {type(history).__name__}. Leave it out"
            )
        if not documents:
            raise InvalidInputError(
                f"the collection has nothing on {question!r}. Ask in other words; where there is a "
                "filter or a score_threshold, it may be too strict"
            )
        system: list[Message] = (
            [{"role": "system", "content": self._system}] if self._system else []
        )
        return AskRequest(
            messages=(*system, *history, {"role": "user", "content": question}),
            # With the ids that the report will use.
            documents=tuple(prepare_documents(with_unique_ids(documents))),
            instruction=self._instruction,
            answer=self._answer,
            compression=self._compression,
            sampling=self._sampling,
        )


def _handle(
    model: Any, scorer: Any, counting: Mapping[str, Any]
) -> SharedEngine | ChooseThenGenerate:
    """What answers; a generator that cannot compress documents gets a model that chooses."""
    combined = isinstance(model, ChooseThenGenerate)
    if combined and scorer is not None:
        raise ConfigurationError(f"two scorers are given: {scorer!r}, and {model!r} has one")
    if combined or getattr(model, "takes_documents", True):
        if counting:
            reason = "says itself how it counts" if combined else "counts with its own tokenizer"
            raise ConfigurationError(
                f"{', '.join(counting)}: {model!r} {reason}. Leave it out; it is for a generator "
                "elsewhere, such as an OpenAIServer"
            )
        return model if combined else SharedEngine.of(model, scorer=scorer)
    generator: AnyGenerator = model
    return ChooseThenGenerate(generator, "embedded" if scorer is None else scorer, **counting)


def _several(questions: Sequence[str]) -> Sequence[str]:
    if isinstance(questions, str):
        raise InvalidInputError(f"questions must be a list of questions, got {questions!r}")
    return questions


def _piece(piece: AnswerPiece, documents: tuple[Document, ...]) -> RagPiece:
    answer = None if piece.details is None else _answer(piece.details, documents)
    return RagPiece(text=piece.text, answer=answer)


def _answer(details: AnswerDetails, documents: tuple[Document, ...]) -> RagAnswer:
    return RagAnswer(
        text=details.text,
        documents=documents,
        citations=cite(find_quotes(details.text, documents), documents),
        details=details,
    )


def _answers(found: Sequence[AnswerDetails], requests: Sequence[AskRequest]) -> list[RagAnswer]:
    pairs = zip(found, requests, strict=True)
    return [_answer(details, request.documents) for details, request in pairs]
