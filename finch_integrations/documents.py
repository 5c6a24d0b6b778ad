"""From what callers hand in to numbered, checked documents."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Document

_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def check_text(name: str, text: object) -> str:
    """Return `text` if a tokenizer can take it and it says something.

    Raises:
        InvalidInputError: It is not a string, is blank, or holds NUL or a lone surrogate.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} must be a string, got {type(text).__name__}")
    if not text.strip():
        raise InvalidInputError(f"{name} is empty. Give it some text or leave it out")
    if bad := _UNUSABLE.search(text):
        kind = "a NUL character" if bad[0] == "\x00" else f"a lone surrogate (U+{ord(bad[0]):04X})"
        raise InvalidInputError(
            f"{name} holds {kind} at character {bad.start()}, which is not text. "
            "Decode the source with the right encoding, or remove the character"
        )
    return text


def prepare_documents(documents: Iterable[Document | str | Mapping[str, Any]]) -> list[Document]:
    """Check documents and give each an id.

    Args:
        documents: `Document`s, plain strings, or mappings with the fields of `Document`.

    Raises:
        InvalidInputError: There is no document, one is unusable, or two share an id.
    """
    if isinstance(documents, str | bytes | Mapping | Document):
        raise InvalidInputError(
            f"documents must be a list, got one {type(documents).__name__}. "
            "Put it into a list: [document]"
        )
    prepared = [_prepare(item, number) for number, item in enumerate(documents, start=1)]
    if not prepared:
        raise InvalidInputError("there is no document to ask about. Give at least one")
    seen: set[str | None] = set()
    for document in prepared:
        if document.id in seen:
            raise InvalidInputError(
                f"two documents have the id {document.id!r}. Ids must differ; "
                "leave them out to have the documents numbered"
            )
        seen.add(document.id)
    return prepared


def with_unique_ids(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Call documents without id by their source, where they name one, and number repeated ids.

    Retrievers return chunks of one file under one id, or with nothing but the file's name.
    """
    ids = [_id_or_source(document) for document in documents]
    taken = set(ids)
    seen: set[str] = set()
    unique = []
    for document, wanted in zip(documents, ids, strict=True):
        id, number = wanted, 2
        if id is not None and id in seen:
            while f"{wanted}#{number}" in taken:
                number += 1
            id = f"{wanted}#{number}"
            taken.add(id)
        if id is not None:
            seen.add(id)
        unique.append(replace(document, id=id))
    return tuple(unique)


def _id_or_source(document: Document) -> str | None:
    source = document.metadata.get("source")
    return document.id if document.id is not None or not source else str(source)


def _prepare(item: Document | str | Mapping[str, Any], number: int) -> Document:
    if isinstance(item, str):
        item = Document(item)
    elif isinstance(item, Mapping):
        unknown = item.keys() - {"text", "id", "title", "metadata"}
        if unknown or "text" not in item:
            raise InvalidInputError(
                f"document {number} must have the key 'text' and may have 'id', 'title' and "
                f"'metadata', got the keys {', '.join(map(repr, item)) or 'none'}"
            )
        item = Document(**item)
    elif not isinstance(item, Document):
        raise InvalidInputError(
            f"document {number} must be a Document, a string or a mapping, "
            f"got {type(item).__name__}"
        )
    document = item if item.id is not None else replace(item, id=f"doc-{number}")
    name = f"document {document.id!r}"
    check_text(f"the id of document {number}", document.id)
    check_text(name, document.text)
    if document.title is not None:
        check_text(f"the title of {name}", document.title)
    return document
