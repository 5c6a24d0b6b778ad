"""From text to token ids: with their places, in context, and without the chat's marks."""

import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from finch_integrations.engine.marks import find_marks
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


def encode(tokenizer: Any, pieces: Sequence[str], *, before: str = "", after: str = "") -> Encoding:
    """Tokenize a text as it would be tokenized between two others.

    Many tokenizers treat the start or the end of a text specially: SentencePiece adds a blank at
    the start, GPT-2's splits blank lines unless they are at the end. `before` and `after` are
    tokenized along with the text, and their tokens are left out.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        pieces: The text, cut where no token may cross (see `SpecialTokenGuard`). At an empty piece
            between two others a blank is read that is not in the text.
        before: What comes before the text.
        after: What comes after it.
    """
    last = len(pieces) - 1
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    begin = 0
    for number, piece in enumerate(pieces):
        if not piece and 0 < number < last:
            blank = _encode_between(tokenizer, " ", "", "")
            ids += [id for id, _, _ in blank]
            starts += [begin] * len(blank)
            ends += [begin] * len(blank)
            continue
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
    """Keeps callers' text from writing the chat's marks, so that it cannot end its own turn.

    A token's spelling is cut after its first character, and is read as the characters that it is
    made of. In a mark that is plain text to the tokenizer a blank is read at the cut, too.

    The cuts are marked in the text while the chat template is rendered, which otherwise sees it
    unchanged: some templates parse turns or look for switches in them (`/no_think`).
    """

    def __init__(self, tokenizer: Any) -> None:
        """Find the marks of a tokenizer and its chat template.

        Raises:
            UnsupportedModelError: The tokenizer does not say where its tokens are.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise UnsupportedModelError(
                f"{type(tokenizer).__name__} gives no character offsets; use the model's fast "
                "tokenizer"
            )
        self._tokenizer = tokenizer
        self._marks = find_marks(tokenizer)
        self._cut = f"CUT{secrets.token_hex(8)}"

    def mark(self, text: str, *, trusted: bool = False) -> str:
        """Mark the places where the text must be cut.

        Args:
            text: The text.
            trusted: Whether it may write marks that are no special tokens: those that write system
                text describe the format of tool calls, and an assistant's turns have them.
        """
        marks = self._marks
        folded = text.translate(marks.fold) if marks.fold else text
        tokens = marks.special if trusted else marks.tokens
        # Where to cut, and whether a blank is read there.
        cuts = {start + 1: False for start, _ in tokens.find(folded)}
        if not trusted:
            for start, mark in marks.texts.find(folded):
                # Labels are cut before their colon.
                cuts[start + (len(mark) - 1 if mark[0].isalpha() else 1)] = True
        if marks.disguised:
            forbidden = marks.special_ids if trusted else marks.ids
            while more := self._disguised(text, cuts, forbidden):
                cuts |= dict.fromkeys(more, False)
        starts = [0, *sorted(cuts)]
        pieces = [text[a:b] for a, b in pairwise([*starts, len(text)])]
        return pieces[0] + "".join(
            self._cut * (2 if cuts[start] else 1) + piece
            for start, piece in zip(starts[1:], pieces[1:], strict=True)
        )

    def mark_all(self, data: Any, *, trusted: bool = False) -> Any:
        """Mark all texts in plain data, keys of mappings included."""
        mark_all = partial(self.mark_all, trusted=trusted)
        if isinstance(data, str):
            return self.mark(data, trusted=trusted)
        if isinstance(data, Mapping):
            return {mark_all(str(key)): mark_all(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [mark_all(item) for item in data]
        return data

    def split(self, text: str) -> list[str]:
        """Cut a marked text into the pieces to tokenize one by one, as `encode` takes them."""
        return text.split(self._cut)

    def _disguised(self, text: str, cuts: Mapping[int, bool], forbidden: Set[int]) -> list[int]:
        """Places inside tokens that are still formed because the tokenizer changes the text."""
        found: list[int] = []
        for first, last in pairwise([0, *sorted(cuts), len(text)]):
            encoding = encode(self._tokenizer, [text[first:last]])
            for id, start, end in zip(encoding.ids, encoding.starts, encoding.ends, strict=True):
                if id in forbidden:
                    found += range(first + start + 1, first + end)
        return found
