"""One question from start to finish: compress the documents, then stream the answer."""

import asyncio
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from finch_integrations.config import with_overrides
from finch_integrations.documents import check_text
from finch_integrations.engine.answer_parts import Parts
from finch_integrations.engine.prompt import build_frame, make_prompt
from finch_integrations.errors import ContextTooLongError, InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions
from finch_integrations.pipeline.answering import Answering, plan_answer
from finch_integrations.pipeline.history import report_trimmed, trim_history
from finch_integrations.pipeline.misses import report_miss
from finch_integrations.types import (
    CompressionProgress,
    CompressionStats,
    Document,
    DocumentShare,
    Excerpt,
    FinishReason,
    GenerationResponse,
    InvalidToolCall,
    Message,
    SelectionStats,
    TokenLogprob,
    ToolCall,
)

if TYPE_CHECKING:
    from finch_integrations.engine.context import CompressedContext
    from finch_integrations.engine.engine import FinchEngine

Progress = Callable[[CompressionProgress], None]
Result = TypeVar("Result")
# See `ask`.
Turn = Callable[[Callable[[], None]], AbstractContextManager[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequest:
    """What to answer, and how.

    Attributes:
        messages: The chat, with the roles `system`, `user`, `assistant` and `tool`. With documents
            it ends with the user's question, and system texts are joined at the start.
        documents: Compressed under the question; none: a plain chat, uncompressed.
        instruction: Goes between documents and question; None: the engine's own.
        result: The tool's result that the documents are in; see `Prompt`.
        answer: What the answer may consist of: tools, a schema.
        advice: Said of a long chat without documents: how they are found if it has some.
        trim_history: Leave out the oldest turns of a chat that does not fit the window.
        chat_template_kwargs: Further variables for the chat template.
        compression: Fields of `CompressionConfig` to change.
        sampling: Fields of `SamplingParams` to change.
    """

    messages: tuple[Message, ...]
    documents: tuple[Document, ...] = ()
    instruction: str | None = None
    closing: str = ""
    result: Message | None = None
    answer: AnswerOptions = field(default_factory=AnswerOptions)
    advice: str = ""
    trim_history: bool = False
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    compression: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDetails:
    """What an answer cost, and what it is based on.

    Attributes:
        text: The whole answer, without thoughts and calls.
        finish_reason: `stop` or `length`.
        prompt_tokens: Length of the prompt before compression.
        generation_tokens: Tokens generated.
        generation_seconds: Wall-clock time of the decoding.
        compression: What the compression did, or the choice of passages where the answer comes from
            elsewhere; None without documents.
        document_shares: Per document, how much of it was kept.
        excerpts: The passages that were kept of them, where the method keeps passages.
        context: The compressed documents, if they were asked for.
        reasoning: The thoughts before the answer.
        calls: The calls that were made.
        invalid_calls: What began as a call and is none, for example because it was cut.
        logprobs: How likely every token was, thoughts and calls included, if that was asked for.
        trimmed_messages: How many of the oldest messages were left out.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    generation_tokens: int
    generation_seconds: float
    compression: CompressionStats | SelectionStats | None
    document_shares: tuple[DocumentShare, ...]
    excerpts: tuple[Excerpt, ...] = ()
    context: "CompressedContext | None" = None
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    invalid_calls: tuple[InvalidToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    trimmed_messages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPiece:
    """A piece of an answer; the last one, and only the last, has the details.

    Attributes:
        text: New text.
        reasoning: New thoughts.
        calls: Calls that are complete now.
        logprobs: How likely the new tokens were, if that was asked for.
        details: Of the whole answer.
    """

    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    details: AnswerDetails | None = None


def ask(
    engine: "FinchEngine",
    request: AskRequest,
    *,
    progress: Progress | None = None,
    keep_context: bool = False,
    turn: Turn = lambda _: nullcontext(()),
    check: Callable[[], None] = lambda: None,
) -> Generator[AnswerPiece, None, None]:
    """Answer a request; one piece per token, so its text may be empty.

    Args:
        engine: Runs the model.
        request: What to answer.
        progress: Called after every chunk of the compression.
        keep_context: Whether the details include the compressed documents.
        turn: Entered with `check` while passages are chosen. Returns questions that will be asked
            next, in requests that differ in nothing else: they are chosen for at the same time.
        check: Called after every chunk of a compression; raises to cancel.

    Raises:
        FinchError: As `FinchEngine.compress`, `.stream` and `.chat` raise it.
    """
    context: CompressedContext | None = None
    pieces: Iterator[GenerationResponse]
    answering = plan_answer(engine, request.answer, request.chat_template_kwargs)
    before = len(request.messages)
    # One turn alone has nothing before it to leave out.
    if request.trim_history and sum(turn["role"] != "system" for turn in request.messages) > 1:
        request = _fitting(engine, request, answering)
    if request.documents:
        system, history, question = _split(request.messages)
        options = dict(request.compression)
        if request.instruction is not None:
            options["instruction"] = request.instruction
        with turn(check) as further_questions:
            context = engine.compress(
                request.documents,
                question,
                system=system,
                history=history,
                closing=request.closing,
                tools=request.answer.tools,
                result=request.result,
                chat_template_kwargs=answering.chat_template_kwargs,
                progress=_checking(check, progress),
                further_questions=further_questions,
                **options,
            )
        pieces = engine.stream(context, constraint=answering.constraint, **request.sampling)
    else:
        pieces = _chat(engine, request, answering)
    started = time.perf_counter()
    text = reasoning = ""
    logprobs: list[TokenLogprob] = []
    calls: tuple[ToolCall, ...] = ()
    for piece in pieces:
        parts = answering.reader.push(piece.text)
        details = None
        if piece.finish_reason is not None:
            last = answering.reader.finish()
            parts = Parts(
                parts.text + last.text, parts.reasoning + last.reasoning, parts.calls + last.calls
            )
        logprobs += piece.logprobs
        text += parts.text
        reasoning += parts.reasoning
        calls += parts.calls
        if piece.finish_reason is not None:
            details = AnswerDetails(
                text=text,
                finish_reason=piece.finish_reason,
                prompt_tokens=piece.prompt_tokens,
                generation_tokens=piece.generation_tokens,
                generation_seconds=time.perf_counter() - started,
                compression=context.stats if context else None,
                document_shares=context.document_shares if context else (),
                excerpts=context.excerpts if context else (),
                context=context if keep_context else None,
                reasoning=reasoning,
                calls=calls,
                invalid_calls=answering.reader.invalid,
                logprobs=tuple(logprobs),
                trimmed_messages=before - len(request.messages),
            )
        yield AnswerPiece(
            text=parts.text,
            reasoning=parts.reasoning,
            calls=parts.calls,
            logprobs=piece.logprobs,
            details=details,
        )


def _fitting(engine: "FinchEngine", request: AskRequest, answering: Answering) -> AskRequest:
    """The same with as much of its history as fits, with documents and an answer."""
    sampling = with_overrides(engine.sampling, request.sampling)
    room = engine.window - min(sampling.max_tokens, engine.window // 4)
    if request.documents:
        target = with_overrides(engine.compression, request.compression).fixed_size
        room -= engine.window // 4 if target is None else target

    def fits(numbers: Sequence[int]) -> bool:
        messages = [request.messages[number] for number in numbers]
        # A token has at least one byte, and a template adds few: most chats need not be counted.
        if sum(len(one["content"].encode("utf-8", "replace")) for one in messages) < room // 2:
            return True
        return _length(engine, replace(request, messages=tuple(messages)), answering) <= room

    kept = trim_history([message["role"] for message in request.messages], fits)
    trimmed = len(request.messages) - len(kept)
    report_trimmed([message["content"] for message in request.messages], trimmed)
    return replace(request, messages=tuple(request.messages[number] for number in kept))


def _length(engine: "FinchEngine", request: AskRequest, answering: Answering) -> int:
    """Tokens of the prompt, documents left out."""
    said: dict[str, Any] = {
        "tools": request.answer.tools,
        "chat_template_kwargs": answering.chat_template_kwargs,
    }
    if not request.documents:
        return engine.count_chat_tokens(request.messages, **said)
    system, history, question = _split(request.messages)
    if request.instruction is not None:
        said["instruction"] = request.instruction
    prompt = make_prompt(
        question=question,
        system=system,
        history=history,
        closing=request.closing,
        result=request.result,
        **said,
    )
    frame = build_frame(engine.backbone.tokenizer, prompt)
    return len(frame.prefix) + len(frame.suffix)


def read_ahead(
    engine: "FinchEngine",
    request: AskRequest,
    *,
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[int, None, None]:
    """Read a request's documents into the store, for requests that differ in their question.

    Args:
        engine: Runs the model.
        request: With documents; its question does not matter.
        progress: Called after every batch.
        check: Called after every batch; raises to cancel.

    Yields:
        How many tokens were read, once.

    Raises:
        FinchError: As `FinchEngine.read_ahead` raises it.
    """
    answering = plan_answer(engine, request.answer, request.chat_template_kwargs)
    system, _, _ = _split(request.messages)
    options = dict(request.compression)
    if request.instruction is not None:
        options["instruction"] = request.instruction
    yield engine.read_ahead(
        request.documents,
        system=system,
        tools=request.answer.tools,
        chat_template_kwargs=answering.chat_template_kwargs,
        progress=_checking(check, progress),
        **options,
    )


def _chat(
    engine: "FinchEngine", request: AskRequest, answering: Answering
) -> Iterator[GenerationResponse]:
    """Answer without documents; if they were missed, a long chat is said to be one."""
    said: dict[str, Any] = {
        "tools": request.answer.tools,
        "chat_template_kwargs": answering.chat_template_kwargs,
    }
    if request.advice:
        report_miss(
            [message["content"] for message in request.messages],
            lambda: engine.count_chat_tokens(request.messages, **said),
            with_overrides(engine.compression, request.compression).fixed_size,
            request.advice,
        )
    try:
        yield from engine.chat(
            request.messages, constraint=answering.constraint, **said, **request.sampling
        )
    except ContextTooLongError as error:
        if not request.advice:
            raise
        raise ContextTooLongError(f"{error}. {request.advice}") from error


async def convert(make: Callable[[AnswerPiece], Result], piece: AnswerPiece) -> Result:
    """Convert a piece without blocking the event loop.

    The last one is converted in another thread: finding what it quotes of many documents takes
    time.
    """
    if piece.details is None:
        return make(piece)
    return await asyncio.to_thread(make, piece)


def question_of(request: AskRequest) -> str | None:
    """What a request asks; None: it has no usable question."""
    last = request.messages[-1] if request.messages else None
    content = last.get("content") if isinstance(last, Mapping) else None
    return content if _role(last) == "user" and isinstance(content, str) else None


def _checking(check: Callable[[], None], progress: Progress | None) -> Progress:
    """Report progress only after a check, which raises to cancel."""

    def report(state: CompressionProgress) -> None:
        check()
        if progress is not None:
            progress(state)

    return report


def split_question(messages: tuple[Message, ...]) -> tuple[list[Message], str]:
    """Return the earlier turns and the question, with which a chat about documents ends.

    Raises:
        InvalidInputError: The last message is not a user's, or is no text.
    """
    _, history, question = _split(messages)
    return history, question


def _split(messages: tuple[Message, ...]) -> tuple[str | None, list[Message], str]:
    """Split a chat into system text, history and question; the engine checks the history."""
    if not messages or _role(messages[-1]) != "user":
        roles = ", ".join(str(_role(message)) for message in messages) or "none"
        raise InvalidInputError(
            f"with documents the messages must end with the user's question, got the roles: {roles}"
        )
    *turns, question = messages
    system = [
        check_text("the system text", turn.get("content"))
        for turn in turns
        if _role(turn) == "system"
    ]
    history = [turn for turn in turns if _role(turn) != "system"]
    asked = check_text("the question", question.get("content"))
    return "\n\n".join(system) or None, history, asked


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, Mapping) else None
