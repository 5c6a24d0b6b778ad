"""The requests that are understood. A field that would do nothing is refused, not ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A part of a message; models here read text only."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class FunctionCall(_Strict):
    """A call of a tool that the assistant made."""

    name: str
    arguments: str


class ToolCallPart(_Strict):
    """A call with its id."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Strict):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None


class StreamOptions(_Strict):
    """What a stream has in addition."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(_Strict):
    """The only format of answers."""

    type: Literal["text"]


# Documents as strings, with our fields, as vLLM takes them or as Cohere does.
DocumentField = str | dict[str, Any]


class AnswerOptions(_Strict):
    """What requests of all kinds may set.

    Attributes:
        documents: Texts, or objects with a text (`text`, `content` or `snippet`) and perhaps `id`,
            `title`, `url` and `metadata`; or Cohere's `{id, data}`.
        retrieve: Whether to search the server's index if there are no documents.
        retrieval_top_k: Passages to find there.
        citations: `annotations`: in the message's annotations. `inline`: also as [n] in the text,
            which cannot be streamed. `off`: none.
    """

    model: str
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    documents: list[DocumentField] | None = None
    retrieve: bool = True
    retrieval_top_k: Annotated[int, Field(ge=1, le=200)] = 20
    citations: Literal["annotations", "inline", "off"] = "annotations"
    target_size: int | None = None
    compression_ratio: float | None = None
    read_size: int | Literal["auto", "all"] | None = None
    method: str | None = None
    instruction: str | None = None
    context_detection: str | None = None
    strict: bool | None = None
    # Labels, which change no answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    # What is understood only as far as it asks for nothing.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class ChatRequest(AnswerOptions):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: int | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    top_logprobs: Literal[0] | None = None


class CompletionRequest(AnswerOptions):
    """`POST /v1/completions`: the prompt is a user's message."""

    prompt: str
    stream_options: StreamOptions | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None
