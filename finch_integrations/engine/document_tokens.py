"""Documents in a model's tokens, each tokenized separately.

A document's tokens do not depend on what is around it, so that what a model computed from it can be
kept. A prompt's token ids are those of the frame's prefix, of the documents, and of the frame's
suffix.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finch_integrations.engine.tokenization import SpecialTokenGuard, encode
from finch_integrations.types import Document

# Between two documents, and between the last one and the instruction.
SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class DocumentSpan:
    """Where a document is.

    Attributes:
        start: Its first token among the document tokens.
        end: The token after its last one; the separator after it belongs to it.
        text_start: Where character 0 of `Document.text` is in `DocumentTokens.text`; white space at
            its start is left out there, so this can be before the document's first character.
    """

    start: int
    end: int
    text_start: int


@dataclass(frozen=True, slots=True)
class DocumentTokens:
    """All documents of a question, one after another.

    Attributes:
        ids: Token ids.
        spans: Each document's place among the ids.
        text: All documents as one text, as the model reads them.
        offsets: Where each token starts in `text`, in characters.
    """

    ids: tuple[int, ...]
    spans: tuple[DocumentSpan, ...]
    text: str
    offsets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def text_between(self, start: int, end: int) -> str:
        """The text of the tokens from `start` to before `end`."""
        return self.text[self.offset(start) : self.offset(end)]

    def offset(self, token: int) -> int:
        """Where a token starts in `text`; the one after the last starts at its end."""
        return self.offsets[token] if token < len(self.offsets) else len(self.text)

    def token_at(self, character: int) -> int:
        """The first token that starts at or covers a character of `text`."""
        # Several tokens may share one character and then have the same offset.
        token = bisect_left(self.offsets, character)
        return token - 1 if token and self.offset(token) > character else token


def tokenize_documents(tokenizer: Any, documents: Sequence[Document]) -> DocumentTokens:
    """Tokenize documents separately, and join them.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        documents: Checked documents (`prepare_documents`).

    Raises:
        UnsupportedModelError: The tokenizer gives no character offsets.
    """
    guard = SpecialTokenGuard(tokenizer)
    separator = encode(tokenizer, [SEPARATOR], before="a", after="a")
    ids: list[int] = []
    spans: list[DocumentSpan] = []
    offsets: list[int] = []
    texts: list[str] = []
    begin = 0
    for number, document in enumerate(documents):
        if number:
            texts.append(SEPARATOR)
            ids += separator.ids
            offsets += [begin + start for start in separator.starts]
            begin += len(SEPARATOR)
        text, own_start = _document_text(document)
        encoding = encode(tokenizer, guard.split(guard.mark(text)), before=SEPARATOR)
        start = len(ids)
        texts.append(text)
        ids += encoding.ids
        offsets += [begin + start_of for start_of in encoding.starts]
        end = len(ids) + (len(separator) if number < len(documents) - 1 else 0)
        spans.append(DocumentSpan(start, end, begin + own_start))
        begin += len(text)
    return DocumentTokens(tuple(ids), tuple(spans), "".join(texts), tuple(offsets))


def _document_text(document: Document) -> tuple[str, int]:
    """A document as the model reads it, and where character 0 of its text is in that."""
    text = document.text.strip()
    read = f"# {document.title.strip()}\n\n{text}" if document.title else text
    return read, len(read) - len(document.text.rstrip())
