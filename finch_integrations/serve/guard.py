"""What every request must pass before it is read: host, key, size and speed."""

import asyncio
import hmac
import re
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.settings import LOOPBACK, ServerSettings

# For load balancers, and the page, which has no data of its own. A browser sends no key for what it
# shows in a frame: the names of reports are secrets themselves.
_OPEN = re.compile(r"/|/health|/ready|/docs|/page/[a-z]+\.[a-z]+|/page/kept/[\w-]{20,}")
_PORT = re.compile(r":\d+\Z")


class Guard:
    """Refuses requests from strangers and ones that are too large or too slow."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, count: Callable[[str, int], None]
    ) -> None:
        """Put it before an application.

        Args:
            app: The application.
            settings: What is allowed.
            count: Called for every response with the route's path and the status.
        """
        self._app = app
        self._settings = settings
        self._count = count
        self._held = 0  # bytes of requests that run or wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._count(path, message["status"])
            await send(message)

        await self._handle(scope, receive, counting)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        body = bytearray()
        try:
            try:
                self._check_host(headers)
                if not (scope["method"] == "GET" and _OPEN.fullmatch(scope["path"])):
                    self._check_key(headers)
                if scope["method"] == "POST":
                    check_kind(headers)
                    await self._read(headers, receive, body)
                    receive = _with_body(body, receive)
            except ApiError as error:
                await error.response_to(scope["path"])(scope, receive, send)
                return
            await self._app(scope, receive, send)
        finally:
            self._held -= len(body)

    def _check_host(self, headers: Headers) -> None:
        """Refuse other names for this machine, by which a web page could reach a local server."""
        name = _PORT.sub("", headers.get("host", "")).strip("[]").lower()
        if self._settings.loopback and name not in LOOPBACK:
            raise ApiError(
                421,
                "this server answers to the names 127.0.0.1, localhost and [::1] only",
                "unknown_host",
            )

    def _check_key(self, headers: Headers) -> None:
        wanted = self._settings.api_key
        if wanted is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), wanted.encode())
        if scheme.lower() != "bearer" or not same:
            raise ApiError(
                401,
                "the key is missing or wrong. Send it as the header 'Authorization: Bearer KEY'",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, headers: Headers, receive: Receive, body: bytearray) -> None:
        limit = self._settings.max_body_bytes
        too_large = ApiError(
            413, f"the request is larger than {limit:,} bytes. Send fewer documents", "too_large"
        )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            raise ApiError(400, "the header Content-Length is no number", "invalid_header")
        if int(length[:20]) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the client left", "client_left")
                    part = message.get("body", b"")
                    body += part
                    self._held += len(part)
                    if len(body) > limit:
                        raise too_large
                    if self._held > self._settings.max_waiting_bytes:
                        raise ApiError(
                            429,
                            "the requests that run or wait fill the server's memory. Try again "
                            "later",
                            "queue_full",
                            headers={"Retry-After": "5"},
                        )
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            raise ApiError(408, "the request took too long to arrive", "slow_request") from None


def check_kind(headers: Headers) -> None:
    """Refuse bodies that are no JSON: a web page elsewhere can send these without asking."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "send the request as 'Content-Type: application/json'", "unsupported_media_type"
        )


def _with_body(body: bytearray, receive: Receive) -> Receive:
    """Hand out a body that was read; then what comes after it."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return parts.pop() if parts else await receive()

    return read
