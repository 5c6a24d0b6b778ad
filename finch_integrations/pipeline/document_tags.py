"""Tags around documents in a prompt's text: written by `format_docs`, read back here.

<document id="…" title="…" …>text</document>     one document
<documents>…</documents>, <context>…</context>   around documents, tagged or not
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finch_integrations.pipeline.places import Place, strip_place
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


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text with its tagged documents taken out.

    Attributes:
        lead: Everything before the last document that is not a document.
        places: The documents and where they are, in the order of the text.
        tail: Everything after the last document.
    """

    lead: str
    places: tuple[Place, ...]
    tail: str

    @property
    def documents(self) -> tuple[Document, ...]:
        """In the order of the text."""
        return tuple(place.document for place in self.places)


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


def split_tagged(text: str) -> TaggedText | None:
    """Take the tagged documents out of a text; None if there are none."""
    parts: list[str | Place] = []
    position = 0
    for start, inner_start, inner_end, end in _wrappers(text):
        inside = _elements(text, inner_start, inner_end, untagged_are_documents=True)
        if any(isinstance(part, Place) for part in inside):
            parts += [*_elements(text, position, start), *inside]
            position = end
    parts += _elements(text, position, len(text))
    last = max((n for n, part in enumerate(parts) if isinstance(part, Place)), default=None)
    if last is None:
        return None
    return TaggedText(
        lead=join_texts(*(part for part in parts[:last] if isinstance(part, str))),
        places=tuple(part for part in parts if isinstance(part, Place)),
        tail=join_texts(*(part for part in parts[last:] if isinstance(part, str))),
    )


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
) -> list[str | Place]:
    parts: list[str | Place] = []
    position = start

    def add_untagged(first: int, last: int) -> None:
        piece = text[first:last]
        if not untagged_are_documents:
            parts.append(piece)
        elif _WRAPPER_TAG.sub("", piece).strip():  # <context><documents>… is one wrapper
            parts.append(Place(*strip_place(text, first, last), Document(piece.strip())))

    while opening := _OPENING.search(text, position, end):
        closing = _CLOSING.search(text, opening.end(), end)
        if closing is None:
            break
        add_untagged(position, opening.start())
        position = closing.end()
        first, last = strip_place(text, opening.end(), closing.start())
        if first == last:  # a scanned page, say
            continue
        values = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(opening[1])}
        id, title = values.pop("id", None) or None, values.pop("title", None) or None
        body = unescape_tags(text[first:last])
        parts.append(Place(first, last, Document(body, id=id, title=title, metadata=values)))
    add_untagged(position, end)
    return parts
