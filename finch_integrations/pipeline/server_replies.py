"""What a model server replies: pieces of an answer, or errors in words that help."""

import json
import random
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from httpx_sse import SSEError

from finch_integrations.errors import (
    ContextTooLongError,
    FinchError,
    ServerRefusedError,
    ServerUnavailableError,
)
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.types import FinishReason, InvalidToolCall, ToolCall

_FINISH: dict[str, FinishReason] = {
    "function_call": "stop",
    "length": "length",
    "stop": "stop",
    "tool_calls": "stop",
}
_USAGE = ("prompt_tokens", "completion_tokens")
_LONGEST_WAIT = 60.0
_MESSAGE_LENGTH = 300
# How llama.cpp, vLLM, SGLang, Ollama and hosted models say that a prompt is too long.
_TOO_LONG = ("context length", "context size", "context window", "context_length", "exceed_context")


@dataclass(frozen=True, slots=True, repr=False)
class ServerErrors:
    """Turns what goes wrong with a server into errors of this package, without its key.

    Attributes:
        base_url: The server's.
        model: Name of the model.
        timeout: Seconds that a piece may take.
        api_key_env: The environment variable of the key.
        api_key: The key, or "".
    """

    base_url: str
    model: str
    timeout: float
    api_key_env: str
    api_key: str

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise what breaks off a stream as a `ServerUnavailableError`."""
        failure = None
        try:
            yield
        except httpx.TransportError as error:
            failure = error
        if failure is not None:  # outside of `except`: the original has the request and its key
            raise self.broken(failure)

    def broken(self, error: httpx.TransportError) -> ServerUnavailableError:
        """The error for a connection that failed."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnavailableError(
                f"there is no server at {self.base_url} ({self._clean(error)}). Start it, or "
                "correct the address"
            )
        if isinstance(error, httpx.TimeoutException):
            return ServerUnavailableError(
                f"the server at {self.base_url} sent nothing for {self.timeout:g} seconds. Give it "
                "more time (timeout), or keep fewer tokens (target_size)"
            )
        if isinstance(error, SSEError):
            return ServerUnavailableError(
                f"{self.base_url} does not stream answers as OpenAI's API does "
                f"({self._clean(error)}). Is this the address of the API, with /v1?"
            )
        return ServerUnavailableError(
            f"the server at {self.base_url} broke the connection off ({self._clean(error)}). "
            "Its log may say why"
        )

    def refused(self, response: httpx.Response) -> FinchError:
        """The error for a reply with an error's status."""
        status, said = response.status_code, self._clean(_message(response))
        # The kind of an error may be next to its message.
        whole = response.text.lower()
        if status in (400, 413, 422, 500) and any(sign in whole for sign in _TOO_LONG):
            return ContextTooLongError(
                f"the prompt is longer than {self.model!r} of {self.base_url} takes: {said}. Keep "
                "fewer tokens (target_size), or start the server with a longer context"
            )
        if status in (401, 403):
            return ServerRefusedError(
                f"the server at {self.base_url} does not accept the key (HTTP {status}): {said}. "
                f"Put the right one into the environment variable {self.api_key_env}"
            )
        if status == 404:
            return ServerRefusedError(
                f"the server at {self.base_url} has no model {self.model!r}, or this is not the "
                f"address of its API (HTTP 404): {said}"
            )
        if status == 429 or status >= 500:
            return ServerUnavailableError(
                f"the server at {self.base_url} cannot answer now (HTTP {status}): {said}. Try "
                "again later"
            )
        return ServerRefusedError(
            f"the server at {self.base_url} refused the request (HTTP {status}): {said}"
        )

    def in_stream(self, reported: object) -> FinchError:
        """The error for one that the server reports in the middle of an answer."""
        said = self._clean(_text(reported))
        return ServerUnavailableError(f"the server at {self.base_url} failed: {said}")

    def unfinished(self, reason: str | None) -> FinchError:
        """The error for an answer that has no proper end."""
        if reason is not None:
            how = f"with {self._clean(reason)!r}"
        else:
            how = "in the middle. Its log may say why; the prompt may be longer than its window"
        return ServerUnavailableError(f"the server at {self.base_url} ended the answer {how}")

    def _clean(self, said: object) -> str:
        """One line without the key, which servers may repeat."""
        text = " ".join(str(said).split()) or "no reason given"
        if self.api_key:
            text = text.replace(self.api_key, "***")
        return text if len(text) <= _MESSAGE_LENGTH else text[:_MESSAGE_LENGTH] + "…"


class Attempts:
    """Decides how long to wait before the next attempt, before the first piece has come."""

    def __init__(self, errors: ServerErrors, retries: int) -> None:
        self._errors = errors
        self._left = retries
        self._pause = 0.5

    def delay_after(self, failure: httpx.Response | httpx.TransportError) -> float:
        """Seconds to wait after a failed attempt, longer each time, or as long as the server asks.

        Raises:
            FinchError: Another attempt would not help, or there have been enough.
        """
        if isinstance(failure, httpx.Response):
            again = failure.status_code in (408, 429) or failure.status_code >= 500
            error = self._errors.refused(failure)
            asked = _retry_after(failure)
        else:
            # A server that takes too long has begun to work; asked again, it would begin once more.
            again = not isinstance(failure, httpx.ReadTimeout | httpx.WriteTimeout)
            error, asked = self._errors.broken(failure), None
        if not again or not self._left or isinstance(error, ContextTooLongError):
            raise error
        if asked is not None and asked > _LONGEST_WAIT:
            raise error
        self._left -= 1
        self._pause *= 2
        return self._pause * random.uniform(0.5, 1) if asked is None else asked


class ServerAnswer:
    """Puts an answer together from the events of its stream."""

    def __init__(self, errors: ServerErrors, tools: Collection[str] = ()) -> None:
        """Start an answer; `tools` are the names that it may call."""
        self._errors = errors
        self._tools = tools
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: dict[str, int] = {}
        self._reason: str | None = None
        self._started = time.perf_counter()

    def read(self, data: str) -> AnswerPiece | None:
        """Take in one event and return what it adds to the answer; often there is nothing.

        Raises:
            ServerUnavailableError: It is an error, or no event of such a stream.
        """
        if data.strip() == "[DONE]":
            return None
        try:
            event = json.loads(data)
            if "error" in event:
                raise self._errors.in_stream(event["error"])
            if usage := event.get("usage"):
                self._usage = {name: int(usage.get(name) or 0) for name in _USAGE}
            text = thought = ""
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                text += delta.get("content") or ""
                # vLLM's newer name, and that of most others.
                thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
                for call in delta.get("tool_calls") or ():
                    self._read_call(call)
                self._reason = str(choice.get("finish_reason") or "") or self._reason
        except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
            raise self._errors.in_stream(f"its stream has {data[:_MESSAGE_LENGTH]!r}") from None
        if text:
            self._texts.append(text)
        if thought:
            self._thoughts.append(thought)
        return AnswerPiece(text=text, reasoning=thought) if text or thought else None

    def _read_call(self, part: dict[str, Any]) -> None:
        """Add to a call; servers that send each in one piece may leave its number out."""
        index = part.get("index")
        known = self._calls.setdefault(
            len(self._calls) if index is None else int(index),
            {"id": "", "name": "", "arguments": ""},
        )
        function = part.get("function") or {}
        known["id"] = str(part.get("id") or known["id"])
        known["name"] += function.get("name") or ""
        arguments = function.get("arguments") or ""
        known["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def last(self) -> AnswerPiece:
        """The end of the answer. A server that does not count tokens: one for each piece.

        Raises:
            ServerUnavailableError: The answer has no end.
        """
        reason = _FINISH.get(self._reason or "")
        if reason is None:
            raise self._errors.unfinished(self._reason)
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for _, call in sorted(self._calls.items()):
            made = _as_call(call, self._tools)
            if isinstance(made, InvalidToolCall):
                invalid.append(made)
            else:
                calls.append(made)
        details = AnswerDetails(
            text="".join(self._texts),
            finish_reason=reason,
            prompt_tokens=self._usage.get("prompt_tokens", 0),
            generation_tokens=self._usage.get("completion_tokens", 0) or len(self._texts),
            generation_seconds=time.perf_counter() - self._started,
            compression=None,
            document_shares=(),
            reasoning="".join(self._thoughts),
            calls=tuple(calls),
            invalid_calls=tuple(invalid),
        )
        return AnswerPiece(text="", calls=details.calls, details=details)


def _as_call(call: dict[str, str], tools: Collection[str]) -> ToolCall | InvalidToolCall:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if call["name"] in tools and isinstance(arguments, dict):
        id = call["id"] or uuid.uuid4().hex[:9]
        return ToolCall(id=id, name=call["name"], arguments=arguments)
    known = "its arguments are no JSON object" if call["name"] in tools else "there is no such tool"
    return InvalidToolCall(name=call["name"], text=call["arguments"], error=known)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait for; None if it does not say."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _message(response: httpx.Response) -> str:
    """What an error's reply says; servers wrap it differently."""
    try:
        content = response.json()
    except ValueError:
        return response.text
    return _text(content)


def _text(content: object) -> str:
    if isinstance(content, dict):
        for key in ("error", "message", "detail"):
            if content.get(key):
                return _text(content[key])
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
