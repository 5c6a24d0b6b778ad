"""Where a prompt template puts the context and the question: exact, whatever its words are.

The values are formatted a second time with marks around them. The values are where the marks end
up; if the marked text differs in anything else, nothing is known and nothing is claimed.
"""

import re
import secrets
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Self, cast

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.bridge.pydantic import Field, SerializeAsAny
from llama_index.core.postprocessor.pii import DEFAULT_PII_TMPL
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

Kind = Literal["context", "query"]
Span = tuple[Kind, int, int]

# The names that LlamaIndex's synthesizers, chat engines and evaluators fill in.
VARIABLES: Mapping[str, Kind] = {
    "context_str": "context",
    "context_msg": "context",
    "context_messages": "context",
    "query_str": "query",
}
_KINDS: tuple[Kind, ...] = ("context", "query")
_SPANS, _STEP = "finch_spans", "finch_step"
# Templates with no other variables condense a chat, choose a tool or plan: steps before the answer.
_OF_STEPS = frozenset(
    {"chat_history", "context_list", "num_choices", "num_queries", "query", "query_str"}
    | {"question", "tools_str"}
)
# LLMs that rank answer with numbers, so that every text must stay under its own.
_NUMBERED = re.compile(r"Document 1:")


class MarkedPrompt(BasePromptTemplate):
    """A prompt template whose messages say where context and question are."""

    inner: SerializeAsAny[BasePromptTemplate]
    variables: dict[str, Any] = Field(default_factory=lambda: dict(VARIABLES))

    @classmethod
    def around(cls, inner: BasePromptTemplate, variables: Mapping[str, Kind] = VARIABLES) -> Self:
        """Wrap a template; `variables` says which of its variables are context and query."""
        return cls(
            inner=inner,
            variables=dict(variables),
            metadata=inner.metadata,
            template_vars=inner.template_vars,
            kwargs=inner.kwargs,
            output_parser=inner.output_parser,
        )

    def partial_format(self, **kwargs: Any) -> "MarkedPrompt":
        """Fill in some variables."""
        return MarkedPrompt.around(self._current().partial_format(**kwargs), self.variables)

    def format(self, llm: BaseLLM | None = None, **kwargs: Any) -> str:
        """Format into a text, which cannot be marked."""
        return self._current().format(llm=llm, **kwargs)

    def format_messages(self, llm: BaseLLM | None = None, **kwargs: Any) -> list[ChatMessage]:
        """Format into messages with spans."""
        prompt = self._current()
        return format_marked(
            lambda **kw: prompt.format_messages(llm=llm, **kw), prompt, kwargs, self.variables
        )

    def get_template(self, llm: BaseLLM | None = None) -> str:
        """Show the template."""
        return self.inner.get_template(llm=llm)

    def _current(self) -> BasePromptTemplate:
        """The template with the output parser that output programs set on it."""
        prompt = self.inner.model_copy()
        prompt.output_parser = self.output_parser
        return prompt


def format_marked(
    format: Callable[..., list[ChatMessage]],
    prompt: BasePromptTemplate,
    prompt_args: Mapping[str, Any],
    variables: Mapping[str, Kind] = VARIABLES,
) -> list[ChatMessage]:
    """Format messages; those that contain context or question say where.

    Texts that nobody asks about, or that are asked for by their numbers, are no documents to answer
    from: their messages say that they are a step of something else.

    Args:
        format: Formats `prompt` with the variables it gets.
        prompt: The template; variables that were filled in earlier are in its `kwargs`.
        prompt_args: The other variables.
        variables: Which variables are context and query.
    """
    values = {
        name: _joined(value)
        for name, value in {**prompt.kwargs, **prompt_args}.items()
        if name in variables
    }
    given = {**prompt_args, **{name: values[name] for name in values.keys() & prompt_args.keys()}}
    plain = format(**given)
    if _is_step(prompt, {*prompt.kwargs, *prompt_args}, values, variables):
        return [_with_note(message, {_STEP: True}) for message in plain]
    if not any(variables[name] == "context" for name in values):
        return plain
    marks = _Marks()
    marked = format(
        **{**given, **{n: marks.put_around(variables[n], value) for n, value in values.items()}}
    )
    taken = [marks.take_out(message) for message in marked]
    found = any(kind == "context" for _, spans in taken for kind, _, _ in spans)
    if not found or [message for message, _ in taken] != plain:
        return plain
    if any(_are_numbered(message, spans) for message, spans in taken):
        return [_with_note(message, {_STEP: True}) for message in plain]
    return [_with_spans(message, spans) for message, spans in taken]


def read_spans(message: ChatMessage) -> tuple[Span, ...]:
    """Find context and question in a message's text; nothing if the text has changed."""
    noted = message.additional_kwargs.get(_SPANS)
    if not isinstance(noted, Mapping):
        return ()
    spans = tuple(cast(Span, tuple(span)) for span in noted["spans"])
    # Output parsers add text at the end; that moves nothing.
    changed = noted["checksum"] != _checksum(message.content or "", spans)
    return () if changed else spans


def is_step(message: ChatMessage) -> bool:
    """Whether a template has made the message for something else than answering from documents."""
    return bool(message.additional_kwargs.get(_STEP))


def without_spans(message: ChatMessage) -> ChatMessage:
    """The message as other models get it."""
    notes = message.additional_kwargs
    if _SPANS not in notes and _STEP not in notes:
        return message
    rest = {name: value for name, value in notes.items() if name not in (_SPANS, _STEP)}
    return message.model_copy(update={"additional_kwargs": rest})


def _is_step(
    prompt: BasePromptTemplate,
    names: Collection[str],
    values: Mapping[str, Any],
    variables: Mapping[str, Kind],
) -> bool:
    contexts = [value for name, value in values.items() if variables[name] == "context"]
    if not contexts:
        return bool(names) and _OF_STEPS.issuperset(names)
    asked = any(variables[name] == "query" for name in values)
    template = prompt.template if isinstance(prompt, PromptTemplate) else ""
    return not asked or template == DEFAULT_PII_TMPL


def _are_numbered(message: ChatMessage, spans: Sequence[Span]) -> bool:
    """Whether the context begins with the number of its first text, or comes after it."""
    text = message.content or ""
    starts = [start for kind, start, _ in spans if kind == "context"]
    if not starts:
        return False
    near = text[max(0, starts[0] - 20) : starts[0] + 20].strip()
    return _NUMBERED.search(near) is not None


class _Marks:
    """Marks that no text contains by chance; without letters, so that changing case is harmless."""

    def __init__(self) -> None:
        self._nonce = "".join(secrets.choice("0123456789") for _ in range(12))
        self._pattern = re.compile(f"\ue000{self._nonce}([01])([01])\ue001")

    def put_around(self, kind: Kind, value: Any) -> Any:
        """Put marks around a text, or around every text block of a list of messages."""
        if isinstance(value, str):
            begin, end = (f"\ue000{self._nonce}{_KINDS.index(kind)}{edge}\ue001" for edge in (0, 1))
            return f"{begin}{value}{end}"
        if _are_messages(value):
            return [self._put_into(message, kind) for message in value]
        return value

    def take_out(self, message: ChatMessage) -> tuple[ChatMessage, tuple[Span, ...]]:
        """Return a message without marks, and where they were in its text."""
        spans: list[Span] = []
        blocks = []
        offset = 0
        for block in message.blocks:
            if isinstance(block, TextBlock):
                text, found = self._take_out_of(block.text)
                spans += [(kind, offset + start, offset + end) for kind, start, end in found]
                block = TextBlock(text=text)
                offset += len(text) + len("\n")  # as ChatMessage.content joins them
            blocks.append(block)
        return message.model_copy(update={"blocks": blocks}), tuple(spans)

    def _put_into(self, message: ChatMessage, kind: Kind) -> ChatMessage:
        blocks = [
            TextBlock(text=self.put_around(kind, block.text))
            if isinstance(block, TextBlock)
            else block
            for block in message.blocks
        ]
        return message.model_copy(update={"blocks": blocks})

    def _take_out_of(self, marked: str) -> tuple[str, list[Span]]:
        text, position = "", 0
        spans: list[Span] = []
        opened: tuple[str, int] | None = None
        for mark in self._pattern.finditer(marked):
            text += marked[position : mark.start()]
            position = mark.end()
            kind, edge = mark.groups()
            if edge == "0" and opened is None:
                opened = (kind, len(text))
            elif edge == "1" and opened is not None and opened[0] == kind:
                spans.append((_KINDS[int(kind)], opened[1], len(text)))
                opened = None
            else:
                return marked, []  # keeps its marks, so that it differs from the plain text
        if opened is not None:
            return marked, []
        return text + marked[position:], spans


def _joined(value: Any) -> Any:
    """Join a list of texts, which a template would show with brackets and quotation marks."""
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return "\n\n".join(value)
    return value


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, ChatMessage) for item in value)


def _with_spans(message: ChatMessage, spans: Sequence[Span]) -> ChatMessage:
    if not spans:
        return message
    noted = {
        "spans": [list(span) for span in spans],
        "checksum": _checksum(message.content or "", spans),
    }
    return _with_note(message, {_SPANS: noted})


def _with_note(message: ChatMessage, note: Mapping[str, Any]) -> ChatMessage:
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, **note}})


def _checksum(text: str, spans: Sequence[Span]) -> int:
    return zlib.crc32(text[: spans[-1][2]].encode("utf-8", "surrogatepass"))
