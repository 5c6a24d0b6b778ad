"""From a client's request to one for the model, and from the answer to OpenAI's objects."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from finch_integrations.documents import check_text, prepare_documents, with_unique_ids
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions as Answering
from finch_integrations.pipeline.answer_options import read_answer_options
from finch_integrations.pipeline.ask import AnswerDetails, AskRequest
from finch_integrations.pipeline.detection import DocumentsFrom, Turn
from finch_integrations.pipeline.options import SAMPLING, make_options
from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.pipeline.request import (
    PromptOptions,
    describe,
    describe_shares,
    make_request,
)
from finch_integrations.serve.documents import read_documents, url_of
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.marking import with_marks
from finch_integrations.serve.schemas import AnswerOptions, ChatMessage, ChatRequest
from finch_integrations.serve.settings import ServerSettings
from finch_integrations.types import Document, ToolCall

_COMPRESSION = ("target_size", "compression_ratio", "read_size", "steps", "method")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that can be answered.

    Attributes:
        request: For the model.
        source: Where its documents were found.
    """

    request: AskRequest
    source: DocumentsFrom


def read_call(
    body: AnswerOptions, messages: Sequence[ChatMessage], limit: int | None, server: ServerSettings
) -> Call:
    """Check a request and take its documents out of it.

    Args:
        body: The request.
        messages: Its messages.
        limit: Tokens of the answer; None: the server's default.
        server: What is allowed.

    Raises:
        ApiError: It asks for more than is allowed.
        FinchError: It cannot be used.
    """
    if limit is not None and limit > server.max_tokens:
        raise ApiError(
            400,
            f"this server writes at most {server.max_tokens} tokens, got max_tokens={limit}",
            "invalid_value",
            param="max_tokens",
        )
    if body.instruction is not None:
        check_text("the instruction", body.instruction)
    given = read_documents(body.documents) if body.documents is not None else None
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    values = body.model_dump(include={*SAMPLING, *_COMPRESSION})
    default = min(server.default_tokens, server.max_tokens)
    changes = {
        **values,
        "max_tokens": default if limit is None else limit,
        "stop": stop or None,
    }
    options = make_options({}, server.compression, changes)
    prompt = PromptOptions(
        context_detection=body.context_detection or "auto",  # type: ignore[arg-type]  # checked there
        context_patterns=(),
        strict=bool(body.strict),
        instruction=body.instruction,
        chat_template_kwargs={},
    )
    turns = [_turn(message, f"messages[{n}]") for n, message in enumerate(messages)]
    request, source = make_request(turns, given, prompt, options, _answer_of(body))
    if len(request.documents) > server.max_documents:
        raise ApiError(
            400,
            f"this server takes at most {server.max_documents} documents, "
            f"got {len(request.documents)}",
            "too_many_documents",
            param="documents",
        )
    return Call(with_ids(request), source)


def _answer_of(body: AnswerOptions) -> Answering:
    """What the answer may consist of."""
    names = {"tools", "tool_choice", "parallel_tool_calls", "response_format"}
    said = body.model_dump(include=names, exclude_none=True, by_alias=True)
    # Responses and completions have no tools yet; what they say of them asks for nothing.
    return read_answer_options(said) if isinstance(body, ChatRequest) else Answering()


def with_ids(request: AskRequest) -> AskRequest:
    """Check the documents and give each the id that statistics and citations call it by.

    Raises:
        InvalidInputError: One cannot be used.
    """
    if not request.documents:
        return request
    documents = prepare_documents(with_unique_ids(request.documents))
    return replace(request, documents=tuple(documents))


def _turn(message: ChatMessage, label: str) -> Turn:
    content = message.content
    text = content or "" if not isinstance(content, list) else "\n".join(p.text for p in content)
    if message.role == "assistant":
        calls = tuple(
            ToolCall(
                id=call.id,
                name=call.function.name,
                arguments=_arguments(call.function.arguments, label),
            )
            for call in message.tool_calls or ()
        )
        return Turn(role="assistant", text=text, calls=calls)
    if message.role == "tool":
        return Turn(
            role="tool", text=text, name=message.name or "", call_id=message.tool_call_id or ""
        )
    role: Literal["user", "system"] = "user" if message.role == "user" else "system"
    return Turn(role=role, text=text)


def _arguments(text: str, label: str) -> Mapping[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInputError(f"the arguments of a tool call in {label} are no JSON object")
    return arguments


class Answer:
    """The objects of one answer."""

    def __init__(self, model: str, call: Call, kind: Literal["chat", "text"]) -> None:
        """Give it an id and a time."""
        self._call = call
        self._kind = kind
        self._head = {
            "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, details: AnswerDetails, citations: str) -> dict[str, Any]:
        """A completion."""
        text, found = details.text, self._quotes(details, citations)
        if citations == "inline":
            text, found = with_marks(text, found)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": _reason(details),
            "logprobs": None,
        }
        if self._kind == "text":
            choice["text"] = text
        else:
            choice["message"] = {
                "role": "assistant",
                "content": text if text or not details.calls else None,
                "refusal": None,
                "annotations": self._annotations(found),
                **({"tool_calls": list(map(_call, details.calls))} if details.calls else {}),
                **({"reasoning_content": details.reasoning} if details.reasoning else {}),
            }
        return {
            **self._head,
            "object": "chat.completion" if self._kind == "chat" else "text_completion",
            "choices": [choice],
            "usage": usage_of(details),
            "finch": self._statistics(details),
        }

    def piece(
        self,
        text: str,
        *,
        first: bool = False,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        called: int = 0,
    ) -> dict[str, Any]:
        """A chunk.

        Args:
            text: New text.
            first: Whether nothing came before it.
            reasoning: New thoughts.
            calls: Calls that are complete now.
            called: How many came before them.
        """
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if text or not (reasoning or calls):
            delta["content"] = text
        if reasoning:
            delta["reasoning_content"] = reasoning
        if calls:
            numbered = enumerate(calls, start=called)
            delta["tool_calls"] = [{"index": number, **_call(call)} for number, call in numbered]
        return self._chunk(delta, None)

    def last(self, details: AnswerDetails, citations: str) -> dict[str, Any]:
        """The chunk that ends the answer."""
        delta: dict[str, Any] = {}
        quotes = self._quotes(details, citations)
        if citations == "inline":
            _, quotes = with_marks(details.text, quotes)
        if found := self._annotations(quotes):
            delta["annotations"] = found
        chunk = self._chunk(delta, _reason(details))
        return {**chunk, "finch": self._statistics(details)}

    def usage(self, details: AnswerDetails) -> dict[str, Any]:
        """The chunk after it, if the client asked for it."""
        return {**self._chunk({}, None), "choices": [], "usage": usage_of(details)}

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if self._kind == "text":
            choice["text"] = delta.get("content", "")
        else:
            choice["delta"] = delta
        kind = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        return {**self._head, "object": kind, "choices": [choice]}

    def _statistics(self, details: AnswerDetails) -> dict[str, Any]:
        statistics = describe(details, self._call.request.documents, self._call.source)
        if details.invalid_calls:
            statistics["invalid_tool_calls"] = list(map(asdict, details.invalid_calls))
        return {**statistics, "document_scores": describe_shares(details.document_shares)}

    def _quotes(self, details: AnswerDetails, citations: str) -> Sequence[Quote]:
        if citations == "off" or self._kind == "text":
            return ()
        return find_quotes(details.text, self._call.request.documents)

    def _annotations(self, quotes: Sequence[Quote]) -> list[dict[str, Any]]:
        documents = self._call.request.documents
        return [_annotation(quote, documents[quote.document]) for quote in quotes]


def _reason(details: AnswerDetails) -> str:
    made = details.calls and details.finish_reason == "stop"
    return "tool_calls" if made else details.finish_reason


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": function}


def usage_of(details: AnswerDetails) -> dict[str, Any]:
    """Tokens that were sent, generated and reused."""
    stats = details.compression
    reused = stats.rated_tokens - stats.read_tokens if stats else 0
    return {
        "prompt_tokens": details.prompt_tokens,
        "completion_tokens": details.generation_tokens,
        "total_tokens": details.prompt_tokens + details.generation_tokens,
        "prompt_tokens_details": {"cached_tokens": min(reused, details.prompt_tokens)},
    }


def _annotation(quote: Quote, document: Document) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": quote.start,
            "end_index": quote.end,
            "title": document.title or document.id,
            "url": url_of(document),
        },
    }
