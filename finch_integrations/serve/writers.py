"""Answers as streams of events, in the protocols' forms."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.serve.answers import Answer, Written
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.responses import (
    ResponseAnswer,
    call_item,
    likelihoods,
    message_item,
    new_id,
    reasoning_item,
    text_part,
)
from finch_integrations.types import TokenLogprob, ToolCall


class Writer(Protocol):
    """Writes the events of a request's answers; called in one thread at a time."""

    def piece(self, index: int, piece: AnswerPiece) -> list[str]:
        """Write a piece of an answer; often there is nothing."""
        ...

    def last(self, index: int, details: AnswerDetails) -> list[str]:
        """Write the end of an answer."""
        ...

    def end(self) -> list[str]:
        """Write the end of all answers."""
        ...

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        ...


class ChatWriter:
    """Chunks of chats and completions."""

    def __init__(self, answer: Answer, *, usage: bool) -> None:
        """Start.

        Args:
            answer: The objects.
            usage: Whether the client wants to know the tokens.
        """
        self._answer, self._usage = answer, usage
        self._written: defaultdict[int, Written] = defaultdict(Written)
        self._ended: dict[int, AnswerDetails] = {}

    def piece(self, index: int, piece: AnswerPiece) -> list[str]:
        """Write a piece."""
        chunk = self._answer.piece(index, piece, self._written[index])
        return [] if chunk is None else [_data(chunk)]

    def last(self, index: int, details: AnswerDetails) -> list[str]:
        """Write the end of an answer."""
        self._ended[index] = details
        return [_data(self._answer.last(index, details))]

    def end(self) -> list[str]:
        """Write the end."""
        answers = [self._ended[index] for index in sorted(self._ended)]
        usage = [_data(self._answer.usage(answers))] if self._usage else []
        return [*usage, "data: [DONE]\n\n"]

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        return _data(error.body)


class ResponseWriter:
    """Events of `/v1/responses`, which are numbered and named.

    An item has its place from when it begins. The message ends last, because what it quotes is
    known then; a call is complete when it begins.
    """

    def __init__(self, answer: ResponseAnswer) -> None:
        """Start."""
        self._answer = answer
        self._number = 0
        self._items: list[dict[str, Any]] = []  # as they are in the end, at their places
        self._thoughts: dict[str, Any] | None = None  # where they are, while they come
        self._message: dict[str, Any] | None = None
        self._tokens: list[TokenLogprob] = []  # whose text is not there yet

    def piece(self, index: int, piece: AnswerPiece) -> list[str]:
        """Write a piece."""
        events = self._opening()
        self._tokens += piece.logprobs
        if piece.reasoning:
            events += self._think(piece.reasoning)
        if piece.text:
            events += self._say(piece.text)
        for call in piece.calls:
            events += self._call(call)
        return self._write(events)

    def last(self, index: int, details: AnswerDetails) -> list[str]:
        """Write the end of the answer."""
        events = self._end_of_thoughts()
        if self._message is None and not details.calls:
            events += self._begin_message()
        if self._message is not None:
            events += self._say("") if self._tokens else []
            events += self._end_of_message(self._message, details)
        whole = self._answer.complete(details, self._items)
        return self._write([*events, {"type": f"response.{whole['status']}", "response": whole}])

    def end(self) -> list[str]:
        """Nothing: there is one answer."""
        return []

    def error(self, error: ApiError) -> str:
        """Write that it failed."""
        facts = {"code": error.code, "message": error.message, "param": error.param}
        return "".join(self._write([{"type": "error", **facts}]))

    def _opening(self) -> list[dict[str, Any]]:
        if self._number:
            return []
        started = self._answer.started()
        kinds = ("response.created", "response.in_progress")
        return [{"type": kind, "response": started} for kind in kinds]

    def _begin(self, item: dict[str, Any]) -> dict[str, Any]:
        """Give an item a place."""
        self._items.append(item)
        place = len(self._items) - 1
        return {"type": "response.output_item.added", "output_index": place, "item": item}

    def _done(self, place: int) -> dict[str, Any]:
        item = self._items[place]
        return {"type": "response.output_item.done", "output_index": place, "item": item}

    def _think(self, text: str) -> list[dict[str, Any]]:
        events = []
        if self._thoughts is None:
            item = {**reasoning_item(""), "content": [], "status": "in_progress"}
            events.append(self._begin(item))
            place = {"item_id": item["id"], "output_index": len(self._items) - 1}
            self._thoughts = {**place, "content_index": 0, "text": ""}
        self._thoughts["text"] += text
        delta = {**self._thoughts, "delta": text}
        del delta["text"]
        return [*events, {"type": "response.reasoning_text.delta", **delta}]

    def _end_of_thoughts(self) -> list[dict[str, Any]]:
        if self._thoughts is None:
            return []
        thoughts, self._thoughts = self._thoughts, None
        place = thoughts["output_index"]
        self._items[place] = reasoning_item(thoughts["text"], thoughts["item_id"])
        return [{"type": "response.reasoning_text.done", **thoughts}, self._done(place)]

    def _begin_message(self) -> list[dict[str, Any]]:
        item = message_item(new_id("msg"), [], "in_progress")
        events = [*self._end_of_thoughts(), self._begin(item)]
        place = {"item_id": item["id"], "output_index": len(self._items) - 1, "content_index": 0}
        self._message = place
        part = text_part("", [])
        return [*events, {"type": "response.content_part.added", **place, "part": part}]

    def _say(self, text: str) -> list[dict[str, Any]]:
        events = self._begin_message() if self._message is None else []
        facts = {"delta": text, "logprobs": likelihoods(self._tokens)}
        self._tokens = []
        place = self._message or {}
        return [*events, {"type": "response.output_text.delta", **place, **facts}]

    def _end_of_message(
        self, place: dict[str, Any], details: AnswerDetails
    ) -> list[dict[str, Any]]:
        item = self._answer.message(details, place["item_id"])
        self._items[place["output_index"]] = item
        (part,) = item["content"]
        added = [
            {
                "type": "response.output_text.annotation.added",
                **place,
                "annotation_index": number,
                "annotation": annotation,
            }
            for number, annotation in enumerate(part["annotations"])
        ]
        done = {"text": part["text"], "logprobs": part["logprobs"]}
        return [
            *added,
            {"type": "response.output_text.done", **place, **done},
            {"type": "response.content_part.done", **place, "part": part},
            self._done(place["output_index"]),
        ]

    def _call(self, call: ToolCall) -> list[dict[str, Any]]:
        item = call_item(call)
        events = self._end_of_thoughts()
        events.append(self._begin({**item, "arguments": "", "status": "in_progress"}))
        number = len(self._items) - 1
        self._items[number] = item
        place = {"item_id": item["id"], "output_index": number}
        arguments = item["arguments"]
        kind = "response.function_call_arguments"
        return [
            *events,
            {"type": f"{kind}.delta", **place, "delta": arguments},
            {"type": f"{kind}.done", **place, "name": item["name"], "arguments": arguments},
            self._done(number),
        ]

    def _write(self, events: list[dict[str, Any]]) -> list[str]:
        written = []
        for event in events:
            written.append(
                f"event: {event['type']}\n" + _data({**event, "sequence_number": self._number})
            )
            self._number += 1
        return written


def _data(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
