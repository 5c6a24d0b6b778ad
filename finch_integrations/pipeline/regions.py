"""From known texts in a message to the smallest region that holds them with labels and wrappers.

What is between two documents and only separates or names them goes with the documents; so do tags
and rules around all of them. Everything else stays in the message.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from finch_integrations.pipeline.known_texts import Match
from finch_integrations.pipeline.places import Cut, Place
from finch_integrations.types import Document

Span = tuple[int, int]

# Longer than this, what is before a document is no label.
_LABEL_LENGTH = 300
_NAMES = re.compile(
    r"\b(?:page_content|content|source|title|document|doc|passage|excerpt|text|url|link|id|page"
    r"|score|snippet|article|chunk|node|file|path|name|metadata|result|reference)s?\b",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W\d_]")
_CODE = re.compile(r"[\"{}]")
_NUMBERS = re.compile(r"\d+")
_VALUE = re.compile(r"[:=：][^\n]*")
_TAGS = re.compile(r"</?[A-Za-z][\w:.-]*[^<>\n]{0,200}>")
# What ends a document before the next one's label: an empty line, a closing tag, a rule.
_ENDING = re.compile(r"\n[ \t]*\n|</[^<>\n]*>|^[ \t]*[^\w\s<]{3,}[ \t]*$", re.MULTILINE)
_OPENING = re.compile(
    r"(?:<(?P<tag>[A-Za-z][\w:.-]*)[^<>\n]*>|\[(?P<name>[A-Z][A-Z _]+)\]"
    r"|(?:^|(?<=\n))[ \t]*(?P<rule>[^\w\s<>\[\](){}]{3,})[ \t]*[\w]*)\s*\Z"
)


def cut_out(
    text: str,
    found: Sequence[tuple[Match, Document]],
    protected: Sequence[Span],
    labelled: dict[tuple[int, str], Document],
) -> list[Cut]:
    """Find the regions of documents in a text.

    Args:
        text: The text.
        found: Where documents are, in order, and which.
        protected: Stretches that are no documents whatever they say, such as the question.
        labelled: The chat's documents as they are shown, by identity and text: those that are shown
            twice alike are one. Added to.
    """
    found = [
        (match, document)
        for match, document in found
        if not any(start < match.end and match.start < end for start, end in protected)
    ]
    labels = _Labels(text, found, protected)
    groups: list[list[Place]] = []
    for index, (match, document) in enumerate(found):
        start = labels.start(index)
        body = document.text if match.whole else text[match.start : match.end]
        if start < match.start:
            body = text[start : match.start] + body.strip()
        if body != document.text:
            key = id(document), body
            document = labelled.setdefault(key, replace(document, text=body))
        place = Place(start, match.end, document)
        if groups and labels.separates(groups[-1][-1].end, start):
            groups[-1].append(place)
        else:
            groups.append([place])
    return [with_wrapper(text, Cut(group[0].start, group[-1].end, (*group,))) for group in groups]


def with_wrapper(text: str, cut: Cut) -> Cut:
    """Add tags, rules or fences that are directly around a region and belong together."""
    while opening := _OPENING.search(text, max(0, cut.start - _LABEL_LENGTH), cut.start):
        if not (closing := _closing(opening, text, cut.end)):
            break
        cut = Cut(opening.start(), closing, cut.places)
    return cut


class _Labels:
    """Tells labels of documents from other text, by what is known of the documents.

    A label names its document by words and numbers of its metadata, or has the same words as the
    labels of others.
    """

    def __init__(
        self, text: str, found: Sequence[tuple[Match, Document]], protected: Sequence[Span]
    ) -> None:
        self._text, self._found = text, found
        self._earliest = [0, *(match.end for match, _ in found[:-1])]
        for index, (match, _) in enumerate(found if protected else ()):
            ends = (end for _, end in protected if end <= match.start)
            self._earliest[index] = max([self._earliest[index], *ends])
        tails = [self._tail(index) for index in range(1, len(found))]
        self._repeated = Counter(
            self._skeleton(tail, index) for index, tail in enumerate(tails, start=1)
        )
        self._lines = max((tail.count("\n") for tail in tails), default=-1)
        if found and self._lines >= 0:
            self._repeated[self._skeleton(self._tail(0), 0)] += 1

    def start(self, index: int) -> int:
        """Where a document begins, with its label."""
        match, _ = self._found[index]
        if match.escaped:
            return match.start  # what is around it is code
        if self._text[self._earliest[index] : match.start].isspace():
            return match.start
        tail = self._tail(index)
        skeleton = self._skeleton(tail, index)
        if not _LETTERS.search(skeleton) or self._repeated[skeleton] < 2:
            tail = self._naming_lines(index)
        return match.start - len(tail.lstrip())

    def separates(self, start: int, end: int) -> bool:
        """Whether what is between two documents only separates them."""
        gap = self._text[start:end]
        return gap.isspace() or _LETTERS.search(_TAGS.sub("", gap)) is None

    def _tail(self, index: int) -> str:
        """What is before a document and may be its label."""
        start = self._found[index][0].start
        gap = self._text[self._earliest[index] : start]
        if index == 0:
            return "\n".join(gap[-_LABEL_LENGTH:].split("\n")[-self._lines - 1 :])
        if len(gap) > _LABEL_LENGTH or gap.isspace():
            return ""
        last = max((ending.end() for ending in _ENDING.finditer(gap)), default=0)
        return gap[last:].lstrip()

    def _naming_lines(self, index: int) -> str:
        start = self._found[index][0].start
        gap = self._text[max(self._earliest[index], start - _LABEL_LENGTH) : start]
        taken: list[str] = []
        certain = 0  # so many lines: above them, "Documents:" is about all
        for number, line in enumerate(reversed(gap.split("\n"))):
            if not line.strip() and number == 0:
                taken.append(line)
                continue
            rest = self._without_metadata(line, index)
            if (
                not line.strip()
                or _CODE.search(line)
                or _LETTERS.search(_TAGS.sub("", _NAMES.sub("", rest)))
            ):
                break
            if not _LETTERS.search(line) and not _NUMBERS.search(line):
                break  # a rule
            taken.append(line)
            if rest != line or _NUMBERS.search(line):
                certain = len(taken)
        return "\n".join(reversed(taken[:certain]))

    def _skeleton(self, label: str, index: int) -> str:
        if not label:
            return ""
        words = _VALUE.sub(":", _NUMBERS.sub("", self._without_metadata(label, index)))
        return " ".join(words.split())

    def _without_metadata(self, text: str, index: int) -> str:
        document = self._found[index][1]
        values = [document.id, document.title, *document.metadata.values()]
        names = {str(value) for value in values if isinstance(value, str | int | float)} - {""}
        for value in sorted(names, key=len, reverse=True):
            if len(value) > 1:
                text = text.replace(value, "")
        return text


def _closing(opening: re.Match[str], text: str, end: int) -> int | None:
    if tag := opening["tag"]:
        pattern = rf"\s*</?\s*{re.escape(tag)}\s*/?>"
    elif name := opening["name"]:
        pattern = rf"\s*\[/?(?:END[ _])?{re.escape(name)}\]"
    else:
        pattern = rf"\s*{re.escape(opening['rule'])}[ \t]*(?=\n|\Z)"
    closing = re.compile(pattern, re.IGNORECASE).match(text, end)
    return closing.end() if closing else None
