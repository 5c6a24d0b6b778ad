"""The application: routes over one service."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from finch_integrations import __version__
from finch_integrations.errors import FinchError
from finch_integrations.pipeline.ask import AnswerPiece
from finch_integrations.pipeline.rag import Retriever
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.serve.chat import Answer, Call, read_call, with_ids
from finch_integrations.serve.errors import ApiError, as_api_error
from finch_integrations.serve.guard import Guard
from finch_integrations.serve.schemas import (
    AnswerOptions,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
)
from finch_integrations.serve.service import Event, Model, Service
from finch_integrations.serve.settings import ServerSettings

_log = logging.getLogger(__name__)


def make_app(
    model: Any = "embedded",
    *,
    retriever: Retriever | None = None,
    settings: ServerSettings | None = None,
) -> FastAPI:
    """Make the application of a server, for any ASGI server.

    Args:
        model: Answers: a `SharedEngine` or what it takes, or a `ChooseThenGenerate`. It is loaded
            when the application starts, and unloaded when that ends.
        retriever: Finds documents for requests that have none, such as a `HybridRetriever`.
        settings: Limits and defaults.

    Raises:
        ConfigurationError: The settings contradict each other.
        UnsupportedModelError: A ready model cannot be compressed for.
    """
    answering: Model = model if hasattr(model, "astream") else SharedEngine.of(model)
    service = Service(answering, settings or ServerSettings(), retriever)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load())
        yield
        service.problem = "the server is shutting down"
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        await asyncio.to_thread(answering.close)

    app = FastAPI(
        title="finch serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    _add_errors(app)
    _add_answers(app, service)
    _add_state(app, service)
    app.add_middleware(Guard, settings=service.settings, count=service.metrics.count)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, http: Request) -> Response:
        """Answer a chat, from documents if there are any."""
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise ApiError(
                400,
                "max_tokens and max_completion_tokens are the same limit; give one of them",
                "invalid_value",
                param="max_tokens",
            )
        limit = body.max_tokens if body.max_tokens is not None else body.max_completion_tokens
        call = await _read(service, body, body.messages, limit)
        answer = Answer(body.model, call, "chat")
        return await _respond(service, http, body, call, answer, _wants_usage(body))

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, http: Request) -> Response:
        """Answer a prompt, which is one user's message."""
        messages = [ChatMessage(role="user", content=body.prompt)]
        call = await _read(service, body, messages, body.max_tokens)
        answer = Answer(body.model, call, "text")
        return await _respond(service, http, body, call, answer, _wants_usage(body))


def _wants_usage(body: ChatRequest | CompletionRequest) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


async def _read(
    service: Service, body: AnswerOptions, messages: Sequence[ChatMessage], limit: int | None
) -> Call:
    if body.model != service.model.name:
        raise ApiError(
            404,
            f"there is no model {body.model!r} here. This server has {service.model.name!r}",
            "model_not_found",
            param="model",
        )
    if service.problem is not None:
        raise ApiError(503, service.problem, "not_ready", headers={"Retry-After": "5"})
    if body.stream and body.citations == "inline":
        raise ApiError(
            400,
            "inline citations are found once the answer is complete, so they cannot be streamed. "
            "Leave out stream, or take citations='annotations'",
            "unsupported_value",
            param="citations",
        )
    # Finding documents in long texts takes time.
    call = await asyncio.to_thread(read_call, body, messages, limit, service.settings)
    if body.retrieve and not call.request.documents:
        request = await service.find(call.request, body.retrieval_top_k)
        if request is not call.request:
            return replace(call, request=with_ids(request), source="evidence")
    return call


async def _respond(
    service: Service, http: Request, body: AnswerOptions, call: Call, answer: Answer, usage: bool
) -> Response:
    if not body.stream:
        details = await _unless_left(http, service.answer(call.request))
        whole = await asyncio.to_thread(answer.whole, details, body.citations)
        return _json(whole)
    events = service.events(call.request)
    # Errors that come before anything else still get their status.
    first = await anext(events)
    return _EventStream(_stream(first, events, answer, body.citations, usage))


class _EventStream(StreamingResponse):
    """Server-sent events; the work behind them ends with the response, whoever ends that."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _unless_left(http: Request, work: Any) -> Any:
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


async def _stream(
    first: Event,
    events: AsyncGenerator[Event, None],
    answer: Answer,
    citations: str,
    usage: bool,
) -> AsyncGenerator[str, None]:
    """Server-sent events of an answer; how far a compression is, is in comments."""
    opened = False
    try:
        async with aclosing(events):
            event: Event | None = first
            while event is not None:
                if isinstance(event, AnswerPiece):
                    if event.text or not opened:
                        yield _event(answer.piece(event.text, first=not opened))
                        opened = True
                    if (details := event.details) is not None:
                        last = await asyncio.to_thread(answer.last, details, citations)
                        yield _event(last)
                        if usage:
                            yield _event(answer.usage(details))
                else:
                    yield f": read {event.tokens} of {event.total_tokens} tokens\n\n"
                event = await anext(events, None)
    except Exception as error:
        _log_failure(error)
        yield _event(as_api_error(error).body)
        return
    yield "data: [DONE]\n\n"


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _json(content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content), media_type="application/json")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model."""
        return {"object": "list", "data": [_model(service.model.name)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe the model."""
        if name != service.model.name:
            raise ApiError(404, f"there is no model {name!r} here", "model_not_found")
        return _model(name)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether it can answer."""
        if service.problem is not None:
            raise ApiError(503, service.problem, "not_ready", headers={"Retry-After": "5"})
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.write(), media_type="text/plain; version=0.0.4")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "finch"}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response

    @app.exception_handler(FinchError)
    async def finch_error(_: Request, error: FinchError) -> Response:
        return as_api_error(error).response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        kind = {"extra_forbidden": "unknown_parameter", "json_invalid": "invalid_json"}
        code = kind.get(first["type"], "invalid_value")
        message = "the body is no JSON" if code == "invalid_json" else first["msg"]
        if code == "unknown_parameter":
            message = "this field is not known or not supported here. Leave it out"
        return ApiError(400, f"{place or 'body'}: {message}", code, param=place or None).response

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return ApiError(error.status_code, error.detail, "http_error", headers=headers).response

    @app.exception_handler(Exception)
    async def failure(_: Request, error: Exception) -> Response:
        return as_api_error(error).response  # the server logs it


def _log_failure(error: Exception) -> None:
    if as_api_error(error).code == "internal_error":
        _log.error("an answer failed", exc_info=error)
