"""`/v1/responses`: another form of chats and answers. Nothing is stored."""

import time
import uuid
from typing import Any

from finch_integrations.pipeline.ask import AnswerDetails
from finch_integrations.serve.chat import Answer, Call, usage_of
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


def messages_of(body: ResponseRequest) -> list[ChatMessage]:
    """Write a request's input as a chat."""
    messages = []
    if body.instructions is not None:
        messages.append(ChatMessage(role="system", content=body.instructions))
    if isinstance(body.input, str):
        return [*messages, ChatMessage(role="user", content=body.input)]
    names: dict[str, str] = {}
    for item in body.input:
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
    """The objects of one answer."""

    def __init__(self, body: ResponseRequest, call: Call) -> None:
        """Give it ids and a time."""
        self._answer = Answer(body.model, call, "chat")
        self._message = f"msg_{uuid.uuid4().hex}"
        self._place = {"item_id": self._message, "output_index": 0, "content_index": 0}
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
            "text": {"format": {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": [],
            "truncation": "disabled",
            "error": None,
        }

    def whole(self, details: AnswerDetails, citations: str) -> dict[str, Any]:
        """The complete response."""
        chat = self._answer.whole(details, citations)
        message = chat["choices"][0]["message"]
        return self._whole(details, message["content"], message["annotations"], chat["finch"])

    def opening(self) -> list[dict[str, Any]]:
        """What comes before the text."""
        started = {**self._head, "status": "in_progress", "output": [], "usage": None}
        started["incomplete_details"] = None
        item = {**self._item("", []), "status": "in_progress", "content": []}
        return [
            {"type": "response.created", "response": started},
            {"type": "response.in_progress", "response": started},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **self._place, "part": _part("", [])},
        ]

    def delta(self, text: str) -> dict[str, Any]:
        """Some text."""
        facts = {"delta": text, "logprobs": []}
        return {"type": "response.output_text.delta", **self._place, **facts}

    def closing(self, details: AnswerDetails, citations: str) -> list[dict[str, Any]]:
        """What comes after the text."""
        whole = self.whole(details, citations)
        (item,) = whole["output"]
        (part,) = item["content"]
        text, annotations = part["text"], part["annotations"]
        added = [
            {
                "type": "response.output_text.annotation.added",
                **self._place,
                "annotation_index": number,
                "annotation": annotation,
            }
            for number, annotation in enumerate(annotations)
        ]
        done = {"text": text, "logprobs": []}
        return [
            *added,
            {"type": "response.output_text.done", **self._place, **done},
            {"type": "response.content_part.done", **self._place, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": f"response.{whole['status']}", "response": whole},
        ]

    def _whole(
        self,
        details: AnswerDetails,
        text: str,
        annotations: list[dict[str, Any]],
        statistics: dict[str, Any],
    ) -> dict[str, Any]:
        cut = details.finish_reason == "length"
        usage = usage_of(details)
        flat = [{"type": one["type"], **one["url_citation"]} for one in annotations]
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(text, flat, "incomplete" if cut else "completed")],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
            "finch": statistics,
        }

    def _item(
        self, text: str, annotations: list[dict[str, Any]], status: str = "completed"
    ) -> dict[str, Any]:
        content = [_part(text, annotations)]
        facts = {"type": "message", "role": "assistant", "status": status}
        return {"id": self._message, **facts, "content": content}


def _part(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}
