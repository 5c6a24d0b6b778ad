"""`/v2/chat`: requests in Cohere's form, written in OpenAI's."""

import json
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from finch_integrations.serve.schemas import ChatRequest, DocumentField, TextPart, ToolCallPart
from finch_integrations.serve.strict import Strict
from finch_integrations.serve.tool_schemas import FunctionTool, TextFormat


class ThinkingPart(Strict):
    """Thoughts before an earlier answer, which the model does not get again."""

    type: Literal["thinking"]
    thinking: str


class DocumentData(Strict):
    """A document of a tool's result."""

    data: dict[str, Any]
    id: str | None = None


class DocumentPart(Strict):
    """A part of a tool's result."""

    type: Literal["document"]
    document: DocumentData


class CohereMessage(Strict):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[TextPart | ThinkingPart | DocumentPart] | None = None
    tool_calls: list[ToolCallPart] | None = None
    tool_plan: str | None = None
    """What the assistant said before its calls."""
    tool_call_id: str | None = None
    citations: list[Any] | None = None
    """What clients send back of an answer; changes nothing."""


class CitationOptions(Strict):
    """Whether it is said what an answer quotes."""

    mode: Literal["ENABLED", "FAST", "ACCURATE", "DISABLED", "OFF"] = "ENABLED"


class CohereObjectFormat(Strict):
    """Any JSON object, or one that follows a schema."""

    type: Literal["json_object"]
    json_schema: dict[str, Any] | None = None


class CohereRequest(Strict):
    """`POST /v2/chat`: the fields of Cohere's, and those that say how to compress."""

    model: str
    """The name that `/v1/models` lists."""
    messages: Annotated[list[CohereMessage], Field(min_length=1)]
    """The chat; the last message asks."""
    stream: bool | None = None
    """Whether the answer comes piece by piece, as server-sent events."""
    documents: list[DocumentField] | None = None
    """What to answer from: texts, or `{id, data}`."""
    citation_options: CitationOptions | None = None
    response_format: (
        Annotated[TextFormat | CohereObjectFormat, Field(discriminator="type")] | None
    ) = None
    """What the answer must look like."""
    max_tokens: int | None = None
    """The most tokens of the answer."""
    stop_sequences: list[str] | None = None
    """Texts that end the answer and are left out of it."""
    temperature: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    k: int | None = None
    """Sample from so many most likely tokens; 0: from all."""
    p: float | None = None
    """Sample from the smallest set of tokens with this probability."""
    logprobs: bool | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    """What the model may call."""
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    """Whether it must or must not call; not said: it may."""
    strict_tools: bool | None = None
    """Changes nothing: arguments always follow the schema."""
    # What is understood only as far as it asks for nothing.
    safety_mode: Literal["OFF"] | None = None
    priority: Literal[0] | None = None
    thinking: None = None
    # As in requests of OpenAI's form.
    target_size: int | Literal["auto"] | None = None
    compression_ratio: float | None = None
    read_size: int | Literal["auto", "all"] | None = None
    method: str | None = None
    instruction: str | None = None
    retrieve: bool = True
    retrieval_top_k: int = 20


# Cohere's fields that have another name in OpenAI's form, or another form.
_RENAMED = {"stop_sequences": "stop", "k": "top_k", "p": "top_p"}
_REWRITTEN = {"messages", "citation_options", "response_format", "tool_choice", "strict_tools"}
_EMPTY = {"safety_mode", "priority", "thinking"}


def as_chat_request(body: CohereRequest) -> ChatRequest:
    """Write a request in OpenAI's form.

    Raises:
        RequestValidationError: A value is not allowed there.
    """
    said = body.model_dump(exclude_none=True, exclude=_REWRITTEN | _EMPTY, by_alias=True)
    chat = {_RENAMED.get(name, name): value for name, value in said.items()}
    mode = body.citation_options.mode if body.citation_options else "ENABLED"
    chat["citations"] = "off" if mode in ("DISABLED", "OFF") else "annotations"
    if body.tool_choice is not None:
        chat["tool_choice"] = body.tool_choice.lower()
    form = body.response_format
    if form is not None:
        chat["response_format"] = {"type": form.type}
    if isinstance(form, CohereObjectFormat) and form.json_schema is not None:
        schema = {"name": "answer", "schema": form.json_schema}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    names: dict[str, str] = {}
    chat["messages"] = [_message(message, names) for message in body.messages]
    try:
        return ChatRequest.model_validate(chat)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _message(message: CohereMessage, names: dict[str, str]) -> dict[str, Any]:
    """Write a message in OpenAI's form; `names` are those of the tools that were called."""
    parts = message.content or ()
    texts = [parts] if isinstance(parts, str) else [_text(part) for part in parts]
    written: dict[str, Any] = {
        "role": message.role,
        "content": "\n".join(text for text in (message.tool_plan, *texts) if text),
    }
    if message.tool_calls:
        names.update((call.id, call.function.name) for call in message.tool_calls)
        written["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.tool_call_id is not None:
        name = names.get(message.tool_call_id)
        written |= {"tool_call_id": message.tool_call_id, "name": name}
    return written


def _text(part: TextPart | ThinkingPart | DocumentPart) -> str:
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, DocumentPart):
        return json.dumps(part.document.data, ensure_ascii=False)
    return ""
