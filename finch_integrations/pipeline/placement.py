"""From a chat with documents to one with what was chosen of them, everything else as it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finch_integrations.engine.prompt import INSTRUCTION
from finch_integrations.pipeline.chooser import Choice
from finch_integrations.pipeline.document_tags import tag_document
from finch_integrations.pipeline.in_place import Edit, edit_regions, write_documents
from finch_integrations.pipeline.request import PromptOptions, describe_shares
from finch_integrations.pipeline.turns import Detected, DocumentsFrom


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What changes in a chat's messages.

    Attributes:
        edits: For every message whose text has documents, what takes their places.
        blocks: What takes the places of the messages' document blocks, in order; "": nothing.
        opening: What the last user message begins with: documents that were in no message.
        choice: What was chosen; None without documents.
        source: Where the documents were found.
        missed: Whether documents were looked for and none found.
        trimmed: How many of the oldest messages are left out.
    """

    edits: Mapping[int, list[Edit]] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    opening: str = ""
    choice: Choice | None = None
    source: DocumentsFrom = "none"
    missed: bool = False
    trimmed: int = 0

    def first_changed(self, messages: int) -> int:
        """Number of the first message that has what was chosen; as many as there are: none.

        Args:
            messages: How many there are.
        """
        if self.blocks or self.opening:
            return 0 if self.blocks else messages
        return min(self.edits, default=messages)

    def describe(self) -> dict[str, Any]:
        """Describe what was chosen and what it cost in plain data."""
        statistics: dict[str, Any] = {
            "documents_from": self.source,
            "documents": 0,
            "document_characters": 0,
        }
        if self.trimmed:
            statistics["trimmed_messages"] = self.trimmed
        if self.choice is None:
            return statistics
        before, after = self.choice.tokens_before, self.choice.tokens_after
        stats = self.choice.stats
        return statistics | {
            "documents": len(self.choice.documents),
            "document_characters": sum(len(one.text) for one in self.choice.documents),
            "document_tokens": before,
            "kept_tokens": after,
            "rated_tokens": stats.rated_tokens,
            "read_tokens": stats.read_tokens,
            "compression_ratio": 1 - after / before,
            "compress_s": stats.seconds,
            "document_scores": describe_shares(self.choice.shares),
        }


def place(
    texts: Sequence[str], found: Detected, choice: Choice, prompt: PromptOptions
) -> Placement:
    """Put what was chosen where the documents were.

    Args:
        texts: The messages' texts.
        found: The documents of these messages.
        choice: Of these documents.
        prompt: Says what comes between documents and question if the prompt has no place for them.
    """
    if found.regions:
        edits = edit_regions(texts, found.regions, found.documents, choice)
        return Placement(edits=edits, choice=choice, source=found.source)
    if found.in_blocks:
        kept = {part.index: part.text for part in choice.shortened}
        blocks = tuple(
            tag_document(kept[number], {"id": document.id, "title": document.title})
            if number in kept
            else ""
            for number, document in enumerate(choice.documents)
        )
        return Placement(blocks=blocks, choice=choice, source=found.source)
    instruction = INSTRUCTION if prompt.instruction is None else prompt.instruction
    opening = f"{write_documents(choice)}\n\n{instruction.strip()} "
    return Placement(opening=opening, choice=choice, source=found.source)
