"""Find the documents in a chat, and put the rest into the order that compression needs.

Pure functions over turns; what is not certain to be documents stays where it is, verbatim.
The first source that has documents wins: given by the caller, content blocks, templates
that say where they put documents, a tool's artifact, tagged text, known prompts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline import patterns as known
from finch_integrations.pipeline.document_tags import join_texts, split_tagged
from finch_integrations.pipeline.places import Place, documents_of
from finch_integrations.types import Document, Message, ToolCall

ContextDetection = Literal["auto", "marked", "off"]
DocumentsFrom = Literal[
    "kwarg", "message", "blocks", "template", "artifact", "marked", "pattern", "none"
]
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
        template: Documents that a template had inserted into the text, and where; they have been
            removed from it.
        artifact: Documents that a tool returned in addition to its text.
        instruction: The part of the text that leads up to the question.
        question: The part of the text that is the question, once documents were found around it.
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
    artifact: tuple[Document, ...] = ()
    instruction: str = ""
    question: str | None = None
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
        result: The tool's result that the documents are in, if it is the last thing said; it comes
            before the question, which is repeated after them.
        regions: Where the documents are in the messages' texts, in order; empty if they are not
            in texts.
    """

    messages: tuple[Message, ...]
    documents: tuple[Document, ...]
    source: DocumentsFrom
    instruction: str = ""
    result: Message | None = None
    regions: tuple[DocumentRegion, ...] = ()


def detect(
    turns: Sequence[Turn],
    given: Sequence[Document] = (),
    given_by: Literal["kwarg", "message"] = "kwarg",
    *,
    mode: ContextDetection = "auto",
    patterns: Sequence[re.Pattern[str]] = (),
    strict: bool = False,
    keep_calls: bool = False,
) -> Detected:
    """Find the documents of a chat.

    Args:
        turns: The chat.
        given: Documents that the caller gave in addition to it.
        given_by: How.
        mode: `auto` uses every source, `marked` no prompts without marks, `off` only documents that
            are given as such (by the caller, as blocks or by a template).
        patterns: The user's own; the group `context` is documents, the group `question`, if
            there is one, the question.
        strict: Do not use known prompts, and raise if no documents are found.
        keep_calls: Keep the calls of tools whose results are documents, so that the model does not
            make them again; else the documents replace them.

    Raises:
        InvalidInputError: Documents are given in two ways, there are documents but no question,
            or `strict` and no documents were found.
    """
    blocks = tuple(document for turn in turns for document in turn.blocks)
    template = documents_of(place for turn in turns for place in turn.template)
    named: list[tuple[tuple[Document, ...], DocumentsFrom, str]] = [
        (tuple(given), given_by, "with the call"),
        (blocks, "blocks", "as content blocks of messages"),
        (template, "template", "by the prompt's template"),
    ]
    named = [one for one in named if one[0]]
    if len(named) > 1:
        ways = " and ".join(f"{len(documents)} {way}" for documents, _, way in named)
        raise InvalidInputError(f"documents are given twice: {ways}. Give them in one way")
    if named:
        documents, source, _ = named[0]
        places = [turn.template if source == "template" else () for turn in turns]
        return _compose(turns, documents, source, places, keep_calls)
    sources: list[tuple[DocumentsFrom, Callable[[Turn], _Taken | None]]] = []
    if mode != "off":
        sources += [("artifact", _take_artifact), ("marked", _take_tagged)]
    if mode == "auto":
        sources.append(("pattern", lambda turn: _take_by_patterns(turn, patterns)))
        if not strict:
            sources.append(("pattern", _take_known))
    unasked = 0
    for source, take in sources:
        taken = [take(turn) for turn in turns]
        places = [one.places if one else () for one in taken]
        documents = tuple(place.document for found in places for place in found)
        rest = [one.turn if one else turn for one, turn in zip(taken, turns, strict=True)]
        if documents and _question(rest):
            return _compose(rest, documents, source, places, keep_calls)
        unasked = unasked or len(documents)
    if strict and unasked:
        raise _no_question(unasked)
    if strict:
        raise InvalidInputError(
            "no documents were recognised in these messages, and strict is on. Hand them over "
            "with documents=…, or mark them: <document>…</document>"
        )
    return _compose(turns, (), "none")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A turn without the documents that were found in it, and these documents."""

    turn: Turn
    places: tuple[Place, ...]


def _take_artifact(turn: Turn) -> _Taken | None:
    """Take a tool's documents if all their texts are in its result, in order.

    A line above a document ("Source: …") stays as its heading, so that no text is lost.
    """
    if not turn.artifact:
        return None
    places: list[Place] = []
    rest: list[str] = []
    position = 0
    for document in turn.artifact:
        body = document.text.strip()
        at = turn.text.find(body, position)
        if not body or at < 0:
            return None
        heading = turn.text[position:at]
        if not places:  # an introduction is not the first document's heading
            introduction, gap, heading = heading.rpartition("\n\n")
            rest.append(introduction + gap)
        heading = heading.lstrip()
        position = at + len(body)
        places.append(Place(at - len(heading), position, replace(document, text=heading + body)))
    rest.append(turn.text[position:])
    return _take(turn, tuple(places), join_texts(*rest))


def _take_tagged(turn: Turn) -> _Taken | None:
    found = split_tagged(turn.text) if turn.role != "assistant" else None
    if found is None:
        return None
    if turn.role == "user":
        return _take(turn, found.places, *known.split_question(found.lead, found.tail))
    return _take(turn, found.places, join_texts(found.lead, found.tail))


def _take_by_patterns(turn: Turn, patterns: Sequence[re.Pattern[str]]) -> _Taken | None:
    if turn.role not in ("system", "user"):
        return None
    return _taken(turn, known.split_by_patterns(turn.text, patterns))


def _take_known(turn: Turn) -> _Taken | None:
    if turn.role == "system":
        return _taken(turn, known.split_known_system(turn.text))
    if turn.role == "user":
        return _taken(turn, known.split_known_user(turn.text))
    return None


def _taken(turn: Turn, found: known.SplitPrompt | None) -> _Taken | None:
    if found is None:
        return None
    lead, question = found.lead, found.question
    if turn.role == "user" and question is None:
        lead, question = known.split_question(lead, "")
    place = Place(found.start, found.end, Document(turn.text[found.start : found.end]))
    return _take(turn, (place,), lead, question)


def _take(turn: Turn, places: tuple[Place, ...], rest: str, question: str | None = None) -> _Taken:
    return _Taken(replace(turn, text=rest, question=question, documents_removed=True), places)


def _question(turns: Sequence[Turn]) -> str:
    """The last user turn's question."""
    asking = [turn for turn in turns if turn.role == "user"]
    if not asking:
        return ""
    last = asking[-1]
    return (last.text if last.question is None else last.question).strip()


def _no_question(documents: int) -> InvalidInputError:
    return InvalidInputError(
        f"there are {documents} documents but no question: the messages need a human message "
        "with text"
    )


def _compose(
    turns: Sequence[Turn],
    documents: tuple[Document, ...],
    source: DocumentsFrom,
    places: Sequence[tuple[Place, ...]] = (),
    keep_calls: bool = False,
) -> Detected:
    """Join system texts at the start and, with documents, put the question at the end."""
    system = [turn.text for turn in turns if turn.role == "system"]
    chat = [turn for turn in turns if turn.role != "system"]
    messages: list[Message] = []
    instruction, result = "", None
    answering: list[Turn] = []
    if keep_calls:
        chat, answering = _split_result(chat)
    else:
        chat = _without_spent_calls(chat)
    if documents:
        last = max((n for n, turn in enumerate(chat) if turn.role == "user"), default=None)
        question = _question(turns)
        if last is None or not question:
            raise _no_question(len(documents))
        before, asking, later = chat[:last], chat[last], [*chat[last + 1 :], *answering]
        if asking.question is not None:
            # The instruction of a prompt that contained documents and question.
            system.append(asking.text)
            instruction = asking.instruction
        messages += [m for turn in before for m in _as_messages(turn)]
        if later:
            # An agent's steps since the question: the question is repeated after them.
            messages.append(Message(role="user", content=question))
            messages += [m for turn in later for m in _as_messages(turn)]
        if answering:
            result = messages.pop()
        messages.append(Message(role="user", content=question))
    else:
        messages += [m for turn in chat for m in _as_messages(turn)]
    if text := join_texts(*system):
        messages.insert(0, Message(role="system", content=text))
    regions = [
        DocumentRegion(number, place.start - turn.offset, place.end - turn.offset, place.document)
        for number, (turn, found) in enumerate(zip(turns, places, strict=False))
        for place in found
    ]
    return Detected(
        messages=tuple(messages),
        documents=documents,
        source=source,
        instruction=instruction,
        result=result,
        regions=tuple(regions),
    )


def _split_result(chat: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    """Cut off the last step if the last thing said is a tool's result with documents.

    Returns:
        The chat before the step; the step, the result with documents last. Else the chat and
        nothing.
    """
    start = len(chat)
    while start and chat[start - 1].role == "tool":
        start -= 1
    results = chat[start:]
    with_documents = [turn for turn in results if turn.documents_removed or turn.blocks]
    if not with_documents or not start or not chat[start - 1].calls:
        return chat, []
    last = with_documents[-1]
    others = [turn for turn in results if turn is not last]
    return chat[: start - 1], [chat[start - 1], *others, last]


def _without_spent_calls(turns: Sequence[Turn]) -> list[Turn]:
    """Drop tool calls all of whose results became documents: the documents replace them."""
    kept: list[Turn] = []
    position = 0
    while position < len(turns):
        turn, end = turns[position], position + 1
        while end < len(turns) and turns[end].role == "tool":
            end += 1
        results = turns[position + 1 : end]
        spent = results and all(
            (result.documents_removed or result.blocks) and not result.text for result in results
        )
        if not (turn.calls and not turn.text.strip() and spent):
            kept += turns[position:end]
        position = end
    return kept


def _as_messages(turn: Turn) -> list[Message]:
    """What the model reads of a turn; nothing if it consisted of documents or says nothing."""
    text = join_texts(turn.text, turn.instruction, turn.question or "")
    message = Message(role=turn.role, content=text)
    moved = turn.documents_removed or bool(turn.blocks)
    if turn.role == "tool":
        # Every call needs its result.
        message["content"] = text or ("(see below)" if moved else "")
        if turn.name:
            message["name"] = turn.name
        if turn.call_id:
            message["tool_call_id"] = turn.call_id
        return [message]
    if turn.calls:
        message["tool_calls"] = turn.calls
        return [message]
    return [] if not text and (turn.role == "assistant" or moved) else [message]
