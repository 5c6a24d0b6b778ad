"""Answers as server-sent events, and what happens when a client leaves."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from finch_integrations.pipeline.ask import AnswerPiece
from finch_integrations.serve.errors import ApiError, as_api_error
from finch_integrations.serve.marking import MarkedText
from finch_integrations.serve.service import Event
from finch_integrations.serve.writers import Writer

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


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
    first: Event,
    events: AsyncGenerator[Event, None],
    writer: Writer,
    marked: Sequence[MarkedText],
) -> AsyncGenerator[str, None]:
    """Write the events of answers; how far a compression is, is in comments.

    Args:
        first: The first event.
        events: Those after it.
        writer: Writes them.
        marked: Put citations into the answers' texts; none: they are not there.
    """
    try:
        async with aclosing(events):
            event: Event | None = first
            while event is not None:
                index, said = event
                if isinstance(said, AnswerPiece):
                    for line in await _write(index, said, writer, marked):
                        yield line
                else:
                    yield f": read {said.tokens} of {said.total_tokens} tokens\n\n"
                event = await anext(events, None)
        for line in writer.end():
            yield line
    except Exception as error:
        failure = as_api_error(error)
        if failure.code == "internal_error":
            _log.error("an answer failed", exc_info=error)
        yield writer.error(failure)


async def _write(
    index: int, piece: AnswerPiece, writer: Writer, marked: Sequence[MarkedText]
) -> list[str]:
    """Write a piece. Finding quotes in documents takes time, which is not the event loop's."""
    details = piece.details
    if marked:
        text = await asyncio.to_thread(marked[index].push, piece.text)
        if details is not None:
            text += await asyncio.to_thread(marked[index].finish)
        piece = replace(piece, text=text)
    written = writer.piece(index, piece)
    if details is not None:
        written += await asyncio.to_thread(writer.last, index, details)
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
