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


def is_blank(document: Document) -> bool:
    """Whether a document has no text, as a scanned page has none; another type is no text."""
    return isinstance(document.text, str) and not document.text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReader:
    """Takes documents of several kinds: ours, strings, mappings and a framework's own.

    Attributes:
        convert: Makes a document of a framework's own; None of anything else.
        one: What a single document may be, in messages.
        many: What several are called, in messages.
        read_fields: Brings a mapping's keys into those of `Document`, given what to call it.
        label: How messages call a single document: of the list's `{name}`, its `{index}` in it
            from 0, and its `{number}` from 1.
        if_empty: The message when there is no document; None: there need not be any.
        skip_blank: Set blank documents aside, such as scanned pages; not if all are blank.
    """

    convert: Callable[[object], Document | None] = lambda _: None
    one: str = "a Document"
    many: str = "documents"
    read_fields: Callable[[Mapping[Any, Any], str], Mapping[Any, Any]] = lambda item, _: item
    label: str = "{name}[{index}]"
    if_empty: str | None = None
    skip_blank: bool = False

    def read(self, items: object, name: str = "documents") -> tuple[Document, ...]:
        """Make documents of all items; their texts and ids are not checked.

        Args:
            items: What was given.
            name: What to call it in messages.

        Raises:
            InvalidInputError: It is no list, there is no document, all are blank, or one is of
                another kind.
        """
        # Some frameworks' documents can be iterated over, which yields their fields.
        single = isinstance(items, str | bytes | Mapping | Document)
        single = single or self.convert(items) is not None
        if single or not isinstance(items, Iterable):
            raise InvalidInputError(
                f"{name} must be a list of {self.many}, got {type(items).__name__}. "
                "Put a single one into a list: [document]"
            )
        documents = tuple(
            self._read(item, self.label.format(name=name, index=index, number=index + 1))
            for index, item in enumerate(items)
        )
        if not documents and self.if_empty is not None:
            raise InvalidInputError(self.if_empty.format(name=name))
        return self._without_blank(documents, name) if self.skip_blank else documents

    def _without_blank(self, documents: tuple[Document, ...], name: str) -> tuple[Document, ...]:
        written = tuple(document for document in documents if not is_blank(document))
        if documents and not written:
            raise InvalidInputError(
                f"all of {name} are blank ({len(documents)}): scanned pages have no text before it "
                "is recognised (OCR). Give documents with text, or an empty list"
            )
        return written

    def _read(self, item: object, label: str) -> Document:
        if isinstance(item, Document):
            return item
        if isinstance(item, str):
            return Document(item)
        if isinstance(item, Mapping):
            return self._from_mapping(item, label)
        if (document := self.convert(item)) is not None:
            return document
        raise InvalidInputError(
            f"{label} must be {self.one}, a string or a mapping, got {type(item).__name__}"
        )

    def _from_mapping(self, item: Mapping[Any, Any], label: str) -> Document:
        fields = self.read_fields(item, label)
        if "text" not in fields or fields.keys() - {"text", "id", "title", "metadata"}:
            raise InvalidInputError(
                f"{label} must have the key 'text' and may have 'id', 'title' and 'metadata', got "
                f"the keys {', '.join(map(repr, item)) or 'none'}"
            )
        metadata = fields.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise InvalidInputError(
                f"the metadata of {label} must be a mapping, got {type(metadata).__name__}"
            )
        return Document(
            fields["text"], id=fields.get("id"), title=fields.get("title"), metadata=metadata
        )


_TEXT = ("text", "page_content", "content", "contents", "snippet", "doc_text")
_TITLE = ("title", "doc_title")


def read_flat_fields(item: Mapping[Any, Any], label: str) -> dict[str, Any]:
    """Read a mapping as others write documents: Cohere, vLLM, the frameworks' own dumps.

    The text is under one of the usual keys, in the mapping itself or in its `data`; what is not
    known otherwise describes the document and is its metadata.

    Args:
        item: The mapping.
        label: What to call it in messages.

    Raises:
        InvalidInputError: It has no text, or several.
    """
    fields = _from_cohere(item, label) if "data" in item else dict(item)
    texts = [key for key in _TEXT if key in fields]
    if len(texts) != 1:
        raise InvalidInputError(
            f"{label} must have its text under one of the keys {', '.join(_TEXT)}, "
            f"got the keys {', '.join(map(repr, fields)) or 'none'}"
        )
    result: dict[str, Any] = {"text": fields.pop(texts[0])}
    titles = [fields.pop(key, None) for key in _TITLE]
    metadata = fields.pop("metadata", None) or {}
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(
            f"the metadata of {label} must be a mapping, got {type(metadata).__name__}"
        )
    known = metadata.get("title")
    result["title"] = next(filter(None, titles), str(known) if known else None)
    result["id"] = fields.pop("id", None)
    result["metadata"] = {**fields, **metadata}
    return result


def _from_cohere(item: Mapping[Any, Any], label: str) -> dict[Any, Any]:
    data = item["data"]
    if unknown := item.keys() - {"id", "data"}:
        raise InvalidInputError(f"{label} has data and also {', '.join(map(str, unknown))}")
    if isinstance(data, str):
        data = {"text": data}
    if not isinstance(data, Mapping) or not data:
        raise InvalidInputError(f"the data of {label} must be a text or a mapping with fields")
    if not any(key in data for key in _TEXT):
        # Cohere's data may have any fields; all of them are shown.
        data = {"text": "\n".join(f"{name}: {value}" for name, value in data.items())}
    return {**data, **({"id": item["id"]} if item.get("id") is not None else {})}


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
