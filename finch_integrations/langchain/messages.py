"""LangChain messages to turns."""

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)

from finch_integrations.errors import InvalidInputError
from finch_integrations.langchain.documents import documents_in
from finch_integrations.pipeline.turns import Role, Turn
from finch_integrations.types import Document, ToolCall

DOCUMENT_BLOCKS = ("text-plain", "document", "search_result")
# The calls themselves are read from `tool_calls`; reasoning is not part of what was said.
_NOT_SAID = {
    "input_json_delta",
    "reasoning",
    "redacted_thinking",
    "thinking",
    "tool_call",
    "tool_call_chunk",
    "tool_use",
}
_ROLES: dict[str, Role] = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "system",
    "human": "user",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "user": "user",
}


# What becomes of content that is neither text nor a document.
Others = Literal["refuse", "name", "skip"]


def to_turns(messages: Sequence[BaseMessage], *, only_text: bool = True) -> list[Turn]:
    """Convert messages.

    A human message's name comes before its text.

    Args:
        messages: The chat.
        only_text: Refuse content that is neither text nor a document, and before the last human
            message, where it has been answered, only name its kind; else it is left out.

    Raises:
        InvalidInputError: A message has an unknown role or contains something that is not text.
    """
    asking = max((n for n, message in enumerate(messages) if message.type == "human"), default=0)
    others: list[Others] = [
        ("name" if n < asking else "refuse") if only_text else "skip" for n in range(len(messages))
    ]
    return [
        _to_turn(message, f"message {n}", other)
        for n, (message, other) in enumerate(zip(messages, others, strict=True), start=1)
    ]


def _to_turn(message: BaseMessage, name: str, others: Others) -> Turn:
    unsaid: Container[str] = _NOT_SAID if isinstance(message, AIMessage) else ()
    text, blocks = _read_content(message.content, name, others, unsaid)
    role = _role(message, name)
    if isinstance(message, AIMessage):
        calls = tuple(
            ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"])
            for call in message.tool_calls
        )
        # Calls that cannot be read are part of what was said.
        said = [text] if text else []
        said += [_write_invalid(call) for call in message.invalid_tool_calls]
        return Turn(role=role, text="\n".join(said), calls=calls, blocks=blocks)
    if isinstance(message, ToolMessage | FunctionMessage):
        prefix = ""
        if getattr(message, "status", "") == "error" and not text.lower().startswith("error"):
            prefix = "Error: "
        return Turn(
            role=role,
            text=prefix + text,
            offset=len(prefix),
            name=message.name or "",
            call_id=getattr(message, "tool_call_id", None) or "",
            blocks=blocks,
            artifact=tuple(documents_in(getattr(message, "artifact", None), flat=True)),
        )
    if role == "user" and message.name and text:
        speaker = f"{message.name}: "
        return Turn(role=role, text=speaker + text, blocks=blocks, offset=len(speaker))
    return Turn(role=role, text=text, blocks=blocks)


def _role(message: BaseMessage, name: str) -> Role:
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ToolMessage | FunctionMessage):
        return "tool"
    role = message.role if isinstance(message, ChatMessage) else message.type
    if role.lower() not in _ROLES:
        raise InvalidInputError(
            f"{name} has the role {role!r}. Use one of {', '.join(sorted(_ROLES))}"
        )
    return _ROLES[role.lower()]


def _write_invalid(call: InvalidToolCall) -> str:
    facts = {"name": call["name"], "arguments": call["args"]}
    return f"<tool_call>\n{json.dumps(facts, ensure_ascii=False, default=str)}\n</tool_call>"


def _read_content(
    content: str | list[Any], name: str, others: Others, unsaid: Container[str] = ()
) -> tuple[str, tuple[Document, ...]]:
    """Join the text blocks, and take documents from the others.

    Args:
        content: A message's.
        name: What to call it in errors.
        others: What becomes of other blocks.
        unsaid: Kinds of them that are left out in any case.
    """
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    documents: list[Document] = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
            continue
        kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
        if kind == "text":
            texts.append(block["text"])
        elif kind == "tool_result":
            text, found = _read_content(block.get("content") or "", name, others)
            texts.append(text)
            documents += found
        elif kind in DOCUMENT_BLOCKS:
            documents.append(read_document(block, name))
        elif others == "name" and kind not in unsaid:
            texts.append(f"[{kind}]")
        elif others == "refuse" and kind not in unsaid:
            raise InvalidInputError(
                f"{name} has a block of the type {kind!r}, which a text model cannot read. "
                "Give blocks of the types text, text-plain, document (with text) or search_result"
            )
    return "\n".join(texts), tuple(documents)


def read_document(block: Mapping[str, Any], name: str = "the message") -> Document:
    """Read a standard text-plain block or one of Anthropic's document and search-result blocks.

    Raises:
        InvalidInputError: It has no text.
    """
    extras = {**(block.get("metadata") or {}), **(block.get("extras") or {})}
    source = block.get("source")
    if block["type"] == "text-plain":
        text = block.get("text")
    elif block["type"] == "search_result":
        text = _join_blocks(block.get("content"))
    else:
        inner = source if isinstance(source, Mapping) else {}
        text = inner.get("data") if inner.get("type") == "text" else None
        if inner.get("type") == "content":
            text = _join_blocks(inner.get("content"))
        source = None
    if not isinstance(text, str):
        raise InvalidInputError(
            f"{name} holds a {block['type']} block without text. Files, links and uploads are "
            "not read; put the text itself into the block"
        )
    if isinstance(source, str):
        extras.setdefault("source", source)
    if context := block.get("context") or extras.get("context"):
        text = f"{context}\n\n{text}"
    # LangChain invents ids for blocks that have none.
    id = block.get("id")
    known = id if isinstance(id, str) and not id.startswith("lc_") else extras.get("id")
    title = block.get("title") or extras.get("title")
    return Document(text, id=known, title=title, metadata=extras)


def _join_blocks(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [b if isinstance(b, str) else b.get("text") for b in content]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else None
