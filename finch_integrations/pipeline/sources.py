"""What every source of documents finds in a chat, one after another."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from finch_integrations.pipeline.document_tags import find_tagged, has_marks
from finch_integrations.pipeline.evidence import Evidence, Retrieved
from finch_integrations.pipeline.known_texts import KnownText, Match
from finch_integrations.pipeline.patterns import Split, split_by_patterns, split_known
from finch_integrations.pipeline.places import Cut, Place
from finch_integrations.pipeline.questions import find_alone
from finch_integrations.pipeline.regions import cut_out, with_wrapper
from finch_integrations.pipeline.text_samples import SHORTEST_PIECE
from finch_integrations.pipeline.turns import (
    ContextDetection,
    DocumentsFrom,
    Span,
    Turn,
    asking_turn,
)
from finch_integrations.types import Document

_NO_SPLIT = Split(())


def look_everywhere(
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
    own = [_own_documents(turn) if turn.artifact else [] for turn in turns]
    if any(own):
        yield "artifact", _find_retrieved(turns, own, Evidence(queries=evidence.queries))
    certain = mode == "marked" or any(has_marks(turn.text) for turn in turns)
    if certain:
        yield "mark", _tagged(turns)
    if mode == "marked":
        return
    if patterns:
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
        Split(tuple(find_tagged(turn.text))) if turn.role != "assistant" else _NO_SPLIT
        for turn in turns
    ]


def _each(turns: Sequence[Turn], split: Callable[[Turn], Split | None]) -> list[Split]:
    return [
        (split(turn) if turn.role in ("system", "user") else None) or _NO_SPLIT for turn in turns
    ]


def look_in_templates(turns: Sequence[Turn]) -> list[Split]:
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
    asking = asking_turn(turns)
    texts = [turn.text if turn.role != "assistant" else "" for turn in turns]
    if asking is not None:
        gap = texts[asking].rstrip().rfind("\n\n")
        texts[asking] = texts[asking][: max(gap, 0)]
    longest = max(range(len(texts)), key=lambda number: len(texts[number]), default=0)
    splits = [_NO_SPLIT] * len(turns)
    if texts and texts[longest].strip():
        place = Place(0, len(texts[longest]), Document(texts[longest].strip()))
        splits[longest] = Split((Cut(place.start, place.end, (place,)),))
    return splits
