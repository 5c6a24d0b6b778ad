"""The routes of the page; all that it shows comes from this server."""

import asyncio
import base64
import binascii
import secrets
from collections import OrderedDict
from contextlib import aclosing
from functools import partial
from importlib import resources
from pathlib import PurePath

from fastapi import APIRouter, FastAPI, Response

from finch_integrations.engine.methods import METHODS
from finch_integrations.errors import InvalidInputError
from finch_integrations.pages import templates_of
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.reading import SUFFIXES, open_reader
from finch_integrations.serve.chat import with_ids
from finch_integrations.serve.documents import read_documents
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.page.kept import draw_kept
from finch_integrations.serve.page.schemas import FileRequest, KeptRequest
from finch_integrations.serve.service import Service

# What the page may load and do: its own parts, and nothing from elsewhere.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Documents and answers are of unknown origin.
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'"
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PARTS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
# Reports that are kept to be looked at.
_REPORTS = 8


def make_page_routes(app: FastAPI, service: Service) -> APIRouter:
    """Make the page's routes.

    Args:
        app: What `/docs` describes.
        service: Answers.
    """
    router = APIRouter(include_in_schema=False)
    templates = templates_of("finch_integrations.serve.page")
    parts = resources.files("finch_integrations.serve.page")
    reports: OrderedDict[str, str] = OrderedDict()

    @router.get("/")
    async def page() -> Response:
        """Show the page."""
        return _html(
            templates.get_template("page.html.jinja").render(
                model=service.model.name,
                has_index=service.retriever is not None,
                needs_key=service.settings.api_key is not None,
                methods=METHODS,
                suffixes=SUFFIXES,
                most_documents=service.settings.max_documents,
                most_bytes=service.settings.max_body_bytes,
            )
        )

    @router.get("/docs")
    async def docs() -> Response:
        """Describe what the server takes, from the schema at `/openapi.json`."""
        return _html(templates.get_template("docs.html.jinja").render(schema=app.openapi()))

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        """Send a part of the page."""
        if name not in _PARTS:
            raise ApiError(404, f"the page has no part {name!r}", "http_error")
        content = parts.joinpath(name).read_bytes()
        return Response(content, media_type=_PARTS[name], headers=_HEADERS)

    @router.post("/page/read")
    async def read(body: FileRequest) -> dict[str, str]:
        """Make text of a file that was dropped; its name is not a path here."""
        return {"text": await asyncio.to_thread(_read, body, service.settings.max_body_bytes)}

    @router.post("/page/kept")
    async def make_report(body: KeptRequest) -> dict[str, str]:
        """Choose again in two ways, and make a report of both."""
        service.check_ready()
        documents = read_documents(body.documents) if body.documents else ()
        request = AskRequest(
            messages=({"role": "user", "content": body.question},),
            documents=documents,
            compression={
                **service.settings.compression,
                "target_size": body.target_size,
                "method": body.method,
            },
        )
        request = with_ids(await service.find(request, 20))
        if not request.documents:
            raise ApiError(400, "there are no documents to choose from", "invalid_input")
        task = partial(draw_kept, request=request, answer=body.answer, other=body.other)
        async with service.place(request) as reader, aclosing(reader.arun(task)) as made:
            name = secrets.token_urlsafe(16)
            reports[name] = await anext(made)
        while len(reports) > _REPORTS:
            reports.popitem(last=False)
        return {"address": f"/page/kept/{name}"}

    @router.get("/page/kept/{name}")
    async def report(name: str) -> Response:
        """Show a report; its name is known only to who made it."""
        if name not in reports:
            raise ApiError(404, "this report is not kept any more", "http_error")
        return _html(reports[name], _REPORT_POLICY)

    return router


def _html(content: str, policy: str = _POLICY) -> Response:
    headers = {**_HEADERS, "Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return Response(content, media_type="text/html", headers=headers)


def _read(body: FileRequest, most_bytes: int) -> str:
    try:
        content = base64.b64decode(body.content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("the file's content is no base64") from error
    with open_reader(most_bytes) as reader:
        return reader.parse(content, PurePath(body.name).suffix.lower()).text
