"""The compressed context: what a compression returns and answers start from."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from finch_integrations.engine.cache import KVCache, cache_from_tensors, cache_tensors
from finch_integrations.engine.prompt import Prompt, prompt_from
from finch_integrations.engine.saving import saving, to_json
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import CompressionStats, DocumentShare, Excerpt

_FORMAT = "finch-compressed-context-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedContext:
    """Documents compressed under a question, to answer it, or other questions, any number of times.

    Attributes:
        cache: Prefix and kept document tokens at positions 0, 1, 2, …; never changed.
        prompt: The question that they were compressed under, and what else is around the documents.
        kept: For every layer, the kept positions in the document tokens, in the cache's order,
            [S, K].
        document_shares: Per document, how much of it was kept.
        excerpts: The kept passages, in document order. Empty where everything was kept, and for
            methods that keep single tokens.
        stats: What the compression did.
        fingerprint: Identifies the model the cache belongs to.
    """

    cache: KVCache
    prompt: Prompt
    kept: tuple[Tensor, ...]
    document_shares: tuple[DocumentShare, ...]
    excerpts: tuple[Excerpt, ...]
    stats: CompressionStats
    fingerprint: str

    @property
    def question(self) -> str:
        """The question the documents were compressed under."""
        return self.prompt.question

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt before compression, with the question it was compressed under."""
        return self.stats.prefix_tokens + self.stats.document_tokens + self.stats.suffix_tokens

    @property
    def nbytes(self) -> int:
        """Size of the cache in bytes."""
        return self.stats.kv_bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the context to a safetensors file, atomically.

        It can be loaded by `FinchEngine.load_context` with the same model, in this or another
        process. Of the documents' texts only the excerpts are stored.

        Raises:
            InvalidInputError: The folder does not exist, or variables of the chat template cannot
                be written as JSON.
        """
        tensors = cache_tensors(self.cache)
        # Layers may share one tensor, which the format cannot express.
        tensors |= {f"kept.{number}": kept.clone() for number, kept in enumerate(self.kept)}
        facts = {
            "prompt": asdict(self.prompt),
            "document_shares": [asdict(share) for share in self.document_shares],
            "excerpts": [asdict(excerpt) for excerpt in self.excerpts],
            "stats": asdict(self.stats),
            "fingerprint": self.fingerprint,
        }
        metadata = {"format": _FORMAT, "facts": to_json(facts, "the context")}
        with saving(Path(path), "the context") as draft:
            save_file(tensors, draft, metadata=metadata)


def load_context(
    path: str | os.PathLike[str], *, fingerprint: str, devices: Sequence[torch.device]
) -> CompressedContext:
    """Read a context written by `CompressedContext.save`.

    Args:
        path: The file.
        fingerprint: Of the model it is to be used with.
        devices: Where to put each layer's keys and values.

    Raises:
        InvalidInputError: The file is missing, damaged, of another kind or of another model.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise InvalidInputError(f"{path} is not a compressed context of this version")
            facts = json.loads(metadata["facts"])
            if facts["fingerprint"] != fingerprint:
                raise InvalidInputError(
                    f"{path} was compressed with another model ({facts['fingerprint']}) than the "
                    f"one in use ({fingerprint}). Load that model or compress again"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return CompressedContext(
            cache=cache_from_tensors(tensors, devices),
            prompt=prompt_from(facts["prompt"]),
            kept=tuple(tensors[f"kept.{number}"] for number in range(len(devices))),
            document_shares=tuple(DocumentShare(**share) for share in facts["document_shares"]),
            excerpts=tuple(Excerpt(**excerpt) for excerpt in facts["excerpts"]),
            stats=CompressionStats(**facts["stats"]),
            fingerprint=facts["fingerprint"],
        )
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"cannot read the compressed context {path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the compressed context {path} is damaged: something in it is missing or wrong "
            f"({error!r}). Compress again"
        ) from error
