"""The requests that are understood. A field that would do nothing is refused, not ignored."""

from typing import Annotated, Any, Literal

from pydantic import Field

from finch_integrations.serve.strict import Strict
from finch_integrations.serve.tool_schemas import (
    FlatFunctionTool,
    FlatResponseFormat,
    FlatToolChoice,
    FunctionTool,
    ResponseFormat,
    ToolChoice,
)


class TextPart(Strict):
    """A part of a message; models here read text only."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class FunctionCall(Strict):
    """A call of a tool that the assistant made."""

    name: str
    arguments: str
    """A JSON object."""


class ToolCallPart(Strict):
    """A call with its id."""

    index: int | None = None
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Strict):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """Thoughts before an earlier answer, which the model does not get again."""
    # What clients send back of an answer, and what says nothing.
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class StreamOptions(Strict):
    """What a stream has in addition."""

    include_usage: bool | None = None
    """Whether a last chunk says how many tokens there were."""
    include_obfuscation: Literal[False] | None = None


# As many as run at a time.
_MOST_CHOICES = 8
Choices = Annotated[int, Field(ge=1, le=_MOST_CHOICES)]

# Documents as strings, with our fields, as vLLM takes them or as Cohere does.
DocumentField = str | dict[str, Any]


class AnswerOptions(Strict):
    """What requests of all kinds may set."""

    model: str
    """The name that `/v1/models` lists."""
    documents: list[DocumentField] | None = None
    """What to answer from: texts, or objects with a text (`text`, `content` or `snippet`) and
    perhaps `id`, `title`, `url` and `metadata`; or Cohere's `{id, data}`. Without this field the
    prompt is searched for documents."""
    target_size: int | Literal["auto"] | None = None
    """Document tokens to keep; `auto`: as many as the passages' scores call for."""
    compression_ratio: float | None = None
    """Or: the fraction of the document tokens to remove."""
    read_size: int | Literal["auto", "all"] | None = None
    """Document tokens that the model reads at most in order to choose."""
    method: str | None = None
    """How to choose: `likelihood`, `contrast` or `finch`."""
    instruction: str | None = None
    """Goes between documents and question."""
    retrieve: bool = True
    """Whether to search the server's index if there are no documents."""
    retrieval_top_k: Annotated[int, Field(ge=1, le=200)] = 20
    """Passages to find there."""
    citations: Literal["annotations", "inline", "off"] = "annotations"
    """Where it is said what the answer repeats word for word: in the message's `annotations`;
    `inline`: also as [n] in the text; or nowhere."""
    context_detection: str | None = None
    """How to look for documents in the prompt: `auto`, `off`."""
    strict: bool | None = None
    """Whether a prompt without documents is an error."""
    temperature: float | None = None
    """0: always the most likely token."""
    top_p: float | None = None
    """Sample from the smallest set of tokens with this probability."""
    top_k: int | None = None
    """Sample from so many most likely tokens."""
    min_p: float | None = None
    """Sample from tokens with at least this share of the most likely one's probability."""
    repetition_penalty: float | None = None
    """Above 1 makes tokens of the answer less likely to come again."""
    presence_penalty: float | None = None
    """Lowers the score of tokens that the answer has."""
    frequency_penalty: float | None = None
    """The same, times how often it has them."""
    seed: int | None = None
    """Makes sampling repeatable."""
    stop: str | list[str] | None = None
    """Texts that end the answer and are left out of it."""
    stream: bool | None = None
    """Whether the answer comes piece by piece, as server-sent events."""
    user: str | None = None
    """A label, which changes nothing."""
    metadata: dict[str, Any] | None = None
    """Labels, which change nothing."""
    # What is understood only as far as it asks for nothing.
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class ChatRequest(AnswerOptions):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The chat; the last message asks."""
    max_tokens: int | None = None
    """The most tokens of the answer."""
    max_completion_tokens: int | None = None
    """The same, by its newer name."""
    stream_options: StreamOptions | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    """What the model may call."""
    tool_choice: ToolChoice | None = None
    """Whether it may, must or must not call, or which of them it must."""
    parallel_tool_calls: bool | None = None
    """Whether it may make several calls at once."""
    response_format: ResponseFormat | None = None
    """What the answer must look like."""
    modalities: list[Literal["text"]] | None = None
    n: Choices | None = None
    """How many answers; with a seed, each has its own."""
    logprobs: bool | None = None
    """Whether to say how likely each token was, before penalties and temperature."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """And so many of the most likely tokens at its place."""


class CompletionRequest(AnswerOptions):
    """`POST /v1/completions`: the prompt is a user's message."""

    prompt: str
    """The question."""
    max_tokens: int | None = None
    """The most tokens of the answer."""
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    """How many answers; with a seed, each has its own."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Say how likely each token was, and so many of the most likely ones at its place."""
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class ReasoningItem(Strict):
    """Thoughts before an earlier answer, which the model does not get again."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: None = None
    status: str | None = None


class OutputPart(Strict):
    """A part of an item, as answers have it."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class MessageItem(Strict):
    """A message in a response's input."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[OutputPart]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallItem(Strict):
    """A call of a tool that the assistant made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    """A JSON object."""
    id: str | None = None
    status: str | None = None


class CallOutputItem(Strict):
    """A tool's result."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: str | None = None


class TextOptions(Strict):
    """What the answer's text is like."""

    format: FlatResponseFormat | None = None
    """Text, JSON, or JSON that follows a schema."""


class ResponseRequest(AnswerOptions):
    """`POST /v1/responses`. Nothing is stored: the input is the whole chat."""

    input: (
        str
        | Annotated[
            list[MessageItem | CallItem | CallOutputItem | ReasoningItem], Field(min_length=1)
        ]
    )
    """The question, or the chat."""
    instructions: str | None = None
    """The system text."""
    max_output_tokens: int | None = None
    """The most tokens of the answer."""
    text: TextOptions | None = None
    tools: Annotated[list[FlatFunctionTool], Field(max_length=128)] | None = None
    """What the model may call."""
    tool_choice: FlatToolChoice | None = None
    """Whether it may, must or must not call, or which of them it must."""
    parallel_tool_calls: bool | None = None
    """Whether it may make several calls at once."""
    stream_options: StreamOptions | None = None
    truncation: Literal["disabled"] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    """What the answer has in addition: how likely its tokens were."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """And so many of the most likely tokens at each place."""
    n: Literal[1] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt_cache_key: str | None = None
    """A label, which changes nothing."""
    safety_identifier: str | None = None
    """A label, which changes nothing."""


AnyRequest = ChatRequest | CompletionRequest | ResponseRequest


class EmbeddingRequest(Strict):
    """`POST /v1/embeddings`."""

    model: str
    """The encoder's name, as `/v1/models` lists it."""
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    """Texts; token ids are of another model's tokenizer."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or their float32 bytes in base64."""
    dimensions: None = None
    user: str | None = None
    """A label, which changes nothing."""
