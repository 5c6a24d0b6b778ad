"""LlamaIndex messages with what was chosen of their documents; everything else stays as it is."""

from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, CitableBlock, MessageRole, TextBlock

from finch_integrations.documents import is_blank
from finch_integrations.llama_index.messages import read_citable
from finch_integrations.llama_index.templates import without_spans
from finch_integrations.pipeline.in_place import Edit, apply_edits
from finch_integrations.pipeline.placement import Placement


def rewrite(messages: Sequence[ChatMessage], placement: Placement) -> list[ChatMessage]:
    """Change messages as a placement says; those that do not change are the same objects."""
    plain = [without_spans(message) for message in messages]
    documents = iter(placement.blocks) if placement.blocks else None
    rewritten = [
        _edited(message, placement.edits.get(number, ()), documents)
        for number, message in enumerate(plain)
    ]
    if placement.opening:
        asking = max(n for n, m in enumerate(messages) if m.role == MessageRole.USER)
        rewritten[asking] = _opened(rewritten[asking], placement.opening)
    return rewritten


def _edited(
    message: ChatMessage, edits: Sequence[Edit], documents: Iterator[str] | None
) -> ChatMessage:
    citable = any(isinstance(block, CitableBlock) for block in message.blocks)
    if not edits and not (documents is not None and citable):
        return message
    blocks: list[Any] = []
    start = 0  # of a block's text in the message's, which line breaks join
    for block in message.blocks:
        if isinstance(block, TextBlock):
            end = start + len(block.text)
            # A document over several blocks stays whole.
            inside = [
                Edit(edit.start - start, edit.end - start, edit.text)
                for edit in edits
                if start <= edit.start and edit.end <= end
            ]
            text = apply_edits(block.text, inside)
            blocks.append(block.model_copy(update={"text": text}))
            start = end + 1
        elif isinstance(block, CitableBlock) and documents is not None:
            if is_blank(read_citable(block)):
                blocks.append(block)
            elif text := next(documents):
                blocks.append(TextBlock(text=text))
        else:
            blocks.append(block)
    return message.model_copy(update={"blocks": blocks})


def _opened(message: ChatMessage, opening: str) -> ChatMessage:
    """Put an opening in front of the first text."""
    blocks = list(message.blocks)
    for number, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            blocks[number] = block.model_copy(update={"text": opening + block.text})
            break
    else:
        blocks.insert(0, TextBlock(text=opening))
    return message.model_copy(update={"blocks": blocks})
