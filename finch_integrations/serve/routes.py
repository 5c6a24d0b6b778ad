"""The routes that answer: chats, completions, responses."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response

from finch_integrations.pipeline.ask import AnswerDetails
from finch_integrations.serve.answers import Answer
from finch_integrations.serve.chat import Call, read_call, with_ids
from finch_integrations.serve.cohere import CohereAnswer
from finch_integrations.serve.cohere_requests import CohereRequest, as_chat_request
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.marking import MarkedText
from finch_integrations.serve.responses import ResponseAnswer, messages_of
from finch_integrations.serve.schemas import (
    AnyRequest,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ResponseRequest,
)
from finch_integrations.serve.service import Service
from finch_integrations.serve.streaming import EventStream, unless_left, write_events
from finch_integrations.serve.writers import ChatWriter, ResponseWriter, Writer


class Whole(Protocol):
    """What makes the object of whole answers."""

    def whole(self, answers: Sequence[AnswerDetails]) -> Mapping[str, Any]:
        """Make it."""
        ...


def make_routes(service: Service) -> APIRouter:
    """Make the routes that answer."""
    router = APIRouter(tags=["answers"])

    @router.post("/v1/chat/completions")
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
        answer = Answer(body.model, call, "chat", body.citations)
        writer = ChatWriter(answer, usage=_wants_usage(body))
        return await _respond(service, http, body, call, answer, writer)

    @router.post("/v1/completions")
    async def complete(body: CompletionRequest, http: Request) -> Response:
        """Answer a prompt, which is one user's message."""
        messages = [ChatMessage(role="user", content=body.prompt)]
        call = await _read(service, body, messages, body.max_tokens)
        answer = Answer(body.model, call, "text", body.citations)
        writer = ChatWriter(answer, usage=_wants_usage(body))
        return await _respond(service, http, body, call, answer, writer)

    @router.post("/v1/responses")
    async def response(body: ResponseRequest, http: Request) -> Response:
        """Answer a chat in the form of OpenAI's responses; nothing is stored."""
        call = await _read(service, body, messages_of(body), body.max_output_tokens)
        answer = ResponseAnswer(body, call)
        return await _respond(service, http, body, call, answer, ResponseWriter(answer))

    @router.post("/v2/chat")
    async def cohere(body: CohereRequest, http: Request) -> Response:
        """Answer a chat in the form of Cohere's."""
        asked = as_chat_request(body)
        call = await _read(service, asked, asked.messages, asked.max_tokens)
        answer = CohereAnswer(asked, call)
        return await _respond(service, http, asked, call, answer, answer)

    return router


def _wants_usage(body: ChatRequest | CompletionRequest) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


async def _read(
    service: Service, body: AnyRequest, messages: Sequence[ChatMessage], limit: int | None
) -> Call:
    if body.model != service.model.name:
        raise ApiError(
            404,
            f"there is no model {body.model!r:.200} here. This server has {service.model.name!r}",
            "model_not_found",
            param="model",
        )
    service.check_ready()
    # Finding documents in long texts takes time.
    call = await asyncio.to_thread(read_call, body, messages, limit, service.settings)
    if body.retrieve and not call.request.documents:
        request = await service.find(call.request, body.retrieval_top_k)
        if request is not call.request:
            return replace(call, request=with_ids(request), source="evidence")
    return call


async def _respond(
    service: Service, http: Request, body: AnyRequest, call: Call, answer: Whole, writer: Writer
) -> Response:
    if not body.stream:
        answers = await unless_left(http, service.answer(call.requests))
        whole = await asyncio.to_thread(answer.whole, answers)
        return Response(json.dumps(whole), media_type="application/json")
    events = service.events(call.requests)
    # Errors that come before anything else still get their status.
    first = await anext(events)
    documents, inline = call.request.documents, body.citations == "inline"
    marked = [MarkedText(documents) for _ in range(call.choices)] if inline else []
    return EventStream(write_events(first, events, writer, marked))
