"""Tags around documents in a prompt's text: written by `format_docs`, read back here.

<document id="…" title="…" …>text</document>     one document
<documents>…</documents>, <context>…</context>   around documents, tagged or not
"""

import html
import re
from collections.abc import Mapping
from typing import Any

from finch_integrations.pipeline.places import Cut, Place, strip_place
from finch_integrations.types import Document

_NAMES = "documents?|context"
_WRAPPER_TAG = re.compile(r"<(/?)(context|documents)>", re.IGNORECASE)
_OPENING = re.compile(r"<document((?:\s+[\w.:-]+=\"[^\"]*\")*)\s*>", re.IGNORECASE)
_CLOSING = re.compile("</document>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([\w.:-]+)=\"([^\"]*)\"")
# A backslash after the bracket; texts that have one there already get one more, so that
# unescaping gives every text back as it was.
_TO_ESCAPE = re.compile(rf"<(\\*)(/?(?:{_NAMES})\b)", re.IGNORECASE)
_TO_UNESCAPE = re.compile(rf"<(\\*)\\(/?(?:{_NAMES})\b)", re.IGNORECASE)


def escape_tags(text: str) -> str:
    """Change tags inside a document's text, so that it cannot end itself or begin another."""
    return _TO_ESCAPE.sub(r"<\1\\\2", text)


def unescape_tags(text: str) -> str:
    """Undo `escape_tags`."""
    return _TO_UNESCAPE.sub(r"<\1\2", text)


def tag_document(text: str, attributes: Mapping[str, Any]) -> str:
    """Write one document with its tags; attributes that are None are left out."""
    shown = (
        f' {name}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<document{''.join(shown)}>\n{escape_tags(text)}\n</document>"


def find_tagged(text: str) -> list[Cut]:
    """Find the tagged documents of a text, with their tags; blank ones have no document."""
    if "<" not in text:  # which is said sooner than that no expression matches
        return []
    cuts: list[Cut] = []
    position = 0
    for start, inner_start, inner_end, end in _wrappers(text):
        inside = _elements(text, inner_start, inner_end, untagged_are_documents=True)
        places = tuple(place for cut in inside for place in cut.places)
        if places:
            cuts += [*_elements(text, position, start), Cut(start, end, places)]
            position = end
    cuts += _elements(text, position, len(text))
    return cuts if any(cut.places for cut in cuts) else []


def has_marks(text: str) -> bool:
    """Whether single documents are marked: `<context>` alone may be around anything."""
    return "<" in text and _OPENING.search(text) is not None


def join_texts(*texts: str) -> str:
    """Join texts as paragraphs, leaving out blank ones."""
    return "\n\n".join(text.strip() for text in texts if text.strip())


def _wrappers(text: str) -> list[tuple[int, int, int, int]]:
    """Find wrapped regions: start, start and end of the inside, end.

    A region reaches to the last closing tag before the next opening one of its kind: a document
    that contains a closing tag cannot leave its wrapper.
    """
    regions: list[tuple[int, int, int, int]] = []
    opening: re.Match[str] | None = None
    closing: re.Match[str] | None = None
    for tag in _WRAPPER_TAG.finditer(text):
        kind_matches = opening is not None and tag[2].lower() == opening[2].lower()
        if opening is None:
            opening = tag if not tag[1] else None
        elif tag[1] and kind_matches:
            closing = tag
        elif not tag[1] and closing is not None:
            regions.append((opening.start(), opening.end(), closing.start(), closing.end()))
            opening, closing = tag, None
    if opening is not None and closing is not None:
        regions.append((opening.start(), opening.end(), closing.start(), closing.end()))
    return regions


def _elements(
    text: str, start: int, end: int, *, untagged_are_documents: bool = False
) -> list[Cut]:
    cuts: list[Cut] = []
    position = start

    def add_untagged(first: int, last: int) -> None:
        piece = text[first:last]
        # <context><documents>… is one wrapper
        if untagged_are_documents and _WRAPPER_TAG.sub("", piece).strip():
            place = Place(*strip_place(text, first, last), Document(piece.strip()))
            cuts.append(Cut(first, last, (place,)))

    while opening := _OPENING.search(text, position, end):
        closing = _CLOSING.search(text, opening.end(), end)
        if closing is None:
            break
        add_untagged(position, opening.start())
        position = closing.end()
        first, last = strip_place(text, opening.end(), closing.start())
        places: tuple[Place, ...] = ()
        if first < last:  # else a scanned page, say
            values = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(opening[1])}
            id, title = values.pop("id", None) or None, values.pop("title", None) or None
            body = unescape_tags(text[first:last])
            document = Document(body, id=id, title=title, metadata=values)
            places = (Place(first, last, document),)
        cuts.append(Cut(opening.start(), closing.end(), places))
    add_untagged(position, end)
    return cuts
