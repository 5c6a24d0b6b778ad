"""Chosen passages put into a prompt: where the documents were, or before the question.

Nothing else of the prompt changes. A document of which nothing was kept disappears together with
its own tags; where no tags say what belongs to it, the mark of a gap takes its place.
"""

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finch_integrations.pipeline.chooser import Choice
from finch_integrations.pipeline.document_tags import escape_tags, tag_document, unescape_tags
from finch_integrations.pipeline.shorten import GAP
from finch_integrations.pipeline.turns import DocumentRegion
from finch_integrations.types import Document

_BEFORE = re.compile(r"<document(?:\s+[\w.:-]+=\"[^\"]*\")*\s*>\s*\Z", re.IGNORECASE)
_AFTER = re.compile(r"\s*</document>\n?", re.IGNORECASE)
_MARK = GAP.strip()


@dataclass(frozen=True, slots=True)
class Edit:
    """A stretch of a text, `text[start:end]`, and what takes its place."""

    start: int
    end: int
    text: str


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Replace stretches of a text; they do not overlap."""
    pieces, position = [], 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*pieces, text[position:]])


def edit_regions(
    texts: Sequence[str],
    regions: Sequence[DocumentRegion],
    documents: Sequence[Document],
    choice: Choice,
) -> Mapping[int, list[Edit]]:
    """Say how messages change when their documents are replaced by what was chosen of them.

    Args:
        texts: The messages' texts.
        regions: Where they hold documents.
        documents: These documents, in the order in which passages were chosen from them.
        choice: Of these documents. If all was kept, nothing changes.

    Returns:
        For every message that changes its edits.
    """
    if choice.complete:
        return {}
    kept = {part.index: part.text for part in choice.shortened}
    numbers = {id(document): number for number, document in enumerate(documents)}
    edits: dict[int, list[Edit]] = {}
    for region in regions:
        text = texts[region.turn]
        shortened = kept.get(numbers[id(region.document)])
        edit = _removed(text, region) if shortened is None else _replaced(text, region, shortened)
        if edit is not None:
            edits.setdefault(region.turn, []).append(edit)
    return edits


def write_documents(choice: Choice) -> str:
    """Write what was chosen of documents that are in no text yet, with ids, titles and tags."""
    tagged = [
        tag_document(
            part.text,
            {"id": choice.documents[part.index].id, "title": choice.documents[part.index].title},
        )
        for part in choice.shortened
    ]
    return "\n".join(["<documents>", *tagged, "</documents>"])


def _json_text(text: str) -> str:
    return json.dumps(text)[1:-1]


def _from_json(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return ""


# How texts are written into prompts: what reads them back, and what writes them so.
_WRITINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (str, str),
    (unescape_tags, escape_tags),
    (_from_json, lambda text: json.dumps(text, ensure_ascii=False)[1:-1]),
    (_from_json, _json_text),
    (html.unescape, html.escape),
    (html.unescape, lambda text: html.escape(text, quote=False)),
)


def _replaced(text: str, region: DocumentRegion, shortened: str) -> Edit | None:
    written = text[region.start : region.end]
    whole = region.document.text
    for read, write in _WRITINGS:
        if read(written) == whole and write(whole) == written:
            return Edit(region.start, region.end, write(shortened))
    return None  # it is not known how to write a part of it: it stays whole


def _removed(text: str, region: DocumentRegion) -> Edit:
    before = _BEFORE.search(text, 0, region.start)
    after = _AFTER.match(text, region.end)
    if before and after:
        return Edit(before.start(), after.end(), "")
    return Edit(region.start, region.end, _MARK)
