"""From answers to the objects of OpenAI's chats and completions."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finch_integrations.adapters.logprobs import as_openai_logprobs
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.pipeline.request import describe, describe_shares
from finch_integrations.serve.chat import Call
from finch_integrations.serve.documents import url_of
from finch_integrations.serve.marking import with_marks
from finch_integrations.types import Document, TokenLogprob, ToolCall


@dataclass(slots=True)
class Written:
    """What was written of one answer of a stream.

    Attributes:
        opened: Whether anything was.
        calls: How many calls.
        characters: How many characters of the tokens whose likelihood was.
    """

    opened: bool = False
    calls: int = 0
    characters: int = 0


class Answer:
    """The objects of the answers to one request."""

    def __init__(
        self, model: str, call: Call, kind: Literal["chat", "text"], citations: str = "annotations"
    ) -> None:
        """Give them an id and a time."""
        self._call = call
        self._kind = kind
        self._citations = citations
        self._head = {
            "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Sequence[AnswerDetails]) -> dict[str, Any]:
        """A completion with a choice for each answer."""
        return {
            **self._head,
            "object": "chat.completion" if self._kind == "chat" else "text_completion",
            "choices": [self._choice(*one) for one in enumerate(answers)],
            "usage": usage_of(answers),
            "finch": self.statistics(answers[0]),
        }

    def piece(self, index: int, piece: AnswerPiece, written: Written) -> dict[str, Any] | None:
        """A chunk, if there is anything to say; the first one says who speaks.

        Args:
            index: Of the answer.
            piece: A piece of it.
            written: What was written of it before; changed.
        """
        text, likely = piece.text, piece.logprobs
        if written.opened and not (text or piece.reasoning or piece.calls or likely):
            return None
        delta: dict[str, Any] = {} if written.opened else {"role": "assistant"}
        written.opened = True
        if text or not (piece.reasoning or piece.calls):
            delta["content"] = text
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.calls:
            delta["tool_calls"] = [
                {"index": number, **written_call(call)}
                for number, call in enumerate(piece.calls, start=written.calls)
            ]
            written.calls += len(piece.calls)
        chunk = self._chunk(index, delta, None, self._likelihoods(likely, written.characters))
        written.characters += sum(len(one.token) for one in likely)
        return chunk

    def last(self, index: int, details: AnswerDetails) -> dict[str, Any]:
        """The chunk that ends an answer."""
        _, quotes = self._marked(details)
        delta = {"annotations": found} if (found := self._annotations(quotes)) else {}
        chunk = self._chunk(index, delta, _reason(details), None)
        return {**chunk, "finch": self.statistics(details)}

    def usage(self, answers: Sequence[AnswerDetails]) -> dict[str, Any]:
        """The chunk after all of them, if the client asked for it."""
        return {**self._chunk(0, {}, None, None), "choices": [], "usage": usage_of(answers)}

    def _choice(self, index: int, details: AnswerDetails) -> dict[str, Any]:
        text, quotes = self._marked(details)
        choice: dict[str, Any] = {
            "index": index,
            "finish_reason": _reason(details),
            "logprobs": self._likelihoods(details.logprobs, 0),
        }
        if self._kind == "text":
            return {**choice, "text": text}
        message = {
            "role": "assistant",
            "content": text if text or not details.calls else None,
            "refusal": None,
            "annotations": self._annotations(quotes),
            **({"tool_calls": list(map(written_call, details.calls))} if details.calls else {}),
            **({"reasoning_content": details.reasoning} if details.reasoning else {}),
        }
        return {**choice, "message": message}

    def _chunk(
        self, index: int, delta: dict[str, Any], reason: str | None, likely: dict[str, Any] | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": likely}
        if self._kind == "text":
            choice["text"] = delta.get("content", "")
        else:
            choice["delta"] = delta
        kind = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        return {**self._head, "object": kind, "choices": [choice]}

    def statistics(self, details: AnswerDetails) -> dict[str, Any]:
        """What the compression did."""
        statistics = describe(details, self._call.request.documents, self._call.source)
        if details.invalid_calls:
            statistics["invalid_tool_calls"] = list(map(asdict, details.invalid_calls))
        return {**statistics, "document_scores": describe_shares(details.document_shares)}

    def _marked(self, details: AnswerDetails) -> tuple[str, Sequence[Quote]]:
        """The text as it is sent, and what in it is quoted."""
        if self._citations == "off":
            return details.text, ()
        quotes = find_quotes(details.text, self._call.request.documents)
        return (
            with_marks(details.text, quotes)
            if self._citations == "inline"
            else (details.text, quotes)
        )

    def _annotations(self, quotes: Sequence[Quote]) -> list[dict[str, Any]]:
        documents = self._call.request.documents
        return [_annotation(quote, documents[quote.document]) for quote in quotes]

    def _likelihoods(self, tokens: Sequence[TokenLogprob], start: int) -> dict[str, Any] | None:
        """How likely tokens were; in completions they have places, which begin at `start`."""
        if not tokens:
            return None
        if self._kind == "chat":
            return {**as_openai_logprobs(tokens), "refusal": None}
        places = [start + sum(len(one.token) for one in tokens[:n]) for n in range(len(tokens))]
        return {
            "tokens": [one.token for one in tokens],
            "token_logprobs": [one.logprob for one in tokens],
            "top_logprobs": [_by_token(one.top) for one in tokens],
            "text_offset": places,
        }


def written_call(call: ToolCall) -> dict[str, Any]:
    """A call of a tool."""
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": function}


def usage_of(answers: Sequence[AnswerDetails]) -> dict[str, Any]:
    """Tokens that were sent, generated and reused; several answers have one prompt."""
    first = answers[0]
    stats = first.compression
    reused = stats.rated_tokens - stats.read_tokens if stats else 0
    generated = sum(details.generation_tokens for details in answers)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": first.prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": min(reused, first.prompt_tokens)},
    }


def _by_token(tokens: Sequence[TokenLogprob]) -> dict[str, float]:
    """Of parts of characters, which look the same, the most likely one; it comes first."""
    return {one.token: one.logprob for one in reversed(tokens)}


def _reason(details: AnswerDetails) -> str:
    made = details.calls and details.finish_reason == "stop"
    return "tool_calls" if made else details.finish_reason


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
