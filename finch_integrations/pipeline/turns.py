"""A chat before and after its documents are found: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finch_integrations.pipeline.places import Place
from finch_integrations.types import Document, Message, ToolCall

ContextDetection = Literal["auto", "marked", "longest", "off"]
DocumentsFrom = Literal[
    "argument", "mark", "artifact", "evidence", "template", "pattern", "longest", "none"
]
Span = tuple[int, int]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A message on its way to the model.

    Attributes:
        role: Who speaks.
        text: What is said, documents in content blocks left out.
        calls: The tool calls of an assistant turn.
        name: The tool whose result it is.
        call_id: The call whose result it is.
        blocks: Documents from the message's content blocks.
        template: Documents that a template has inserted into the text, and where.
        query: Where a template has inserted the question.
        is_step: Whether a template has made it for something else than answering from documents.
        artifact: Documents that a tool returned in addition to its text.
        instruction: The part of the text that leads up to the question.
        question: The part of the text that is the question, once documents were found around it.
        closing: The part of the text after the question.
        documents_removed: Whether documents were taken out of the text.
        offset: Characters before the message's own text, such as the speaker's name.
    """

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""
    blocks: tuple[Document, ...] = ()
    template: tuple[Place, ...] = ()
    query: Span | None = None
    is_step: bool = False
    artifact: tuple[Document, ...] = ()
    instruction: str = ""
    question: str | None = None
    closing: str = ""
    documents_removed: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DocumentRegion:
    """Where a chat's messages hold a document.

    Attributes:
        turn: Number of the message, from 0.
        start: First character in the message's text; of several blocks of text, as joined by line
            breaks.
        end: After the last character.
        document: The document; the message may have its text with escapes. One that is shown
            several times has several regions.
    """

    turn: int
    start: int
    end: int
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A chat with its documents taken out.

    Attributes:
        messages: What is left; with documents it ends with the question.
        documents: In the order they were found.
        source: Where they were found.
        instruction: What the prompt says between its documents and its question.
        closing: What it says after the question.
        result: The tool's result that the documents are in, if it is the last thing said; it comes
            before the question, which is repeated after them.
        regions: Where the documents are in the messages' texts, in order; empty if they are not
            in texts.
        in_blocks: Whether they are content blocks of the messages.
        missed: Whether documents were looked for and none found.
    """

    messages: tuple[Message, ...]
    documents: tuple[Document, ...]
    source: DocumentsFrom
    instruction: str = ""
    closing: str = ""
    result: Message | None = None
    regions: tuple[DocumentRegion, ...] = ()
    in_blocks: bool = False
    missed: bool = False


def asking_turn(turns: Sequence[Turn]) -> int | None:
    """Number of the last user turn, or None."""
    return max((n for n, turn in enumerate(turns) if turn.role == "user"), default=None)
