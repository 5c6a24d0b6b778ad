"""Choose here, generate anywhere: a local model reads and chooses, any generator answers."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

from finch_integrations.engine.prompt import INSTRUCTION, follow_up
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.ask import (
    AnswerDetails,
    AnswerPiece,
    AskRequest,
    Progress,
    split_question,
)
from finch_integrations.pipeline.chooser import Choice, Chooser, check_elsewhere, token_count
from finch_integrations.pipeline.generator import Generator as AnyGenerator
from finch_integrations.pipeline.in_place import write_documents
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.types import Message


class ChooseThenGenerate:
    """Answers as a `SharedEngine` does, but from a prompt that holds what was chosen as text.

    The generator gets the request's messages; the chosen passages are written in front of the
    question, in tags with ids and titles. Choosing goes by the question and the one before it.

    Example:
        server = OpenAIServer("http://localhost:8080/v1", "qwen3-4b")
        rag = FinchRAG(WholeSet(documents), ChooseThenGenerate(server, "embedded"))

    Attributes:
        name: The generator's.
        generator: Answers.
        scorer: The local model that chooses.
    """

    takes_documents = True

    def __init__(
        self,
        generator: AnyGenerator,
        scorer: Any = "embedded",
        *,
        count_tokens: Callable[[str], int] | None = None,
        token_ratio: float | None = None,
    ) -> None:
        """Combine the two.

        Args:
            generator: Answers; anything that streams, such as an `OpenAIServer`.
            scorer: Chooses; a `SharedEngine`, or what it takes.
            count_tokens: The generator's own tokenizer, for the budget; None: the scorer's.
            token_ratio: Or: the generator's tokens per token of the scorer.

        Raises:
            ConfigurationError: The scorer has a scorer, or how to count is said twice or wrong.
            UnsupportedModelError: A ready scorer cannot be used.
        """
        self.generator = generator
        self.scorer = SharedEngine.of(scorer)
        self.name = generator.name
        self._count_tokens = token_count(self.scorer, count_tokens, token_ratio)

    def count_tokens(self, text: str) -> int:
        """Measure a text as the budget does."""
        return self._chooser({}).count(text)

    def bytes_needed(self, request: AskRequest) -> int:
        """Bytes of keys and values that choosing for a request needs at most.

        Raises:
            ConfigurationError: An option of the request is wrong.
        """
        if not request.documents:
            return 0
        return self.scorer.bytes_needed(replace(request, sampling={"max_tokens": 1}))

    def free_bytes(self) -> int:
        """Memory that is free where the scorer runs; loads it if necessary."""
        return self.scorer.free_bytes()

    def check_options(self, compression: Mapping[str, Any], *, keep_context: bool = False) -> None:
        """Refuse options that make no sense for a generator elsewhere.

        Args:
            compression: Fields of `CompressionConfig`.
            keep_context: Whether a compressed context is wanted.

        Raises:
            ConfigurationError: There is one.
        """
        check_elsewhere(compression)
        if keep_context:
            raise ConfigurationError(
                "there is no compressed context to keep: the answer is generated elsewhere, from "
                "text. Leave keep_context out, or run the model here"
            )

    def stream(
        self, request: AskRequest, *, progress: Progress | None = None, keep_context: bool = False
    ) -> Generator[AnswerPiece, None, None]:
        """Choose, then answer piece by piece; closing the generator stops the work.

        Args:
            request: What to answer.
            progress: Called after every chunk that was read to choose.
            keep_context: Not possible here.

        Raises:
            ConfigurationError: A compressed context was asked for.
            FinchError: As the scorer and the generator raise it.
        """
        self.check_options(request.compression, keep_context=keep_context)
        choice = None
        if request.documents:
            question = follow_up(*split_question(request.messages))
            chooser = self._chooser(request.compression)
            choice = chooser.choose(request.documents, question, progress=progress)
            request = _with_text(request, choice)
        with closing(self.generator.stream(request)) as pieces:
            for piece in pieces:
                yield _with_choice(piece, choice)

    async def astream(
        self, request: AskRequest, *, progress: Progress | None = None, keep_context: bool = False
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Like `stream`, without blocking the event loop; cancelling the task stops the work."""
        self.check_options(request.compression, keep_context=keep_context)
        choice = None
        if request.documents:
            question = follow_up(*split_question(request.messages))
            chooser = self._chooser(request.compression)
            choice = await chooser.achoose(request.documents, question, progress=progress)
            request = _with_text(request, choice)
        async with aclosing(self.generator.astream(request)) as pieces:
            async for piece in pieces:
                yield _with_choice(piece, choice)

    def read_ahead(self, request: AskRequest, *, progress: Progress | None = None) -> int:
        """Have the scorer read a request's documents before a question is asked.

        Args:
            request: With documents; its question does not matter.
            progress: Called after every batch; an exception that it raises ends the reading.

        Returns:
            How many document tokens were read.

        Raises:
            FinchError: As `FinchEngine.read_ahead` raises it.
        """
        # The scorer gets no system text and no instruction.
        bare = AskRequest(
            messages=request.messages[-1:],
            documents=request.documents,
            compression=request.compression,
        )
        return self.scorer.read_ahead(bare, progress=progress)

    def answer_all(
        self, requests: Sequence[AskRequest], *, keep_context: bool = False
    ) -> list[AnswerDetails]:
        """Answer several requests, one after another.

        Args:
            requests: What to answer.
            keep_context: Not possible here.

        Raises:
            FinchError: As for `stream`, for the first request that fails.
        """
        return [
            _details([*self.stream(request, keep_context=keep_context)]) for request in requests
        ]

    async def aanswer_all(
        self, requests: Sequence[AskRequest], *, keep_context: bool = False
    ) -> list[AnswerDetails]:
        """Like `answer_all`, without blocking the event loop; cancelling stops the work."""
        found = []
        for request in requests:
            async with aclosing(self.astream(request, keep_context=keep_context)) as pieces:
                found.append(_details([piece async for piece in pieces]))
        return found

    def close(self) -> None:
        """Unload the scorer for everyone in this process; the next use loads it again."""
        self.scorer.close()

    def _chooser(self, compression: Mapping[str, Any]) -> Chooser:
        return Chooser(self.scorer, compression, self._count_tokens)

    def __repr__(self) -> str:
        return f"ChooseThenGenerate({self.generator!r}, {self.scorer!r})"


def _details(pieces: Sequence[AnswerPiece]) -> AnswerDetails:
    details = pieces[-1].details
    assert details is not None, "the last piece has the details"
    return details


def _with_text(request: AskRequest, choice: Choice) -> AskRequest:
    """Write what was chosen in front of the question."""
    instruction = INSTRUCTION if request.instruction is None else request.instruction
    *before, asking = request.messages
    content = f"{write_documents(choice)}\n\n{instruction.strip()} {asking['content']}"
    asked: Message = {**asking, "content": content}
    return replace(request, messages=(*before, asked), documents=(), instruction=None)


def _with_choice(piece: AnswerPiece, choice: Choice | None) -> AnswerPiece:
    details = piece.details
    if details is None or choice is None:
        return piece
    # Of a server that does not count its prompts only what was chosen is known.
    sent = details.prompt_tokens or choice.tokens_after
    return replace(
        piece,
        details=replace(
            details,
            prompt_tokens=sent + choice.tokens_before - choice.tokens_after,
            compression=choice.stats,
            document_shares=choice.shares,
            excerpts=tuple(excerpt for part in choice.shortened for excerpt in part.excerpts),
        ),
    )
