"""From text to token ids: with their places, in context, and without special tokens."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finch_integrations.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tokenized text.

    Attributes:
        ids: Token ids.
        starts: Where each token starts in the text, in characters.
        ends: Where it ends.
    """

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


def check_offsets(tokenizer: Any) -> None:
    """Check that a tokenizer says where its tokens are.

    Raises:
        UnsupportedModelError: It does not.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            f"{type(tokenizer).__name__} gives no character offsets; use the model's fast tokenizer"
        )


def encode(tokenizer: Any, pieces: Sequence[str], *, before: str = "", after: str = "") -> Encoding:
    """Tokenize a text as it would be tokenized between two others.

    Many tokenizers treat the start or the end of a text specially: SentencePiece adds a blank at
    the start, GPT-2's splits blank lines unless they are at the end. `before` and `after` are
    tokenized along with the text, and their tokens are left out.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        pieces: The text, cut where no token may cross (see `SpecialTokenGuard`).
        before: What comes before the text.
        after: What comes after it.
    """
    last = len(pieces) - 1
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    begin = 0
    for number, piece in enumerate(pieces):
        around = (before if number == 0 else "", after if number == last else "")
        for id, start, end in _encode_between(tokenizer, piece, *around):
            ids.append(id)
            starts.append(begin + start)
            ends.append(begin + end)
        begin += len(piece)
    return Encoding(tuple(ids), tuple(starts), tuple(ends))


def _encode_between(
    tokenizer: Any, text: str, before: str, after: str
) -> list[tuple[int, int, int]]:
    first, last = len(before), len(before) + len(text)
    found = tokenizer(
        before + text + after,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    tokens = list(zip(found["input_ids"], found["offset_mapping"], strict=True))
    inside = [(id, s - first, e - first) for id, (s, e) in tokens if s >= first and e <= last]
    if not (before or after):
        return inside
    # Only the neighbours' tokens may be left out: no token may cross a border, nor may a
    # blank have gone to a neighbour (the offsets of GPT-2's tokenizers leave it out).
    outside = sum(e <= first or s >= last for _, (s, e) in tokens)
    reached = inside[-1][2] if inside else 0
    if len(inside) + outside != len(tokens) or reached < len(text):
        return _encode_between(tokenizer, text, "", "")
    return inside


class SpecialTokenGuard:
    """Keeps callers' text from forming special tokens, so that it cannot end its own turn.

    The spelling of a special token is cut after its first character. Marks keep the place of the
    cuts while the chat template is rendered, which otherwise sees the text unchanged: some
    templates parse turns (`</think>`) or look for switches in them (`/no_think`).
    """

    def __init__(self, tokenizer: Any) -> None:
        spellings = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        spellings = sorted((s for s in spellings if len(s) > 1), key=len, reverse=True)
        never = "(?!)"
        self._spelling = re.compile("|".join(map(re.escape, spellings)) or never)
        self._mark = f"CUT{secrets.token_hex(8)}"

    def mark(self, text: str) -> str:
        """Mark the places where the text must be cut."""
        return self._spelling.sub(lambda match: match[0][0] + self._mark + match[0][1:], text)

    def mark_all(self, data: Any) -> Any:
        """Mark all texts in plain data, keys of mappings included."""
        if isinstance(data, str):
            return self.mark(data)
        if isinstance(data, Mapping):
            return {self.mark(str(key)): self.mark_all(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.mark_all(item) for item in data]
        return data

    def split(self, text: str) -> list[str]:
        """Cut a marked text into the pieces to tokenize one by one."""
        return text.split(self._mark)
