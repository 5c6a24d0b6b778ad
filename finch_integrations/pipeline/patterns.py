"""Prompts that are known to contain documents without marks: the last resort.

A text is taken only if it is certainly documents. So its beginning and its end must be marked, by
rules or by labels that are there only once. Between labels nothing may read like another part of
the prompt, and the last paragraphs stay while they are short: they may be instructions.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finch_integrations.pipeline.line_starts import Lines, LineStart
from finch_integrations.pipeline.places import Cut, Place, strip_place
from finch_integrations.pipeline.questions import LABEL, find_answer
from finch_integrations.types import Document

_NOUN = r"(?:context|documents?|articles?|passages?|sources?|excerpts?|information)"
_ANNOUNCED = re.compile(
    r"\b(?:us(?:e|ing)|based (?:only |solely )?(?:up)?on|given|from|with)\b[^\n.]{0,60}?"
    rf"\b(?:following\b[^\n.]{{0,40}}?\b{_NOUN}|{_NOUN}[ \t]+(?:given |provided )?below)\b[^\n]*:",
    re.IGNORECASE,
)
_COLON = re.compile(r":(?=[ \t]*(?:\n|\Z))")
# A line is no announcement if it is longer.
_ANNOUNCEMENT = 500
_LABEL = LineStart(
    r"[ \t#*]*+(?:retrieved )?context(?: information)?[ \t*]*:[ \t*]*", words="retrieved context"
)
_RULE = LineStart(r"-{6,}[ \t]*(?=\n|\Z)", words="--", colon=False)
_RULED = re.compile(rf"\b{_NOUN}\b[^\n]*(?:\bbelow\b[^\n]*|:)[ \t]*\s*\Z", re.IGNORECASE)
# "Chat History:", "Instructions:"; names of documents are no other part.
_PART = LineStart(
    r"[ \t]*+[*\[<]*(?!(?:source|title|content|page|url|text|document)\b)"
    r"[^\W\d][^\n:：.?!]{1,40}[:：][*\]>]*(?:[ \t]|(?=\n|\Z))"
)
_HEADING = re.compile(r"\n[ \t]*#+[ \t]*\S")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
# Instructions are seldom longer.
_SHORT = 500
_WINDOW = 16_384

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Split:
    """Where a prompt has documents, and where its question, if that is known."""

    cuts: tuple[Cut, ...]
    question: Span | None = None


def split_known(text: str, *, asks: bool) -> Split | None:
    """Find documents that are marked by rules or labels; None if none are certain.

    Args:
        text: A prompt's text.
        asks: Whether the question must be in the text, too.
    """
    lines = Lines(text)
    regions = _between_rules(lines)
    if asks:
        regions += _between_labels(lines)
    if len(regions) != 1:
        return None
    (region,) = regions
    stop = region.end
    if region.ruled:
        if asks and not any(LABEL.find(lines, region.cut_end)):
            return None
    else:
        stop = _without_last_paragraphs(text, region.start, region.end)
        if _HEADING.search(text, region.start, stop):
            return None
        if any(part.start() < stop for part in _PART.find(lines, region.start)):
            return None
    start, end = strip_place(text, region.start, stop)
    if start == end:
        return None
    place = Place(start, end, Document(text[start:end]))
    cut_end = region.cut_end if stop == region.end else end
    return Split((Cut(region.cut_start, cut_end, (place,)),))


def split_by_patterns(text: str, patterns: Sequence[re.Pattern[str]]) -> Split | None:
    """Split a text by the user's own patterns, whose group `context` is the documents."""
    for pattern in patterns:
        match = pattern.search(text)
        if not match or not (match["context"] or "").strip():
            continue
        start, end = strip_place(text, *match.span("context"))
        asked = match.groupdict().get("question")
        question = strip_place(text, *match.span("question")) if asked else None
        place = Place(start, end, Document(text[start:end]))
        return Split((Cut(start, end, (place,)),), question)
    return None


@dataclass(frozen=True, slots=True)
class _Region:
    """A candidate, `text[start:end]`, and what leaves the text with it."""

    cut_start: int
    start: int
    end: int
    cut_end: int
    ruled: bool = False


# More than one candidate: none is certain.
_SEVERAL = [_Region(0, 0, 0, 0)] * 2


def _between_rules(lines: Lines) -> list[_Region]:
    """What is between two dashed lines that are announced."""
    rules = [match.span() for match in _RULE.find(lines)]
    if len(rules) < 2:
        return []
    start = rules[0][0]
    if not _RULED.search(lines.text, max(0, start - _ANNOUNCEMENT), start):
        return []
    if len(rules) > 2:
        return _SEVERAL
    first, last = rules
    return [_Region(*first, *last, ruled=True)]


def _between_labels(lines: Lines) -> list[_Region]:
    """What is between the labels of context and question, or before the answer's."""
    asked = [match.start() for match in LABEL.find(lines)]
    if not asked:
        return []
    begins = [match.span() for match in _LABEL.find(lines)] or _announced(lines.text)
    if not begins or not asked:
        return []
    if len(begins) > 1 or len(asked) > 1:
        return _SEVERAL
    (cut_start, start), (question,) = begins[0], asked
    if question > start:
        return [_Region(cut_start, start, question, question)]
    answer = find_answer(lines.text)
    return [] if answer is None else [_Region(cut_start, start, answer, answer)]


def _announced(text: str) -> list[Span]:
    """The ends of lines that announce documents."""
    ends = []
    for colon in _COLON.finditer(text):
        line = text.rfind("\n", 0, colon.start()) + 1
        if colon.end() - line > _ANNOUNCEMENT:
            continue
        said = text[line : colon.end()].lower()
        if ("following" in said or "below" in said) and _ANNOUNCED.search(said):
            after = text.find("\n", colon.end())
            ends.append((after, after) if after >= 0 else (len(text), len(text)))
    return ends


def _without_last_paragraphs(text: str, start: int, end: int) -> int:
    """Leave short paragraphs at the end of a region out, and always the last one."""
    stop = strip_place(text, start, end)[1]
    last = None
    for before, after in _gaps_from_the_end(text, start, stop):
        if last is not None and last - after > _SHORT:
            return last
        last = before
    if last is None:
        return end
    return last if last - start > _SHORT else start


def _gaps_from_the_end(text: str, start: int, end: int) -> Iterator[Span]:
    """The empty lines of a stretch of a text, the last one first."""
    while start < end:
        first = max(start, end - _WINDOW)
        if text[first].isspace():  # perhaps inside an empty line
            first = start + len(text[start:first].rstrip())
        yield from reversed([gap.span() for gap in _PARAGRAPH.finditer(text, first, end)])
        end = first
