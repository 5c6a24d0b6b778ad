"""Find the documents in a chat, and put the rest into the order that compression needs.

Pure functions over turns; what is not certain to be documents stays where it is, verbatim.
The first source that has documents wins: given by the caller or in content blocks, templates that
say where they put documents, a tool's artifact, tagged text, the user's own patterns, what was
retrieved, known prompts.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finch_integrations.documents import is_blank
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.document_tags import find_tagged, has_marks, join_texts
from finch_integrations.pipeline.evidence import NO_EVIDENCE, Evidence, Retrieved
from finch_integrations.pipeline.known_texts import KnownText, Match
from finch_integrations.pipeline.patterns import Split, split_by_patterns, split_known
from finch_integrations.pipeline.places import Cut, Place, documents_of
from finch_integrations.pipeline.questions import find_alone, find_question
from finch_integrations.pipeline.regions import cut_out, with_wrapper
from finch_integrations.pipeline.text_samples import SHORTEST_PIECE
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


def detect(
    turns: Sequence[Turn],
    given: Sequence[Document] | None = None,
    *,
    mode: ContextDetection = "auto",
    patterns: Sequence[re.Pattern[str]] = (),
    strict: bool = False,
    evidence: Evidence = NO_EVIDENCE,
    keep_calls: bool = False,
) -> Detected:
    """Find the documents of a chat.

    Args:
        turns: The chat.
        given: Documents that the caller gave in addition to it; none at all: there are none, so
            none are looked for.
        mode: `auto` uses every source, `marked` only what is marked as documents, `off` only
            documents that are given as such (by the caller, as blocks or by a template),
            `longest` takes the longest text if no other source has documents.
        patterns: The user's own; the group `context` is documents, the group `question`, if
            there is one, the question.
        strict: Do not use known prompts, and raise if no documents are found.
        evidence: What was retrieved.
        keep_calls: Keep the calls of tools whose results are documents, so that the model does not
            make them again; else the documents replace them.

    Raises:
        InvalidInputError: Documents are given in two ways, there are documents but no question,
            or `strict` and no documents were found.
    """
    blocks = tuple(document for turn in turns for document in turn.blocks)
    if blocks and all(map(is_blank, blocks)):
        raise InvalidInputError(
            f"all documents in content blocks are blank ({len(blocks)}). Give blocks with text"
        )
    blocks = tuple(document for document in blocks if not is_blank(document))
    named = [(tuple(given or ()), "with the call"), (blocks, "as content blocks of messages")]
    named = [one for one in named if one[0]]
    template = _by_templates(turns)
    if len(named) + bool(template) > 1:
        inserted = documents_of(place for turn in turns for place in turn.template)
        named += [(inserted, "by the prompt's template")] if template else []
        ways = " and ".join(f"{len(documents)} {way}" for documents, way in named)
        raise InvalidInputError(f"documents are given twice: {ways}. Give them in one way")
    if named:
        found = _compose(turns, named[0][0], "argument", (), keep_calls)
        return replace(found, in_blocks=not given)
    if given is not None:
        mode = "off"
    asking = _asking(turns)
    if asking is not None and turns[asking].is_step:
        return replace(_compose(turns, (), "none"), missed=mode != "off")
    unasked = 0
    for source, splits in _sources(turns, template, mode, patterns, strict, evidence):
        places = [tuple(p for cut in split.cuts for p in cut.places) for split in splits]
        documents = documents_of(place for found in places for place in found)
        rest = [
            _without(turn, split, asks=number == asking, queries=evidence.queries)
            for number, (turn, split) in enumerate(zip(turns, splits, strict=True))
        ]
        if documents and (_question(rest) or source == "template"):
            return _compose(rest, documents, source, places, keep_calls)
        unasked = unasked or len(documents)
    if strict and unasked:
        raise _no_question(unasked)
    if strict:
        raise InvalidInputError(
            "no documents were recognised in these messages, and strict is on. Hand them over "
            "with documents=…, or mark them: <document>…</document>"
        )
    return replace(_compose(turns, (), "none"), missed=mode != "off")


NO_SPLIT = Split(())


def _sources(
    turns: Sequence[Turn],
    template: Sequence[Split],
    mode: ContextDetection,
    patterns: Sequence[re.Pattern[str]],
    strict: bool,
    evidence: Evidence,
) -> Iterable[tuple[DocumentsFrom, list[Split]]]:
    """What every source finds in the turns, in the order of the sources."""
    if template:
        yield "template", [*template]
    if mode == "off":
        return
    own = [_own_documents(turn) for turn in turns]
    if any(own):
        yield "artifact", _find_retrieved(turns, own, Evidence(queries=evidence.queries))
    certain = mode == "marked" or any(has_marks(turn.text) for turn in turns)
    if certain:
        yield "mark", _tagged(turns)
    if mode == "marked":
        return
    yield "pattern", _each(turns, lambda turn: split_by_patterns(turn.text, patterns))
    if evidence.texts:
        yield "evidence", _find_retrieved(turns, own, evidence)
    if not certain:
        yield "mark", _tagged(turns)
    if not strict:
        known = _each(turns, lambda turn: split_known(turn.text, asks=turn.role == "user"))
        if sum(map(bool, (split.cuts for split in known))) == 1:
            yield "pattern", known
    if mode == "longest":
        yield "longest", _longest(turns)


def _tagged(turns: Sequence[Turn]) -> list[Split]:
    return [
        Split(tuple(find_tagged(turn.text))) if turn.role != "assistant" else NO_SPLIT
        for turn in turns
    ]


def _each(turns: Sequence[Turn], split: Callable[[Turn], Split | None]) -> list[Split]:
    return [
        (split(turn) if turn.role in ("system", "user") else None) or NO_SPLIT for turn in turns
    ]


def _by_templates(turns: Sequence[Turn]) -> list[Split]:
    """The documents that templates have inserted; nothing if there are none."""
    if not any(turn.template for turn in turns):
        return []
    return [
        Split(
            tuple(
                with_wrapper(turn.text, Cut(place.start, place.end, (place,)))
                for place in turn.template
            ),
            turn.query,
        )
        for turn in turns
    ]


def _own_documents(turn: Turn) -> list[Retrieved]:
    """A tool's artifact as what was retrieved."""
    texts: dict[str, list[Document]] = {}
    for document in turn.artifact:
        if document.text.strip():
            texts.setdefault(document.text.strip(), []).append(document)
    return [Retrieved(KnownText(text), tuple(found), own=True) for text, found in texts.items()]


# Longer texts are searched with other white space only for what the run itself retrieved.
_SHORT_TEXT = 2**18


def _find_retrieved(
    turns: Sequence[Turn], own: Sequence[Sequence[Retrieved]], evidence: Evidence
) -> list[Split]:
    """Find what was retrieved; each occurrence of a text is another document that has it."""
    looked: list[tuple[Evidence, list[Match]]] = []
    for turn, artifact in zip(turns, own, strict=True):
        # Of what the model said only what the run itself retrieved is taken for documents.
        expected = evidence.own if turn.role == "assistant" else evidence
        if artifact:
            expected = Evidence((*artifact, *expected.texts))
        squeezed = len(turn.text) <= _SHORT_TEXT
        looked.append((expected, expected.known.find(turn.text, squeezed=squeezed)))
    complete = {
        expected.text(match) for expected, matches in looked for match in matches if match.whole
    }
    used: Counter[str] = Counter()
    labelled: dict[tuple[int, str], Document] = {}
    splits = []
    for turn, (expected, found) in zip(turns, looked, strict=True):
        # A piece of a text all of which is in the chat is what many texts begin or end with.
        matches = [one for one in found if one.whole or expected.text(one) not in complete]
        chosen: list[tuple[Match, Document]] = []
        for match in matches:
            documents, text = expected.texts[match.number].documents, expected.text(match)
            chosen.append((match, documents[min(used[text], len(documents) - 1)]))
            used[text] += 1
        protected = [
            span
            for query in (evidence.queries if turn.role == "user" else ())
            for span in find_alone(turn.text, query, (0, len(turn.text)))
            if not any(_is_part(span, match) for match in matches)
        ]
        splits.append(Split(tuple(cut_out(turn.text, chosen, protected, labelled))))
    return splits


def _is_part(query: Span, match: Match) -> bool:
    """Whether a query belongs to a document, which has more text of its own."""
    if not (match.start <= query[0] and query[1] <= match.end):
        return False
    more = match.end - match.start - (query[1] - query[0])
    # "Question: …" with "Answer:" after it may be the start of a document, and the prompt's end.
    return more > 0 if match.whole else more >= SHORTEST_PIECE


def _longest(turns: Sequence[Turn]) -> list[Split]:
    """The longest text; of the last user turn all but its last paragraph."""
    asking = _asking(turns)
    texts = [turn.text if turn.role != "assistant" else "" for turn in turns]
    if asking is not None:
        gap = texts[asking].rstrip().rfind("\n\n")
        texts[asking] = texts[asking][: max(gap, 0)]
    longest = max(range(len(texts)), key=lambda number: len(texts[number]), default=0)
    splits = [NO_SPLIT] * len(turns)
    if texts and texts[longest].strip():
        place = Place(0, len(texts[longest]), Document(texts[longest].strip()))
        splits[longest] = Split((Cut(place.start, place.end, (place,)),))
    return splits


def _without(turn: Turn, split: Split, *, asks: bool, queries: Sequence[str]) -> Turn:
    """Take documents out of a turn and, if it asks, find the question in what is left."""
    text = turn.text
    taken = [(cut.start, cut.end) for cut in split.cuts]
    question = split.question
    if asks and taken and question is None:
        question = find_question(text, taken, queries)
    left = _left(text, taken, 0, len(text))
    # An agent's step: "Observation: " and documents.
    step = len(turn.template) == 0 and left.endswith((":", "：")) and _LABEL_ONLY.fullmatch(left)
    if not asks or question is None or step:
        if not taken:
            return turn
        return replace(turn, text=left, documents_removed=True)
    start, end = question
    last = taken[-1][1] if taken else 0
    if start >= last:
        lead, instruction = _left(text, taken, 0, last), _left(text, taken, last, start)
        closing = text[end:]
        if not taken:
            lead, instruction = "", text[:start]
    else:
        line = text.rfind("\n", 0, start) + 1
        line = max(line, *(edge for _, edge in taken if edge <= start), 0)
        instruction = text[line:start]
        lead = join_texts(_left(text, taken, 0, line), _left(text, taken, end, last))
        closing = text[last:]
    return replace(
        turn,
        text=lead,
        instruction=instruction.strip(),
        question=text[start:end].strip(),
        closing=closing.strip(),
        documents_removed=bool(taken),
    )


def _left(text: str, taken: Sequence[Span], start: int, end: int) -> str:
    """What is left of a stretch of a text, as paragraphs."""
    pieces, position = [], start
    for first, stop in taken:
        if start <= first and stop <= end:
            pieces.append(text[position:first])
            position = stop
    return join_texts(*pieces, text[position:end])


def _asking(turns: Sequence[Turn]) -> int | None:
    """The last user turn."""
    return max((n for n, turn in enumerate(turns) if turn.role == "user"), default=None)


_LABEL_ONLY = re.compile(r"[^\n.?!]{0,40}[:：]?")


def _asks(turn: Turn) -> bool:
    """Whether it is a user turn that says more than "Observation: " and documents."""
    carries = turn.documents_removed and turn.question is None
    return turn.role == "user" and not (carries and _LABEL_ONLY.fullmatch(turn.text))


def _question(turns: Sequence[Turn]) -> str:
    """The last user turn's question."""
    asking = [turn for turn in turns if _asks(turn)]
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
    instruction, closing, result = "", "", None
    answering: list[Turn] = []
    if keep_calls:
        chat, answering = _split_result(chat)
    else:
        chat = _without_spent_calls(chat)
    if documents:
        last = max((n for n, turn in enumerate(chat) if _asks(turn)), default=None)
        question = _question(turns)
        if last is None or not question:
            raise _no_question(len(documents))
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
