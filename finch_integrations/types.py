"""The data that is passed through the package; all of it is immutable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length"]
LimitedBy = Literal["documents", "budget", "scores", "floor", "ceiling"]


class Tool(TypedDict):
    """A function that the model may call.

    `parameters` is the JSON schema of its arguments, an object; none: it takes no arguments.
    """

    name: str
    description: NotRequired[str]
    parameters: NotRequired[Mapping[str, Any]]


class ToolCall(TypedDict):
    """One call of a tool, as the model wrote it."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidToolCall:
    """What a model wrote that began as a call of a tool and is none.

    Attributes:
        name: The tool, if that can be read; else empty.
        text: What was written.
        error: Why it is no call.
    """

    name: str
    text: str
    error: str


class Message(TypedDict):
    """One chat turn, as chat templates expect it.

    Its role is `system`, `user`, `assistant` or `tool`. Assistant turns may have `tool_calls`; a
    tool's result has the tool's `name` and the id of the call.
    """

    role: str
    content: str
    tool_calls: NotRequired[Sequence[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Document:
    """A text to ask about.

    Attributes:
        text: The document's text.
        id: Its name in results. Documents without one are numbered `doc-1`, `doc-2`, …
        title: Shown to the model above the text, when given.
        metadata: Anything that the caller wants to keep with it; the engine does not read it.
    """

    text: str
    id: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentShare:
    """How much of one document was kept.

    Attributes:
        id: The document's id.
        title: The document's title, if it has one.
        tokens: Its length in the model's tokens, title line included.
        kept_tokens: Tokens kept, averaged over the layers (and KV heads) that choose separately, so
            it need not be a whole number.
    """

    id: str
    title: str | None
    tokens: int
    kept_tokens: float

    @property
    def kept_share(self) -> float:
        """Kept part of the document, between 0 and 1."""
        return self.kept_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A passage, a sentence or a few, that was kept word for word.

    Attributes:
        document_id: The document it is in.
        start: Its first character in the document's text.
        end: The character after its last one there.
        text: `document.text[start:end]`.
        score: How much it matters to the question, compared with the other passages of the
            same call: 0 is average.
    """

    document_id: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionStats:
    """What choosing the passages took.

    Attributes:
        document_tokens: Length of all documents in the tokens of the model they are chosen for.
        kept_tokens: How many of them were chosen.
        limited_by: What decided that: `documents`, all were kept; `budget`, the number asked for;
            with `target_size="auto"`, `scores`: no other passage was nearly as good as the best,
            or the `floor` or the `ceiling`, where they would have been fewer or more.
        rated_tokens: Document tokens that a model rated to choose, in its own tokens.
        read_tokens: Those of them that it read now, for this question or for others that were
            asked with it; the rest had been read before and was kept.
        peak_kv_tokens: The most tokens in the KV cache, including those of all texts that are read
            at the same time; 0 where another model read.
        seconds: Wall-clock time; of several questions asked at once an equal share.
    """

    document_tokens: int
    kept_tokens: int
    limited_by: LimitedBy
    rated_tokens: int
    read_tokens: int
    peak_kv_tokens: int
    seconds: float

    @property
    def compression_ratio(self) -> float:
        """Removed fraction of the document tokens, between 0 and 1."""
        return 1 - self.kept_tokens / self.document_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionStats:
    """What one compression did.

    Attributes:
        document_tokens: Length of all documents in the model's tokens.
        kept_tokens: Document tokens left in the cache, the same number in every layer.
        limited_by: What decided that, see `SelectionStats`.
        rated_tokens: Document tokens that were rated to choose, in the tokens of the model that
            read; 0 where everything was kept.
        read_tokens: Those of them that were read now; the rest had been read before and was kept.
        prefix_tokens: Tokens before the documents, always kept.
        suffix_tokens: Tokens after the documents (question and generation prompt), fed again
            when an answer is generated.
        peak_kv_tokens: The most tokens the KV cache ever held, measured after every forward pass;
            including those of all texts that are read at the same time.
        kv_bytes: Size of the compressed cache.
        seconds: Wall-clock time of the compression.
    """

    document_tokens: int
    kept_tokens: int
    limited_by: LimitedBy
    rated_tokens: int
    read_tokens: int
    prefix_tokens: int
    suffix_tokens: int
    peak_kv_tokens: int
    kv_bytes: int
    seconds: float

    @property
    def compression_ratio(self) -> float:
        """Removed fraction of the document tokens, between 0 and 1."""
        return 1 - self.kept_tokens / self.document_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionProgress:
    """How far a running compression is; passed to the `progress` callback after every step.

    Attributes:
        tokens: Document tokens processed so far.
        total_tokens: Document tokens to process.
        seconds: Wall-clock time since the start.
    """

    tokens: int
    total_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How likely a token was.

    Attributes:
        token: Its text, by itself; of a part of a character "�".
        id: Its id.
        logprob: Natural logarithm of its probability, before penalties and temperature.
        top: The most likely tokens at its place, most likely first, if they were asked for.
    """

    token: str
    id: int
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResponse:
    """A streamed piece of an answer, or the whole answer.

    Attributes:
        text: New text (of a piece; often none) or all text (of an answer). Always valid Unicode.
        tokens: Ids of its generated tokens; a stop token is counted, not shown.
        prompt_tokens: Length of the prompt before compression.
        generation_tokens: Tokens generated so far.
        finish_reason: None until the last piece; then `stop` (stop token or stop string) or
            `length` (`max_tokens` or the model's window reached).
        logprobs: Of the tokens, if they were asked for.
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    generation_tokens: int
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()
