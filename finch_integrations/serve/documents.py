"""Documents as clients send them."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from finch_integrations.documents import DocumentReader
from finch_integrations.errors import InvalidInputError
from finch_integrations.serve.schemas import DocumentField
from finch_integrations.types import Document

_TEXT = ("text", "content", "contents", "snippet", "doc_text")
_TITLE = ("title", "doc_title")
_READER = DocumentReader(one="an object with a text", text_keys=("text",))


def read_documents(items: Sequence[DocumentField]) -> tuple[Document, ...]:
    """Take texts, objects with a text, and Cohere's `{id, data}`.

    Raises:
        InvalidInputError: There is none, or one cannot be used.
    """
    named = [_named(item, f"documents[{n}]") for n, item in enumerate(items)]
    return _READER.read(named)


def url_of(document: Document) -> str:
    """Where a document is: its address if it has one, else a name, which is never opened."""
    for key in ("url", "source"):
        value = document.metadata.get(key)
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            return value
    return f"urn:document:{quote(document.id or '', safe='')}"


def _named(item: DocumentField, label: str) -> str | dict[str, Any]:
    """Bring the names of an object's fields into ours."""
    if isinstance(item, str):
        return item
    fields = _from_cohere(item, label) if "data" in item else dict(item)
    texts = [key for key in _TEXT if key in fields]
    if len(texts) != 1:
        raise InvalidInputError(
            f"{label} must have its text under one of the keys {', '.join(_TEXT)}, "
            f"got the keys {', '.join(map(repr, fields)) or 'none'}"
        )
    result: dict[str, Any] = {"text": fields.pop(texts[0])}
    for key in _TITLE:
        if fields.get(key) is not None:
            result["title"] = _text(fields.pop(key), key, label)
        fields.pop(key, None)
    if fields.get("id") is not None:
        result["id"] = _text(fields.pop("id"), "id", label)
    fields.pop("id", None)
    metadata = fields.pop("metadata", None) or {}
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"the metadata of {label} must be an object")
    # What else an object has describes it: vLLM's and other clients' documents are flat.
    result["metadata"] = {**fields, **metadata}
    return result


def _from_cohere(item: Mapping[str, Any], label: str) -> dict[str, Any]:
    data = item["data"]
    if unknown := item.keys() - {"id", "data"}:
        raise InvalidInputError(f"{label} has data and also {', '.join(sorted(unknown))}")
    if isinstance(data, str):
        data = {"text": data}
    if not isinstance(data, Mapping) or not data:
        raise InvalidInputError(f"the data of {label} must be a text or an object with fields")
    if not any(key in data for key in _TEXT):
        # Cohere's data may have any fields; all of them are shown.
        data = {"text": "\n".join(f"{name}: {value}" for name, value in data.items())}
    return {**data, "id": item.get("id")}


def _text(value: object, key: str, label: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"the {key} of {label} must be a text, got {type(value).__name__}")
    return value
