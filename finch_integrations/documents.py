"""From what callers pass to numbered, checked documents."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Document

_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def check_text(name: str, text: object) -> str:
    """Return `text` if it is not blank and a tokenizer can take it.

    Raises:
        InvalidInputError: It is not a string, is blank, or contains NUL or a lone surrogate.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReader:
    """Takes documents of several kinds: ours, strings, mappings and a framework's own.

    Attributes:
        convert: Makes a document of a framework's own; None of anything else.
        one: What a single document may be, in messages.
        many: What several are called, in messages.
        text_keys: Keys of a mapping of which exactly one has the text.
        ignored_keys: Further keys that a mapping may have.
        title_in_metadata: Whether a mapping without a title has that of its metadata.
        label: How messages call a single document: of the list's `{name}`, its `{index}` in it
            from 0, and its `{number}` from 1.
        if_empty: The message when there is no document.
    """

    convert: Callable[[object], Document | None] = lambda _: None
    one: str = "a Document"
    many: str = "documents"
    text_keys: tuple[str, ...] = ("text",)
    ignored_keys: frozenset[str] = frozenset()
    title_in_metadata: bool = False
    label: str = "{name}[{index}]"
    if_empty: str = "{name} is an empty list. Leave it out to ask without documents"

    def read(self, items: object, name: str = "documents") -> tuple[Document, ...]:
        """Make documents of all items; their texts and ids are not checked.

        Args:
            items: What was given.
            name: What to call it in messages.

        Raises:
            InvalidInputError: It is no list, there is no document, or one is of another kind.
        """
        # Some frameworks' documents can be iterated over, which yields their fields.
        single = isinstance(items, str | bytes | Mapping) or self._own(items) is not None
        if single or not isinstance(items, Iterable):
            raise InvalidInputError(
                f"{name} must be a list of {self.many}, got {type(items).__name__}. "
                "Put a single one into a list: [document]"
            )
        documents = tuple(
            self._read(item, self.label.format(name=name, index=index, number=index + 1))
            for index, item in enumerate(items)
        )
        if not documents:
            raise InvalidInputError(self.if_empty.format(name=name))
        return documents

    def _own(self, item: object) -> Document | None:
        return item if isinstance(item, Document) else self.convert(item)

    def _read(self, item: object, label: str) -> Document:
        if isinstance(item, str):
            return Document(item)
        if isinstance(item, Mapping):
            return self._from_mapping(item, label)
        if (document := self._own(item)) is not None:
            return document
        raise InvalidInputError(
            f"{label} must be {self.one}, a string or a mapping, got {type(item).__name__}"
        )

    def _from_mapping(self, item: Mapping[Any, Any], label: str) -> Document:
        texts = [key for key in self.text_keys if key in item]
        unknown = item.keys() - {*self.text_keys, "id", "title", "metadata", *self.ignored_keys}
        if len(texts) != 1 or unknown:
            raise InvalidInputError(
                f"{label} must have the key {' or '.join(map(repr, self.text_keys))} and may have "
                f"'id', 'title' and 'metadata', got the keys {', '.join(map(repr, item)) or 'none'}"
            )
        metadata = item.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise InvalidInputError(
                f"the metadata of {label} must be a mapping, got {type(metadata).__name__}"
            )
        title = item.get("title")
        if not title and self.title_in_metadata:
            title = metadata.get("title")
        return Document(item[texts[0]], id=item.get("id"), title=title, metadata=metadata)


_OURS = DocumentReader(
    label="document {number}", if_empty="there is no document to ask about. Give at least one"
)


def prepare_documents(documents: Iterable[Document | str | Mapping[str, Any]]) -> list[Document]:
    """Check documents and give each an id.

    Args:
        documents: `Document`s, plain strings, or mappings with the fields of `Document`.

    Raises:
        InvalidInputError: There is no document, one is unusable, or two share an id.
    """
    prepared = [_checked(item, n) for n, item in enumerate(_OURS.read(documents), start=1)]
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
    """Give documents without id their source as id, if they have one; number repeated ids.

    Retrievers return chunks of one file under one id, or with only the file's name.
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


def _checked(item: Document, number: int) -> Document:
    document = item if item.id is not None else replace(item, id=f"doc-{number}")
    name = f"document {document.id!r}"
    check_text(f"the id of document {number}", document.id)
    check_text(name, document.text)
    if document.title is not None:
        check_text(f"the title of {name}", document.title)
    return document
