"""The selection: what was chosen from documents under a question. Plain data without a KV cache."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from finch_integrations.engine.prompt import Prompt, prompt_from
from finch_integrations.engine.saving import saving, to_json
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import DocumentShare, Excerpt, SelectionStats

_FORMAT = "finch-selection-1"


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
        """Write the selection to a JSON file, atomically; of the texts only the excerpts.

        Raises:
            InvalidInputError: The folder does not exist, or variables of the chat template cannot
                be written as JSON.
        """
        text = to_json({"format": _FORMAT, **asdict(self)}, "the selection")
        with saving(Path(path), "the selection") as draft:
            draft.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a selection written by `save`.

        Raises:
            InvalidInputError: The file is missing, damaged or of another kind.
        """
        path = Path(path)
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"cannot read the selection {path}: {error}") from error
        if not isinstance(facts, dict) or facts.pop("format", None) != _FORMAT:
            raise InvalidInputError(f"{path} is not a selection of this version")
        try:
            return cls(**_parsed(facts))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the selection {path} is damaged: something in it is missing or wrong "
                f"({error!r}). Select again"
            ) from error


def _parsed(facts: dict[str, Any]) -> dict[str, Any]:
    ids, positions = facts["token_ids"], facts["positions"]
    if len(ids) != len(positions) or not all(type(n) is int and n >= 0 for n in (*ids, *positions)):
        raise ValueError("token ids and positions do not belong together")
    return {
        **facts,
        "prompt": prompt_from(facts["prompt"]),
        "token_ids": tuple(ids),
        "positions": tuple(positions),
        "excerpts": tuple(Excerpt(**excerpt) for excerpt in facts["excerpts"]),
        "document_shares": tuple(DocumentShare(**share) for share in facts["document_shares"]),
        "stats": SelectionStats(**facts["stats"]),
    }
