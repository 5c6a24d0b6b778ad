"""From a client's request to one for the model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from finch_integrations.documents import check_text, prepare_documents, with_unique_ids
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions as Answering
from finch_integrations.pipeline.answer_options import read_answer_options
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.options import SAMPLING, make_options
from finch_integrations.pipeline.request import PromptOptions, make_request
from finch_integrations.pipeline.turns import DocumentsFrom, Turn
from finch_integrations.serve.documents import read_documents
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.schemas import (
    AnyRequest,
    ChatMessage,
    CompletionRequest,
    ResponseRequest,
)
from finch_integrations.serve.settings import ServerSettings
from finch_integrations.types import ToolCall

_COMPRESSION = ("target_size", "compression_ratio", "read_size", "method")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that can be answered.

    Attributes:
        request: For the model.
        source: Where its documents were found.
        choices: How many answers are wanted.
    """

    request: AskRequest
    source: DocumentsFrom
    choices: int = 1

    @property
    def requests(self) -> list[AskRequest]:
        """One for each answer; with a seed, each has its own."""
        sampling, seed = self.request.sampling, self.request.sampling.get("seed")
        if seed is None:
            return [self.request] * self.choices
        seeds = ((seed + number) % 2**64 for number in range(self.choices))
        return [replace(self.request, sampling={**sampling, "seed": one}) for one in seeds]


def read_call(
    body: AnyRequest, messages: Sequence[ChatMessage], limit: int | None, server: ServerSettings
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
    values = body.model_dump(include={*SAMPLING, *_COMPRESSION} - {"logprobs", "top_logprobs"})
    default = min(server.default_tokens, server.max_tokens)
    changes = {
        **values,
        **_likelihoods(body),
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
    return Call(with_ids(request), source, body.n or 1)


def _answer_of(body: AnyRequest) -> Answering:
    """What the answer may consist of."""
    names = {"tools", "tool_choice", "parallel_tool_calls", "response_format", "text"}
    said = body.model_dump(include=names, exclude_none=True, by_alias=True)
    form = said.pop("text", {}).get("format")  # of responses, without an inner object
    if form is not None:
        said["response_format"] = {"type": form["type"], "json_schema": form}
    return read_answer_options(said)


def _likelihoods(body: AnyRequest) -> dict[str, Any]:
    """Whether to say how likely tokens were, which each protocol asks for in its own way.

    Raises:
        ApiError: How many likely tokens to name is said, but not that any should be.
    """
    if isinstance(body, CompletionRequest):
        wanted, top = body.logprobs is not None, body.logprobs
    else:
        wanted = bool(body.include if isinstance(body, ResponseRequest) else body.logprobs)
        top = body.top_logprobs
        if top and not wanted:
            switch = "include" if isinstance(body, ResponseRequest) else "logprobs"
            message = f"top_logprobs needs {switch}"
            raise ApiError(400, message, "invalid_value", param="top_logprobs")
    # Not asked for is not said: a generator elsewhere knows nothing of it.
    return {"logprobs": wanted or None, "top_logprobs": top or None}


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
