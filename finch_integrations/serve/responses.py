"""`/v1/responses`: another form of chats and answers. Nothing is stored."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from finch_integrations.adapters.logprobs import as_openai_logprobs
from finch_integrations.pipeline.ask import AnswerDetails
from finch_integrations.serve.answers import Answer, usage_of, written_call
from finch_integrations.serve.chat import Call
from finch_integrations.serve.schemas import (
    CallItem,
    CallOutputItem,
    ChatMessage,
    FunctionCall,
    MessageItem,
    ResponseRequest,
    TextPart,
    ToolCallPart,
)
from finch_integrations.types import TokenLogprob, ToolCall


def messages_of(body: ResponseRequest) -> list[ChatMessage]:
    """Write a request's input as a chat."""
    messages = []
    if body.instructions is not None:
        messages.append(ChatMessage(role="system", content=body.instructions))
    if isinstance(body.input, str):
        return [*messages, ChatMessage(role="user", content=body.input)]
    names: dict[str, str] = {}
    for item in body.input:  # thoughts are left out, as models expect it
        if isinstance(item, MessageItem):
            messages.append(ChatMessage(role=item.role, content=_content(item)))
        elif isinstance(item, CallItem):
            names[item.call_id] = item.name
            messages.append(_call(item))
        elif isinstance(item, CallOutputItem):
            messages.append(
                ChatMessage(
                    role="tool",
                    content=item.output,
                    name=names.get(item.call_id),
                    tool_call_id=item.call_id,
                )
            )
    return messages


def _content(item: MessageItem) -> str | list[TextPart]:
    if isinstance(item.content, str):
        return item.content
    return [TextPart(type="text", text=part.text) for part in item.content]


def _call(item: CallItem) -> ChatMessage:
    function = FunctionCall(name=item.name, arguments=item.arguments)
    return ChatMessage(
        role="assistant", tool_calls=[ToolCallPart(id=item.call_id, function=function)]
    )


class ResponseAnswer:
    """The objects of one answer: a response, and its items: thoughts, a message, calls."""

    def __init__(self, body: ResponseRequest, call: Call) -> None:
        """Give it an id and a time."""
        self._answer = Answer(body.model, call, "chat", body.citations)
        said = body.model_dump(
            include={"tools", "tool_choice", "text", "parallel_tool_calls"}, by_alias=True
        )
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": body.model,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "temperature": body.temperature,
            "top_p": body.top_p,
            "parallel_tool_calls": bool(body.parallel_tool_calls),
            "previous_response_id": None,
            "store": False,
            "text": {"format": (said["text"] or {}).get("format") or {"type": "text"}},
            "tool_choice": said["tool_choice"] or "auto",
            "tools": said["tools"] or [],
            "top_logprobs": body.top_logprobs or 0,
            "truncation": "disabled",
            "error": None,
        }

    def started(self) -> dict[str, Any]:
        """The response before anything of it is there."""
        facts: dict[str, Any] = {"output": [], "usage": None, "incomplete_details": None}
        return {**self._head, "status": "in_progress", **facts}

    def whole(self, answers: Sequence[AnswerDetails]) -> dict[str, Any]:
        """The complete response."""
        (details,) = answers
        items = [reasoning_item(details.reasoning)] if details.reasoning else []
        if details.text or not details.calls:
            items.append(self.message(details))
        return self.complete(details, [*items, *map(call_item, details.calls)])

    def complete(self, details: AnswerDetails, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The complete response, of its items."""
        cut = details.finish_reason == "length"
        usage = usage_of([details])
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": items,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
            "finch": self._answer.statistics(details),
        }

    def message(self, details: AnswerDetails, id: str | None = None) -> dict[str, Any]:
        """The item with the text."""
        chat = self._answer.whole([details])["choices"][0]["message"]
        flat = [{"type": one["type"], **one["url_citation"]} for one in chat["annotations"]]
        status = "incomplete" if details.finish_reason == "length" else "completed"
        part = text_part(chat["content"] or "", flat, details.logprobs)
        return message_item(id or new_id("msg"), [part], status)


def new_id(kind: str) -> str:
    """An id that no other item has."""
    return f"{kind}_{uuid.uuid4().hex}"


def message_item(id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """A message of the assistant."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def text_part(
    text: str, annotations: list[dict[str, Any]], tokens: Sequence[TokenLogprob] = ()
) -> dict[str, Any]:
    """The part of a message that is its text."""
    facts = {"type": "output_text", "text": text, "annotations": annotations}
    return {**facts, "logprobs": likelihoods(tokens)}


def likelihoods(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """How likely tokens were."""
    return list(as_openai_logprobs(tokens)["content"])


def reasoning_item(text: str, id: str | None = None) -> dict[str, Any]:
    """Thoughts."""
    content = [{"type": "reasoning_text", "text": text}]
    facts = {"id": id or new_id("rs"), "type": "reasoning", "summary": []}
    return {**facts, "content": content, "status": "completed"}


def call_item(call: ToolCall) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "call_id": call["id"],
        **written_call(call)["function"],
        "status": "completed",
    }
