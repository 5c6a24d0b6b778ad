"""LlamaIndex messages to turns."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from finch_integrations.errors import InvalidInputError
from finch_integrations.llama_index.templates import Span, is_step, read_spans
from finch_integrations.pipeline.places import Place, strip_place
from finch_integrations.pipeline.turns import Role, Turn
from finch_integrations.types import Document, ToolCall

_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
    MessageRole.TOOL: "tool",
}


_SPEAKER = re.compile(r"^[ \t]*(user|assistant): ", re.MULTILINE)
# What becomes of blocks that are neither text nor a document.
Others = Literal["refuse", "name", "skip"]


def as_messages(prompt: str) -> list[ChatMessage]:
    """A prompt as a chat: the user's turn."""
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def shows_a_chat(messages: Sequence[ChatMessage]) -> bool:
    """Whether it is a prompt about a chat: chat engines ask so for the question to search for."""
    if len(messages) != 1:
        return False
    speakers = {speaker[1] for speaker in _SPEAKER.finditer(messages[0].content or "")}
    return {"user", "assistant"} <= speakers


def to_turns(
    messages: Sequence[ChatMessage], *, read_templates: bool = True, only_text: bool = True
) -> list[Turn]:
    """Convert messages.

    Args:
        messages: The chat.
        read_templates: Take out the documents that a prompt template inserted.
        only_text: Refuse blocks that are neither text nor a document, and before the last user
            message, where they have been answered, only name their kind; else they are left out.

    Raises:
        InvalidInputError: A message contains something that is not text.
    """
    spans = [read_spans(message) if read_templates else () for message in messages]
    documents: dict[str, Document] = {}  # a text that templates show twice is one document
    places = [
        _places(m.content or "", found, documents) for m, found in zip(messages, spans, strict=True)
    ]
    # Agents name only the call, not the tool, of a result.
    names = {
        block.tool_call_id: block.tool_name
        for message in messages
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    }
    asking = max((n for n, m in enumerate(messages) if _ROLES[m.role] == "user"), default=0)
    turns = []
    for number, message in enumerate(messages):
        others: Others = ("name" if number < asking else "refuse") if only_text else "skip"
        turn = _to_turn(message, f"message {number + 1}", others)
        if turn.call_id and not turn.name:
            turn = replace(turn, name=names.get(turn.call_id, ""))
        turn = replace(turn, is_step=read_templates and is_step(message))
        if documents:  # else an empty context: the prompt stays as it is
            queries = [(start, stop) for kind, start, stop in spans[number] if kind == "query"]
            query = queries[-1] if queries else None
            turn = replace(turn, template=places[number], query=query)
        turns.append(turn)
    return turns


def _to_turn(message: ChatMessage, name: str, others: Others) -> Turn:
    role = _ROLES[message.role]
    texts: list[str] = []
    calls: list[ToolCall] = []
    documents: list[Document] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, CitableBlock):
            documents.append(read_citable(block, name))
        elif isinstance(block, ToolCallBlock):
            calls.append(_read_call(block, name))
        elif isinstance(block, CachePoint) or _is_unsaid(block, role) or others == "skip":
            continue
        elif others == "name":
            texts.append(f"[{block.block_type}]")
        else:
            raise InvalidInputError(
                f"{name} holds a {type(block).__name__}, which a text model cannot read. "
                "Give TextBlock, or CitableBlock with text for documents"
            )
    return Turn(
        role=role,
        text="\n".join(texts),
        calls=tuple(calls),
        name=str(message.additional_kwargs.get("name") or "") if role == "tool" else "",
        call_id=str(message.additional_kwargs.get("tool_call_id") or "") if role == "tool" else "",
        blocks=tuple(documents),
    )


def _read_call(block: ToolCallBlock, name: str) -> ToolCall:
    arguments: Any = block.tool_kwargs
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInputError(
            f"{name} has a call of the tool {block.tool_name!r} whose arguments are no JSON "
            f"object, got {block.tool_kwargs!r:.200}"
        )
    return ToolCall(id=block.tool_call_id or "", name=block.tool_name, arguments=arguments)


def _is_unsaid(block: object, role: Role) -> bool:
    """Thoughts, and the sources that an answer cited, are not part of what was said."""
    return role == "assistant" and isinstance(block, ThinkingBlock | CitationBlock)


def read_citable(block: CitableBlock, name: str = "the message") -> Document:
    """Read a document in a message.

    Raises:
        InvalidInputError: It is not only text.
    """
    texts = [inner.text for inner in block.content if isinstance(inner, TextBlock)]
    if len(texts) < len(block.content):
        raise InvalidInputError(
            f"{name} has a CitableBlock ({block.title!r}) whose content is not only text. "
            "Put the document's text into it"
        )
    return Document(
        "\n".join(texts),
        id=block.source or None,
        title=block.title or None,
        metadata={"source": block.source},
    )


def _places(text: str, spans: Sequence[Span], documents: dict[str, Document]) -> tuple[Place, ...]:
    """Where the context's texts are; new ones are added to the documents."""
    places = []
    for kind, start, stop in spans:
        start, stop = strip_place(text, start, stop)
        if kind == "context" and start < stop:
            shown = text[start:stop]
            document = documents.setdefault(shown, Document(shown))
            places.append(Place(start, stop, document))
    return tuple(places)
