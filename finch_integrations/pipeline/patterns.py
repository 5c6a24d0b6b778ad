"""Prompts that are known to contain documents without marks, and how to split them.

A text is split only where its words announce what follows ("based on the following context:",
"Context: … Question: …"). The labels are removed; everything else that is not documents stays.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from finch_integrations.pipeline.document_tags import join_texts
from finch_integrations.pipeline.places import strip_place

_NOUN = r"(?:context|documents?|articles?|passages?|sources?|excerpts?|information)"
_ANNOUNCED = re.compile(
    r"\b(?:us(?:e|ing)|based (?:only |solely )?(?:up)?on|given|from|with)\b[^\n.]{0,60}?"
    rf"\b(?:following\b[^\n.]{{0,40}}?\b{_NOUN}|{_NOUN}\s+(?:given |provided )?below)\b",
    re.IGNORECASE,
)
_LABEL = r"[ \t#*]*(?:retrieved )?context(?: information)?[ \t*]*:[ \t*]*"
_CONTEXT = re.compile(rf"^{_LABEL}", re.I | re.M)
# Strings joined in source code often leave the label at the end of the instruction's line.
_CONTEXT_IN_LINE = re.compile(rf"(?:^|(?<=[.!?]\s)){_LABEL}", re.I | re.M)
_QUESTION = re.compile(
    r"^[ \t#*]*(?:user )?(?:(?P<itself>question)|query|input)[ \t*]*:[ \t*]*", re.I | re.M
)
_ANSWER = re.compile(
    r"^[ \t#*]*(?:(?:helpful|final|your) )?answer[ \t*]*:[ \t*]*\s*\Z", re.I | re.M
)
_RULE = re.compile(r"^-{6,}[ \t]*$", re.M)
_RULED = re.compile(rf"\b{_NOUN}\b[^\n]*(?:\bbelow\b[^\n]*|:)[ \t]*\s*\Z", re.IGNORECASE)
_NOUN_ANYWHERE = re.compile(rf"\b{_NOUN}\b", re.IGNORECASE)
_INSTRUCTS = re.compile(
    r"\b(?:answers?|respond|reply|questions?|say|cite|context|don't|do not|please|always|never"
    r"|must|only)\b",
    re.IGNORECASE,
)
_FORM = re.compile(r"\b(?:brief(?:ly)?|concise(?:ly)?|sentences?)\b", re.IGNORECASE)
_CLOSING_LENGTH = 300
# Without a colon or a label after it, an announcement may only describe the task; then what
# follows counts as documents if it is much longer than an instruction would be.
_LONG, _TIMES_LONGER = 500, 2


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt's text with the documents taken out.

    Attributes:
        lead: What is neither documents nor question.
        start: The documents' first character.
        end: After their last character.
        question: The question, if it is in the text.
    """

    lead: str
    start: int
    end: int
    question: str | None = None


def split_known_system(text: str) -> SplitPrompt | None:
    """Split a system text that ends with documents; None if none are announced.

    A short last paragraph that reads like an instruction is left out of the documents.
    """
    if ruled := _between_rules(text):
        lead, documents, tail = ruled
        return _split(text, documents, join_texts(lead, tail))
    place = _locate(text, _CONTEXT_IN_LINE)
    if place is None:
        return None
    lead, rest = text[: place.start], text[place.end :]
    if place.labelled:
        certain = _NOUN_ANYWHERE.search(lead) is not None
    else:
        long = max(_LONG, _TIMES_LONGER * len(lead))
        certain = lead.rstrip().endswith(":") or len(rest.strip()) >= long
    if not certain:
        return None
    closing = _closing(rest)
    documents = slice(place.end, len(text.rstrip()) - len(closing))
    return _split(text, documents, join_texts(lead, closing))


def split_known_user(text: str) -> SplitPrompt | None:
    """Split a user text that contains documents and a question; None unless both are announced."""
    body = text[: answer.start()] if (answer := _ANSWER.search(text)) else text
    if (ruled := _between_rules(body)) and (asked := _asked(ruled[2])):
        lead, documents, tail = ruled
        lead = join_texts(lead, tail[: asked.start()])
        return _split(body, documents, lead, tail[asked.end() :])
    place = _locate(body, _CONTEXT)
    if place is None:
        return None
    lead, rest = body[: place.start], body[place.end :]
    if place.labelled and (asked := _asked(lead)):
        documents = slice(place.end, len(body))
        return _split(body, documents, lead[: asked.start()], lead[asked.end() :])
    if asked := _asked(rest):
        documents = slice(place.end, place.end + asked.start())
        return _split(body, documents, lead, rest[asked.end() :])
    # "{question}\n\nUse the following context to answer the query:\n{documents}"
    question, gap, announcement = lead.rstrip().rpartition("\n")
    if gap and not place.labelled and _ANNOUNCED.search(announcement):
        documents = slice(place.end, len(body))
        return _split(body, documents, announcement, question) if announcement[-1] == ":" else None
    return None


def split_by_patterns(text: str, patterns: Sequence[re.Pattern[str]]) -> SplitPrompt | None:
    """Split a text by the user's own patterns, whose group `context` is the documents."""
    for pattern in patterns:
        match = pattern.search(text)
        if not match or not (match["context"] or "").strip():
            continue
        cuts = [match.span("context")]
        question = match.groupdict().get("question")
        if question:
            cuts.append(match.span("question"))
        pieces, position = [], 0
        for start, end in sorted(cuts):
            pieces.append(text[position:start])
            position = end
        return SplitPrompt(
            join_texts(*pieces, text[position:]),
            *strip_place(text, *match.span("context")),
            question.strip() if question else None,
        )
    return None


def split_question(lead: str, tail: str) -> tuple[str, str]:
    """Find the question in what is left of a user text around its documents.

    Returns:
        The rest and the question. The question is what a label names, else what is after the
        documents, else what is before them. An instruction after them is not the question if there
        is a question before them.
    """
    if answer := _ANSWER.search(tail):
        tail = tail[: answer.start()]
    if label := _asked(tail):
        return join_texts(lead, tail[: label.start()]), tail[label.end() :].strip()
    if label := _asked(lead):
        return lead[: label.start()].strip(), join_texts(lead[label.end() :], tail)
    instructs = _INSTRUCTS.search(tail) or _FORM.search(tail)
    if lead.rstrip().endswith("?") and "?" not in tail and instructs:
        return tail.strip(), lead.strip()
    if tail.strip():
        return lead.strip(), tail.strip()
    return "", lead.strip()


def _between_rules(text: str) -> tuple[str, slice, str] | None:
    """Lead, documents and tail of a text that separates announced documents by dashed lines.

    The documents extend to the last rule, because they may contain rules themselves.
    """
    rules = list(_RULE.finditer(text))
    if len(rules) < 2 or not _RULED.search(text[: rules[0].start()]):
        return None
    first, last = rules[0], rules[-1]
    return text[: first.start()], slice(first.end(), last.start()), text[last.end() :]


def _split(
    text: str, documents: slice, lead: str, question: str | None = None
) -> SplitPrompt | None:
    if not text[documents].strip() or (question is not None and not question.strip()):
        return None
    asked = question.strip() if question is not None else None
    return SplitPrompt(lead.strip(), *strip_place(text, documents.start, documents.stop), asked)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where documents begin: the label is between start and end, if there is one."""

    start: int
    end: int
    labelled: bool


def _locate(text: str, label_pattern: re.Pattern[str]) -> _Place | None:
    label = label_pattern.search(text)
    announced = _ANNOUNCED.search(text)
    if announced is None or (label and label.start() < announced.start()):
        return _Place(label.start(), label.end(), True) if label else None
    end = _end_of_announcement(text, announced)
    if label:
        colon = text[:end].rstrip().endswith(":")
        between = text[end : label.start()]
        asked = not colon and _QUESTION.search(text, announced.end(), label.start())
        # Further on, the label would be a word in the documents themselves.
        if asked or not between.strip():
            return _Place(label.start(), label.end(), True)
    return _Place(end, end, False)


def _end_of_announcement(text: str, announced: re.Match[str]) -> int:
    """The end of the announcement's line if it ends with a colon, else of its paragraph."""
    line = text.find("\n", announced.end())
    if line < 0:
        return len(text)
    if text[:line].rstrip().endswith(":"):
        return line + 1
    paragraph = text.find("\n\n", announced.end())
    return len(text) if paragraph < 0 else paragraph + 2


def _closing(text: str) -> str:
    """A short last paragraph that reads like an instruction; it does not belong to documents."""
    documents, gap, closing = text.rstrip().rpartition("\n\n")
    short = len(closing) <= _CLOSING_LENGTH
    if gap and documents.strip() and short and _INSTRUCTS.search(closing):
        return closing
    return ""


def _asked(text: str) -> re.Match[str] | None:
    """The label of the question: the last one, unless it is a part of the question itself.

    It is if it follows a line that is labelled as the question ("Question: …", "Query: …").
    """
    labels = list(_QUESTION.finditer(text))
    asked = labels[-1] if labels else None
    for label, following in reversed(list(pairwise(labels))):
        line = text[label.end() : following.start()].strip()
        if following["itself"] or not line or "\n" in line:
            break
        if label["itself"]:
            asked = label
    return asked
