"""LangChain messages with what was chosen of their documents; everything else stays as it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from finch_integrations.documents import is_blank
from finch_integrations.langchain.messages import DOCUMENT_BLOCKS, read_document
from finch_integrations.pipeline.in_place import Edit, apply_edits
from finch_integrations.pipeline.placement import Placement

_DOCUMENTS = "documents"


def rewrite(messages: Sequence[BaseMessage], placement: Placement) -> list[BaseMessage]:
    """Change messages as a placement says; those that do not change are the same objects."""
    if placement.choice is None:
        return list(messages)
    blocks = iter(placement.blocks) if placement.blocks else None
    rewritten = [
        _with_content(message, _edited(message.content, placement.edits.get(n, ()), blocks))
        for n, message in enumerate(messages)
    ]
    if placement.opening:
        asking = max(n for n, message in enumerate(messages) if message.type == "human")
        message = rewritten[asking]
        opened = _with_content(message, _opened(message.content, placement.opening))
        if _DOCUMENTS in opened.additional_kwargs:
            rest = {k: v for k, v in opened.additional_kwargs.items() if k != _DOCUMENTS}
            opened = opened.model_copy(update={"additional_kwargs": rest})
        rewritten[asking] = opened
    return rewritten


def _with_content(message: BaseMessage, content: Any) -> BaseMessage:
    if content is message.content:
        return message
    return message.model_copy(update={"content": content})


def _edited(content: Any, edits: Sequence[Edit], blocks: Iterator[str] | None) -> Any:
    """A message's content with edits of its text and with new texts for its documents."""
    if not edits and (blocks is None or isinstance(content, str)):
        return content
    if isinstance(content, str):
        return apply_edits(content, edits)
    return _edited_blocks(content, edits, blocks, 0)[0]


def _edited_blocks(
    content: Sequence[Any], edits: Sequence[Edit], documents: Iterator[str] | None, start: int
) -> tuple[list[Any], int]:
    """Edit blocks whose texts, joined by line breaks, begin at `start` of the message's text.

    Returns:
        The blocks, and where the text that follows them begins.
    """
    result: list[Any] = []
    for block in content:
        if isinstance(block, str):
            result.append(_edited_text(block, edits, start))
            start += len(block) + 1
            continue
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text":
            result.append({**block, "text": _edited_text(block["text"], edits, start)})
            start += len(block["text"]) + 1
        elif kind == "tool_result":
            inner = block.get("content") or ""
            if isinstance(inner, str):
                result.append({**block, "content": _edited_text(inner, edits, start)})
                start += len(inner) + 1
            else:
                changed, end = _edited_blocks(inner, edits, documents, start)
                result.append({**block, "content": changed})
                start = max(end, start + 1)
        elif kind in DOCUMENT_BLOCKS and documents is not None:
            if is_blank(read_document(block)):
                result.append(block)
            elif text := next(documents):
                result.append({"type": "text", "text": text})
        else:
            result.append(block)
    return result, start


def _edited_text(text: str, edits: Sequence[Edit], start: int) -> str:
    """Apply the edits that are inside of a text; a document over several blocks stays whole."""
    end = start + len(text)
    inside = [
        Edit(edit.start - start, edit.end - start, edit.text)
        for edit in edits
        if start <= edit.start and edit.end <= end
    ]
    return apply_edits(text, inside)


def _opened(content: Any, opening: str) -> Any:
    """Put an opening in front of the first text."""
    if isinstance(content, str):
        return opening + content
    blocks = list(content)
    for n, block in enumerate(blocks):
        if isinstance(block, str):
            blocks[n] = opening + block
            return blocks
        if isinstance(block, Mapping) and block.get("type") == "text":
            blocks[n] = {**block, "text": opening + block["text"]}
            return blocks
    return [{"type": "text", "text": opening}, *blocks]
