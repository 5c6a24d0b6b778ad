"""LlamaIndex messages to turns."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
from finch_integrations.llama_index.templates import Span, read_spans
from finch_integrations.pipeline.detection import Role, Turn
from finch_integrations.pipeline.document_tags import join_texts
from finch_integrations.pipeline.places import Place, strip_place
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
# Lines that only separate the context: -----, ```, """.
_RULE_BEFORE = re.compile(r"(?:^|\n)[ \t]*[^\w\s]{3,}[ \t]*\n?[ \t]*\Z")
_RULE_BEHIND = re.compile(r"\A[ \t]*\n?[ \t]*[^\w\s]{3,}[ \t]*(?:\n|\Z)")
# The assistant's turn takes the place of this label.
_ANSWER_LABEL = re.compile(r"^[ \t]*(?:\w+[ \t]+){0,2}answer[ \t]*:\s*\Z", re.I | re.M)


def to_turns(
    messages: Sequence[ChatMessage], *, read_templates: bool = True, only_text: bool = True
) -> list[Turn]:
    """Convert messages.

    Args:
        messages: The chat.
        read_templates: Take out the documents that a prompt template inserted.
        only_text: Refuse blocks that are neither text nor a document; else they are left out.

    Raises:
        InvalidInputError: A message contains something that is not text.
    """
    spans = [read_spans(message) if read_templates else () for message in messages]
    documents: dict[str, Document] = {}  # a text that templates show twice is one document
    places = [
        _places(m.content or "", found, documents) for m, found in zip(messages, spans, strict=True)
    ]
    if not documents:
        spans = [()] * len(messages)  # an empty context: the prompt stays as it is
    asking = max((n for n, m in enumerate(messages) if _ROLES[m.role] == "user"), default=None)
    # Agents name only the call, not the tool, of a result.
    names = {
        block.tool_call_id: block.tool_name
        for message in messages
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    }
    turns = []
    for number, (message, found) in enumerate(zip(messages, spans, strict=True)):
        turn = _to_turn(message, f"message {number + 1}", only_text)
        if turn.call_id and not turn.name:
            turn = replace(turn, name=names.get(turn.call_id, ""))
        if found:
            turn = replace(turn, template=places[number])
            turn = _without_context(turn, found, asks=number == asking)
        turns.append(turn)
    return turns


def _to_turn(message: ChatMessage, name: str, only_text: bool) -> Turn:
    role = _ROLES[message.role]
    texts: list[str] = []
    calls: list[ToolCall] = []
    documents: list[Document] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, CitableBlock):
            documents.append(_read_citable(block, name))
        elif isinstance(block, ToolCallBlock):
            calls.append(_read_call(block, name))
        elif only_text and not (isinstance(block, CachePoint) or _is_unsaid(block, role)):
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


def _read_citable(block: CitableBlock, name: str) -> Document:
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


def _without_context(turn: Turn, spans: Sequence[Span], *, asks: bool) -> Turn:
    """Take the context out of a turn and, if it is a question, find the question in what is left.

    What is before the context stays before it, in the system text.
    """
    text, end = turn.text, len(turn.text)
    contexts = [(start, stop) for kind, start, stop in spans if kind == "context"]
    queries = [(start, stop) for kind, start, stop in spans if kind == "query"]
    lead, instruction, question = _cut(text, contexts, 0, end), "", None
    if asks and queries:
        start, stop = queries[-1]
        query = text[start:stop]
        if not contexts:
            lead, instruction = "", text[:start]
            question = query + _without_label(text[stop:])
        elif contexts[0][0] < start:
            lead = _cut(text, contexts, 0, contexts[0][1])
            instruction = _cut(text, contexts, contexts[0][0], start)
            rest = _without_label(_cut(text, contexts, stop, end))
            again = contexts[-1][0] >= stop
            question = join_texts(query, rest) if again else query + rest
        else:
            head, _, instruction = text[:start].rpartition("\n")
            lead = join_texts(head, _cut(text, contexts, stop, contexts[-1][1]))
            rest = _cut(text, contexts, contexts[-1][0], end)
            question = join_texts(query, _without_label(rest))
    elif asks and contexts:
        lead = _cut(text, contexts, 0, contexts[0][1])
        question = _without_label(_cut(text, contexts, contexts[0][0], end))
        if not question.strip():
            lead, question = "", lead
    return replace(
        turn,
        text=lead.strip(),
        instruction=instruction.strip(),
        question=None if question is None else question.strip(),
        documents_removed=bool(contexts),
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


def _cut(text: str, contexts: Sequence[tuple[int, int]], start: int, end: int) -> str:
    """The text from start to end without contexts and the rules around them."""
    pieces, position = [], start
    for begin, stop in contexts:
        if start <= begin and stop <= end:
            pieces.append(text[position:begin])
            position = stop
    pieces.append(text[position:end])
    if len(pieces) == 1:
        return pieces[0]
    for number, piece in enumerate(pieces):
        if number > 0:
            piece = _RULE_BEHIND.sub("", piece)
        if number < len(pieces) - 1:
            piece = _RULE_BEFORE.sub("", piece)
        pieces[number] = piece
    return join_texts(*pieces)


def _without_label(text: str) -> str:
    return _ANSWER_LABEL.sub("", text)
