"""The selection: what was chosen from documents under a question. Plain data without a KV cache."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from finch_integrations.engine.chat import check_messages
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.saving import from_plain, saving, to_json
from finch_integrations.errors import InvalidInputError
from finch_integrations.files import read_bytes
from finch_integrations.types import DocumentShare, Excerpt, SelectionStats

_FORMAT = "finch-selection-3"
_MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Passages chosen from documents, for this model to encode or for any other to read.

    Attributes:
        prompt: The question and what else is around the documents.
        token_ids: Ids of the kept tokens, in the order in which they are encoded: document order,
            but the best passages last.
        positions: Where each of them is in the document tokens.
        excerpts: The kept passages as text with their places and scores, in document order; a
            document that is kept whole is one excerpt.
        document_shares: Per document, how much of it was kept.
        stats: What the choice cost.
        vocabulary: Identifies the tokenizer that made the ids.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    excerpts: tuple[Excerpt, ...]
    document_shares: tuple[DocumentShare, ...]
    stats: SelectionStats
    vocabulary: str

    @property
    def question(self) -> str:
        """The question it was chosen under."""
        return self.prompt.question

    @property
    def complete(self) -> bool:
        """Whether everything was kept."""
        return len(self.token_ids) == self.stats.document_tokens

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the selection to a file, atomically; of the texts only the excerpts.

        It has two lines of JSON: the format and a checksum, and the selection.

        Raises:
            InvalidInputError: The folder does not exist, or variables of the chat template cannot
                be written as JSON.
        """
        text = to_json(asdict(self), "the selection")
        header = json.dumps({"format": _FORMAT, "sha256": _digest(text.encode())})
        with saving(Path(path), "the selection") as draft:
            draft.write_text(f"{header}\n{text}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a selection written by `save`.

        Raises:
            InvalidInputError: The file is missing, damaged or of another kind.
        """
        path = Path(path)
        try:
            header, _, text = read_bytes(path, _MAX_BYTES).partition(b"\n")
            facts = json.loads(header)
            known = isinstance(facts, dict) and facts.get("format") == _FORMAT
        except InvalidInputError as error:
            raise InvalidInputError(f"cannot read the selection {path}: it {error}") from error
        except (ValueError, RecursionError):
            known = False
        if not known:
            raise InvalidInputError(f"{path} is not a selection of this version")
        try:
            if facts.get("sha256") != _digest(text.removesuffix(b"\n")):
                raise ValueError("its checksum is another one")
            selection: Self = from_plain(cls, json.loads(text))
            if len(selection.token_ids) != len(selection.positions):
                raise ValueError("token ids and positions do not belong together")
            check_messages(selection.prompt.history, "the history", ("user", "assistant", "tool"))
        except (ValueError, RecursionError, InvalidInputError) as error:
            raise InvalidInputError(
                f"the selection {path} is damaged: something in it is missing or wrong "
                f"({error}). Select again"
            ) from error
        return selection


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
