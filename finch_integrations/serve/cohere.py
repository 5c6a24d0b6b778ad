"""`/v2/chat`: answers in Cohere's form."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.serve.answers import Answer, usage_of, written_call
from finch_integrations.serve.chat import Call
from finch_integrations.serve.documents import url_of
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.schemas import ChatRequest
from finch_integrations.types import TokenLogprob, ToolCall

_REASONS = {"stop": "COMPLETE", "length": "MAX_TOKENS"}


class CohereAnswer:
    """The object of one answer, or the events of its stream; called in one thread at a time."""

    def __init__(self, body: ChatRequest, call: Call) -> None:
        """Give it an id."""
        self._answer = Answer(body.model, call, "chat", "off")
        self._documents = () if body.citations == "off" else call.request.documents
        self._id = str(uuid.uuid4())
        self._started = False
        self._open: str | None = None  # the kind of the part that is being written
        self._parts = self._calls = 0

    def whole(self, answers: Sequence[AnswerDetails]) -> dict[str, Any]:
        """The answer."""
        (details,) = answers
        content: list[dict[str, Any]] = []
        if details.reasoning:
            content.append({"type": "thinking", "thinking": details.reasoning})
        if details.text or not details.calls:
            content.append({"type": "text", "text": details.text})
        message: dict[str, Any] = {"role": "assistant", "content": content or None}
        if details.calls:
            message["tool_calls"] = list(map(written_call, details.calls))
        if citations := self._citations(details):
            message["citations"] = citations
        likely = [_likelihood(one.token, [one]) for one in details.logprobs]
        return {
            "id": self._id,
            "message": message,
            **_ending(details),
            **({"logprobs": likely} if likely else {}),
            "finch": self._answer.statistics(details),
        }

    def piece(self, index: int, piece: AnswerPiece) -> list[str]:
        """Write a piece."""
        events = self._opening()
        if piece.reasoning:
            events += self._begin("thinking")
            events.append(self._delta("thinking", piece.reasoning))
        if piece.text or piece.logprobs:
            events += self._begin("text")
            events.append(self._delta("text", piece.text))
        if piece.logprobs:
            events[-1]["logprobs"] = _likelihood(piece.text, piece.logprobs)
        for call in piece.calls:
            events += [*self._close(), *self._call(call)]
        return list(map(_written, events))

    def last(self, index: int, details: AnswerDetails) -> list[str]:
        """Write the end of the answer."""
        events = self._opening()
        if not (self._parts or self._calls):
            events += self._begin("text")
        events += self._close()
        for number, citation in enumerate(self._citations(details)):
            event = {"index": number, "delta": {"message": {"citations": citation}}}
            events.append({"type": "citation-start", **event})
            events.append({"type": "citation-end", "index": number})
        end = {"type": "message-end", "id": self._id, "delta": _ending(details)}
        events.append({**end, "finch": self._answer.statistics(details)})
        return list(map(_written, events))

    def end(self) -> list[str]:
        """Nothing: there is one answer."""
        return []

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        delta = {"error": error.message, "finish_reason": "ERROR"}
        return _written({"type": "message-end", "id": self._id, "delta": delta})

    def _opening(self) -> list[dict[str, Any]]:
        if self._started:
            return []
        self._started = True
        empty: dict[str, Any] = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        message = {"role": "assistant", **empty}
        return [{"type": "message-start", "id": self._id, "delta": {"message": message}}]

    def _begin(self, kind: str) -> list[dict[str, Any]]:
        """Begin a part, unless it is one of the same kind that is being written."""
        if self._open == kind:
            return []
        closed = self._close()
        self._open, self._parts = kind, self._parts + 1
        content = {"type": kind, kind: ""}
        delta = {"message": {"content": content}}
        return [*closed, {"type": "content-start", "index": self._parts - 1, "delta": delta}]

    def _delta(self, kind: str, text: str) -> dict[str, Any]:
        delta = {"message": {"content": {kind: text}}}
        return {"type": "content-delta", "index": self._parts - 1, "delta": delta}

    def _close(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        self._open = None
        return [{"type": "content-end", "index": self._parts - 1}]

    def _call(self, call: ToolCall) -> list[dict[str, Any]]:
        """A call; it is complete when it begins."""
        number, self._calls = self._calls, self._calls + 1
        written = written_call(call)
        arguments = written["function"]["arguments"]
        begun = {**written, "function": {"name": call["name"], "arguments": ""}}
        rest = {"function": {"arguments": arguments}}

        def event(kind: str, said: dict[str, Any]) -> dict[str, Any]:
            return {"type": kind, "index": number, "delta": {"message": {"tool_calls": said}}}

        return [
            event("tool-call-start", begun),
            event("tool-call-delta", rest),
            {"type": "tool-call-end", "index": number},
        ]

    def _citations(self, details: AnswerDetails) -> list[dict[str, Any]]:
        quotes = find_quotes(details.text, self._documents)
        place = 1 if details.reasoning else 0
        return [self._citation(quote, details.text, place) for quote in quotes]

    def _citation(self, quote: Quote, text: str, place: int) -> dict[str, Any]:
        document = self._documents[quote.document]
        shown = {
            "id": document.id,
            "title": document.title or document.id,
            "url": url_of(document),
            "snippet": document.text[quote.source_start : quote.source_end],
        }
        return {
            "start": quote.start,
            "end": quote.end,
            "text": text[quote.start : quote.end],
            "sources": [{"type": "document", "id": document.id, "document": shown}],
            "content_index": place,
            "type": "TEXT_CONTENT",
        }


def _ending(details: AnswerDetails) -> dict[str, Any]:
    made = details.calls and details.finish_reason == "stop"
    usage = usage_of([details])
    tokens = {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
    }
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "finish_reason": "TOOL_CALL" if made else _REASONS[details.finish_reason],
        "usage": {"billed_units": tokens, "tokens": tokens, "cached_tokens": cached},
    }


def _likelihood(text: str, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    ids, values = [one.id for one in tokens], [one.logprob for one in tokens]
    return {"text": text, "token_ids": ids, "logprobs": values}


def _written(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
