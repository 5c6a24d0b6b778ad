"""Where texts hold documents, in characters."""

from collections.abc import Iterable
from dataclasses import dataclass

from finch_integrations.types import Document


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a text that is a document, `text[start:end]`.

    Attributes:
        start: Its first character.
        end: After its last character.
        document: What is written there; its text may be written with escapes.
    """

    start: int
    end: int
    document: Document


@dataclass(frozen=True, slots=True)
class Cut:
    """What leaves a text because of its documents, `text[start:end]`.

    Attributes:
        start: Its first character.
        end: After its last character.
        places: The documents; the rest are their labels, separators and wrappers.
    """

    start: int
    end: int
    places: tuple[Place, ...]


def strip_place(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave white space at both ends out of a stretch of a text."""
    inside = text[start:end]
    first = start + len(inside) - len(inside.lstrip())
    return first, max(first, start + len(inside.rstrip()))


def documents_of(places: Iterable[Place]) -> tuple[Document, ...]:
    """The documents of places in their order; one that is shown twice counts once."""
    return tuple({id(place.document): place.document for place in places}.values())
