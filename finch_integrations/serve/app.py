"""The application: its parts, its beginning and end, its errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from finch_integrations import __version__
from finch_integrations.errors import FinchError
from finch_integrations.pipeline.rag import Retriever
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.retrieval.encoders import Encoder
from finch_integrations.serve.errors import ApiError, as_api_error
from finch_integrations.serve.guard import Guard
from finch_integrations.serve.page import make_page_routes
from finch_integrations.serve.routes import make_routes
from finch_integrations.serve.service import Model, Service
from finch_integrations.serve.settings import ServerSettings
from finch_integrations.serve.state import make_state_routes


def make_app(
    model: Any = "embedded",
    *,
    retriever: Retriever | None = None,
    encoder: Encoder | None = None,
    settings: ServerSettings | None = None,
) -> FastAPI:
    """Make the application of a server, for any ASGI server.

    Args:
        model: Answers: a `SharedEngine` or what it takes, or a `ChooseThenGenerate`. It is loaded
            when the application starts, and unloaded when that ends.
        retriever: Finds documents for requests that have none, such as a `HybridRetriever`.
        encoder: Encodes texts for `/v1/embeddings`, such as a `SentenceTransformerEncoder`.
        settings: Limits and defaults.

    Raises:
        ConfigurationError: The settings contradict each other.
        UnsupportedModelError: A ready model cannot be compressed for.
    """
    answering: Model = model if hasattr(model, "astream") else SharedEngine.of(model)
    service = Service(answering, settings or ServerSettings(), retriever, encoder)

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
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; the page has its own
        redoc_url=None,
    )
    app.state.service = service
    _add_errors(app)
    app.include_router(make_routes(service))
    app.include_router(make_state_routes(service))
    app.include_router(make_page_routes(app, service))
    app.add_middleware(Guard, settings=service.settings, count=service.metrics.count)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error.response_to(request.url.path)

    @app.exception_handler(FinchError)
    async def finch_error(request: Request, error: FinchError) -> Response:
        return as_api_error(error).response_to(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Where a value may be of several types, what comes closest to one is said.
        first = max(error.errors(), key=lambda one: len(one["loc"]))
        parts = [str(part) for part in first["loc"] if part != "body"]
        place = ".".join(part for part in parts if "[" not in part)[:200]  # no names of types
        kind = {"extra_forbidden": "unknown_parameter", "json_invalid": "invalid_json"}
        code = kind.get(first["type"], "invalid_value")
        message = "the body is no JSON" if code == "invalid_json" else first["msg"]
        if code == "unknown_parameter":
            message = "this field is not known or not supported here. Leave it out"
        text = f"{place or 'body'}: {message}"
        return ApiError(400, text, code, param=place or None).response_to(request.url.path)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        refused = ApiError(error.status_code, error.detail, "http_error", headers=headers)
        return refused.response_to(request.url.path)

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> Response:
        return as_api_error(error).response_to(request.url.path)  # the server logs it
