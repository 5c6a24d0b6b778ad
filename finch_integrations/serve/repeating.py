"""Requests whose process is lost are sent to another one: a middleware of Ray's HTTP proxy.

The proxy of a machine has the clients' connections, and hands their requests to the `Front`s. If
one of these is killed, the application inside the proxy ends without a complete response; that is
how it is known here. What other applications of the same cluster are asked is left alone, unless it
only reads.
"""

import asyncio
import json
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finch_integrations.serve.errors import ApiError, is_cohere
from finch_integrations.serve.settings import ServerSettings

# What these are asked changes nothing, so it may be asked twice.
_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v2/chat",
    "/page/kept",
)
# How often a request is sent until a process lives long enough to answer it, and the seconds before
# the second time; they double. It takes a moment until it is known which process is gone.
_ATTEMPTS = 5
_PAUSE = 0.2


def middlewares() -> list[Middleware]:
    """For the environment variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(Repeating)]


class Repeating:
    """Repeats requests that were not answered, and ends answers that broke off."""

    def __init__(self, app: ASGIApp, room: int = ServerSettings().max_waiting_bytes) -> None:
        """Put it before an application.

        Args:
            app: Ends without a complete response where it could not give one.
            room: Bytes of requests to keep at most; those beyond are not repeated.
        """
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or not _repeatable(scope):
            await self._app(scope, receive, send)
            return
        request, answer = _Request(self, receive), _Answer(send)
        try:
            for attempt in range(_ATTEMPTS):
                # The application changes its headers.
                again = {**scope, "headers": list(scope["headers"])}
                await self._app(again, request.from_its_beginning(), answer.send)
                if answer.complete or request.left:
                    return
                if answer.began or not request.kept:
                    break
                await asyncio.sleep(_PAUSE * 2**attempt)
            await answer.break_off(again, receive)
        finally:
            self.give_back(request.size)

    def take(self, size: int) -> bool:
        """Take room for a part of a request, if there is any."""
        if size > self._room:
            return False
        self._room -= size
        return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self._room += size


class _Request:
    """A request as it comes, and what came of it already.

    Attributes:
        kept: Whether all that came is here.
        left: Whether the client is gone.
        size: Bytes that are here.
    """

    def __init__(self, room: Repeating, receive: Receive) -> None:
        self.kept, self.left, self.size = True, False, 0
        self._room, self._receive = room, receive
        self._came: list[Message] = []

    def from_its_beginning(self) -> Receive:
        """What hands it out."""
        came = iter(tuple(self._came))

        async def receive() -> Message:
            for message in came:
                return message
            return await self._next()

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.left = True
        elif self.kept:
            size = len(message.get("body", b""))
            self.kept = self._room.take(size)
            if self.kept:
                self.size += size
                self._came.append(message)
        return message


class _Answer:
    """An answer as it is sent.

    Attributes:
        began: Whether the client has anything of it beside how far the reading was.
        complete: Whether it has all.
    """

    def __init__(self, send: Send) -> None:
        self.began = self.complete = False
        self._send = send
        self._start: Message | None = None  # as the client has it
        self._next: Message | None = None  # as the process said it that answers now
        self._events = 0

    async def send(self, message: Message) -> None:
        """Send a message; the start only when something follows that."""
        if message["type"] == "http.response.start":
            self._next = message
            return
        assert self._next is not None, "a response has a start"
        if self._start is None:
            self._start = self._next
            await self._send(self._start)
        elif self._start["status"] != self._next["status"]:
            return  # the second process refuses what the first one had begun to read
        body = message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self.began = self.began or self.complete or not body.startswith(b":")
        self._events += body.startswith(b"event:")
        await self._send(message)

    async def break_off(self, scope: Scope, receive: Receive) -> None:
        """End it: with a status if nothing was sent, else with an event of the protocol's."""
        if self._start is None:
            await _lost().response_to(scope["path"])(scope, receive, self._send)
        elif Headers(raw=self._start["headers"])["content-type"].startswith("text/event-stream"):
            await self._send({"type": "http.response.body", "body": self._error(scope["path"])})
        # Of another answer a part is missing: the server cuts the connection.

    def _error(self, path: str) -> bytes:
        lost = _lost()
        event: dict[str, Any]
        if is_cohere(path):
            delta = {"error": lost.message, "finish_reason": "ERROR"}
            name, event = "message-end", {"type": "message-end", "delta": delta}
        elif path.endswith("/v1/responses"):
            facts = {"code": lost.code, "message": lost.message, "param": None}
            name, event = "error", {"type": "error", **facts, "sequence_number": self._events}
        else:
            return f"data: {json.dumps(lost.body)}\n\n".encode()
        return f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()


def _repeatable(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") or scope["path"].endswith(_PATHS)


def _lost() -> ApiError:
    return ApiError(
        503,
        "the process that answered is gone. Try again",
        "front_lost",
        headers={"Retry-After": "5"},
    )
