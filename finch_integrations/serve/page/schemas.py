"""What the page sends."""

from typing import Annotated

from pydantic import Field

from finch_integrations.serve.schemas import DocumentField
from finch_integrations.serve.strict import Strict


class FileRequest(Strict):
    """A file that was dropped."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    """What it is called; the end says what it is."""
    content: str
    """Its bytes in base64."""


class KeptRequest(Strict):
    """What was asked, and two ways to choose."""

    question: str
    documents: list[DocumentField] | None = None
    answer: str | None = None
    """Shown with links to what it is from."""
    target_size: int = 2048
    """Document tokens to keep."""
    method: str = "likelihood"
    other: str | None = None
    """The other way: a method, a number of tokens, or `hybrid`."""
