"""What is left of a chat without its documents, in the order that compression needs."""

import re
from collections.abc import Sequence

from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.document_tags import join_texts
from finch_integrations.pipeline.places import Place
from finch_integrations.pipeline.turns import Detected, DocumentRegion, DocumentsFrom, Turn
from finch_integrations.types import Document, Message

LABEL_ONLY = re.compile(r"[^\n.?!]{0,40}[:：]?")


def _asks(turn: Turn) -> bool:
    """Whether it is a user turn that says more than "Observation: " and documents."""
    carries = turn.documents_removed and turn.question is None
    return turn.role == "user" and not (carries and LABEL_ONLY.fullmatch(turn.text))


def question_in(turns: Sequence[Turn]) -> str:
    """The last user turn's question; empty if there is none."""
    asking = [turn for turn in turns if _asks(turn)]
    if not asking:
        return ""
    last = asking[-1]
    return (last.text if last.question is None else last.question).strip()


def no_question(documents: int) -> InvalidInputError:
    """Say that there are documents, and nothing that is asked of them."""
    return InvalidInputError(
        f"there are {documents} documents but no question: the messages need a human message "
        "with text"
    )


def compose(
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
    instruction, closing, result = "", "", None
    answering: list[Turn] = []
    if keep_calls:
        chat, answering = _split_result(chat)
    elif any(turn.calls for turn in chat):
        chat = _without_spent_calls(chat)
    if documents:
        last = max((n for n, turn in enumerate(chat) if _asks(turn)), default=None)
        question = question_in(turns)
        if last is None or not question:
            raise no_question(len(documents))
        before, asking, later = chat[:last], chat[last], [*chat[last + 1 :], *answering]
        if asking.question is not None:
            # The instruction of a prompt that contained documents and question.
            system.append(asking.text)
            instruction, closing = asking.instruction, asking.closing
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
        closing=closing,
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
    text = join_texts(turn.text, turn.instruction, turn.question or "", turn.closing)
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
