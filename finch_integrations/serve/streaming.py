"""Answers as server-sent events, and what happens when a client leaves."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.serve.chat import Answer
from finch_integrations.serve.errors import ApiError, as_api_error
from finch_integrations.serve.marking import MarkedText
from finch_integrations.serve.responses import ResponseAnswer
from finch_integrations.serve.service import Event
from finch_integrations.types import ToolCall

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Writer(Protocol):
    """Writes the events of one answer in a protocol's form; called in one thread at a time."""

    def piece(self, text: str, reasoning: str, calls: Sequence[ToolCall]) -> list[str]:
        """Write some text, thoughts and complete calls; often there is nothing."""
        ...

    def last(self, details: AnswerDetails) -> list[str]:
        """Write the end of an answer."""
        ...

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        ...


class ChatWriter:
    """Chunks of chats and completions."""

    def __init__(self, answer: Answer, citations: str, *, usage: bool) -> None:
        """Start an answer.

        Args:
            answer: Its objects.
            citations: Where they go.
            usage: Whether the client wants to know the tokens.
        """
        self._answer, self._citations, self._usage = answer, citations, usage
        self._opened = False
        self._called = 0

    def piece(self, text: str, reasoning: str, calls: Sequence[ToolCall]) -> list[str]:
        """Write some text, thoughts and complete calls."""
        if self._opened and not (text or reasoning or calls):
            return []
        first, self._opened = not self._opened, True
        chunk = self._answer.piece(
            text, first=first, reasoning=reasoning, calls=calls, called=self._called
        )
        self._called += len(calls)
        return [_data(chunk)]

    def last(self, details: AnswerDetails) -> list[str]:
        """Write the end."""
        events = [_data(self._answer.last(details, self._citations))]
        if self._usage:
            events.append(_data(self._answer.usage(details)))
        return [*events, "data: [DONE]\n\n"]

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        return _data(error.body)


class ResponseWriter:
    """Events of `/v1/responses`, which are numbered and named."""

    def __init__(self, answer: ResponseAnswer, citations: str) -> None:
        """Start an answer; arguments as for `ChatWriter`."""
        self._answer, self._citations = answer, citations
        self._number = 0

    def piece(self, text: str, reasoning: str, calls: Sequence[ToolCall]) -> list[str]:
        """Write some text; requests of this form have no tools."""
        opening = self._answer.opening() if self._number == 0 else []
        return self._write([*opening, *([self._answer.delta(text)] if text else [])])

    def last(self, details: AnswerDetails) -> list[str]:
        """Write the end."""
        return self._write(self._answer.closing(details, self._citations))

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        facts = {"code": error.code, "message": error.message, "param": error.param}
        return "".join(self._write([{"type": "error", **facts}]))

    def _write(self, events: list[dict[str, Any]]) -> list[str]:
        written = []
        for event in events:
            written.append(
                f"event: {event['type']}\n" + _data({**event, "sequence_number": self._number})
            )
            self._number += 1
        return written


class EventStream(StreamingResponse):
    """Server-sent events; the work behind them ends with the response, whoever ends that."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        """Send what a generator yields."""
        super().__init__(events, headers={"Cache-Control": "no-store"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def write_events(
    first: Event, events: AsyncGenerator[Event, None], writer: Writer, marked: MarkedText | None
) -> AsyncGenerator[str, None]:
    """Write an answer's events; how far a compression is, is in comments.

    Args:
        first: The first event.
        events: Those after it.
        writer: Writes them.
        marked: Puts citations into the text; None: they are not there.
    """
    try:
        async with aclosing(events):
            event: Event | None = first
            while event is not None:
                if isinstance(event, AnswerPiece):
                    for line in await _write(event, writer, marked):
                        yield line
                else:
                    yield f": read {event.tokens} of {event.total_tokens} tokens\n\n"
                event = await anext(events, None)
    except Exception as error:
        failure = as_api_error(error)
        if failure.code == "internal_error":
            _log.error("an answer failed", exc_info=error)
        yield writer.error(failure)


async def _write(piece: AnswerPiece, writer: Writer, marked: MarkedText | None) -> list[str]:
    """Write a piece. Finding quotes in documents takes time, which is not the event loop's."""
    details, text = piece.details, piece.text
    if marked is not None:
        text = await asyncio.to_thread(marked.push, text)
        if details is not None:
            text += await asyncio.to_thread(marked.finish)
    written = writer.piece(text, piece.reasoning, piece.calls)
    if details is not None:
        written += await asyncio.to_thread(writer.last, details)
    return written


async def unless_left(http: Request, work: Awaitable[Result]) -> Result:
    """Wait for an answer; stop if the client leaves."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(400, "the client left", "client_left")
        return task.result()
    finally:
        leaving.cancel()
        task.cancel()
        with suppress(BaseException):
            await task


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _data(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
