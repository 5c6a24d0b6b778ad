"""Find the documents in a chat.

Pure functions over turns; what is not certain to be documents stays where it is, verbatim.
The first source that has documents wins: given by the caller or in content blocks, templates that
say where they put documents, a tool's artifact, tagged text, the user's own patterns, what was
retrieved, known prompts.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from finch_integrations.documents import is_blank
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.composing import LABEL_ONLY, compose, no_question, question_in
from finch_integrations.pipeline.document_tags import join_texts
from finch_integrations.pipeline.evidence import NO_EVIDENCE, Evidence
from finch_integrations.pipeline.patterns import Split
from finch_integrations.pipeline.places import documents_of
from finch_integrations.pipeline.questions import find_question
from finch_integrations.pipeline.sources import look_everywhere, look_in_templates
from finch_integrations.pipeline.turns import ContextDetection, Detected, Span, Turn, asking_turn
from finch_integrations.types import Document


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
    template = look_in_templates(turns)
    if len(named) + bool(template) > 1:
        inserted = documents_of(place for turn in turns for place in turn.template)
        named += [(inserted, "by the prompt's template")] if template else []
        ways = " and ".join(f"{len(documents)} {way}" for documents, way in named)
        raise InvalidInputError(f"documents are given twice: {ways}. Give them in one way")
    if named:
        found = compose(turns, named[0][0], "argument", (), keep_calls)
        return replace(found, in_blocks=not given)
    if given is not None:
        mode = "off"
    asking = asking_turn(turns)
    if asking is not None and turns[asking].is_step:
        return replace(compose(turns, (), "none"), missed=mode != "off")
    unasked = 0
    for source, splits in look_everywhere(turns, template, mode, patterns, strict, evidence):
        places = [tuple(p for cut in split.cuts for p in cut.places) for split in splits]
        documents = documents_of(place for found in places for place in found)
        rest = [
            _without(turn, split, asks=number == asking, queries=evidence.queries)
            for number, (turn, split) in enumerate(zip(turns, splits, strict=True))
        ]
        if documents and (question_in(rest) or source == "template"):
            return compose(rest, documents, source, places, keep_calls)
        unasked = unasked or len(documents)
    if strict and unasked:
        raise no_question(unasked)
    if strict:
        raise InvalidInputError(
            "no documents were recognised in these messages, and strict is on. Hand them over "
            "with documents=…, or mark them: <document>…</document>"
        )
    return replace(compose(turns, (), "none"), missed=mode != "off")


def _without(turn: Turn, split: Split, *, asks: bool, queries: Sequence[str]) -> Turn:
    """Take documents out of a turn and, if it asks, find the question in what is left."""
    text = turn.text
    taken = [(cut.start, cut.end) for cut in split.cuts]
    question = split.question
    if asks and taken and question is None:
        question = find_question(text, taken, queries)
    left = _left(text, taken, 0, len(text))
    # An agent's step: "Observation: " and documents.
    step = len(turn.template) == 0 and left.endswith((":", "：")) and LABEL_ONLY.fullmatch(left)
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
