"""What an embedding model must be able to do, for retrieval and for choosing passages."""

from collections.abc import Sequence
from typing import Any, Protocol


class Encoder(Protocol):
    """Turns texts into vectors whose directions show how related they are.

    Attributes:
        name: Distinguishes encoders with different vectors.
    """

    name: str

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Encode texts to search in, [N, D]."""
        ...

    def encode_query(self, query: str) -> Any:
        """Encode a query, [D]."""
        ...


def name_of(encoder: Any) -> str | None:
    """The name of an embedding model that is given by it or as an object; of none: None."""
    if isinstance(encoder, str | None):
        return encoder
    return str(getattr(encoder, "name", type(encoder).__name__))
