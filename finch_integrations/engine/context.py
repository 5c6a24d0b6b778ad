"""The compressed context: what a compression returns and answers start from."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from finch_integrations.engine.cache import KVCache, cache_from_tensors, cache_tensors
from finch_integrations.engine.chat import check_messages
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.saving import from_plain, saving, to_json
from finch_integrations.engine.support import ModelSpec
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import CompressionStats, DocumentShare, Excerpt

_FORMAT = "finch-compressed-context-4"


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

    def __repr__(self) -> str:
        return (
            f"CompressedContext({self.question!r:.60}, {len(self.document_shares)} documents, "
            f"{self.stats.kept_tokens:,} of {self.stats.document_tokens:,} tokens, "
            f"{self.nbytes / 1e6:,.1f} MB)"
        )

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
        facts: dict[str, Any] = {
            "prompt": asdict(self.prompt),
            "document_shares": [asdict(share) for share in self.document_shares],
            "excerpts": [asdict(excerpt) for excerpt in self.excerpts],
            "stats": asdict(self.stats),
            "fingerprint": self.fingerprint,
        }
        text = to_json(facts, "the context")
        metadata = {"format": _FORMAT, "facts": text, "sha256": _digest(text, tensors)}
        with saving(Path(path), "the context") as draft:
            save_file(tensors, draft, metadata=metadata)


def load_context(
    path: str | os.PathLike[str],
    *,
    fingerprint: str,
    spec: ModelSpec,
    devices: Sequence[torch.device],
) -> CompressedContext:
    """Read a context written by `CompressedContext.save`.

    Args:
        path: The file.
        fingerprint: Of the model it is to be used with.
        spec: That model's structure.
        devices: Where to put each layer's keys and values.

    Raises:
        InvalidInputError: The file is missing, damaged, of another kind or of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"cannot read the compressed context {path}: there is no such file")
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
        if metadata.get("sha256") != _digest(metadata["facts"], tensors):
            raise ValueError("its checksum is another one")
        read = {name: from_plain(kind, facts[name], name) for name, kind in _FACTS.items()}
        _check_history(read["prompt"])
        _check_tensors(tensors, read["stats"], spec, len(devices))
        return CompressedContext(
            cache=cache_from_tensors(tensors, devices),
            kept=tuple(tensors[f"kept.{number}"] for number in range(len(devices))),
            **read,
        )
    except InvalidInputError:
        raise
    except OSError as error:
        raise InvalidInputError(f"cannot read the compressed context {path}: {error}") from error
    except Exception as error:  # forged files fail in many ways
        raise InvalidInputError(
            f"the compressed context {path} is damaged: something in it is missing or wrong "
            f"({error!r}). Compress again"
        ) from error


_FACTS: dict[str, Any] = {
    "prompt": Prompt,
    "document_shares": tuple[DocumentShare, ...],
    "excerpts": tuple[Excerpt, ...],
    "stats": CompressionStats,
    "fingerprint": str,
}


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_history(prompt: Prompt) -> None:
    try:
        check_messages(prompt.history, "the history", ("user", "assistant", "tool"))
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


def _check_tensors(
    tensors: Mapping[str, Tensor], stats: CompressionStats, spec: ModelSpec, layers: int
) -> None:
    """Make sure that they are a cache of this model, and the places that it was made of."""
    length, nbytes = stats.prefix_tokens + stats.kept_tokens, 0
    for layer in range(layers):
        keys, values, kept = (tensors[f"{name}.{layer}"] for name in ("keys", "values", "kept"))
        if keys.shape != values.shape or keys.dtype != values.dtype or not keys.is_floating_point():
            raise ValueError(f"keys and values of layer {layer} do not belong together")
        if keys.dim() != 4 or tuple(keys.shape[:3]) != (1, spec.num_kv_heads, length):
            raise ValueError(f"layer {layer} has the shape {tuple(keys.shape)}")
        if not (torch.isfinite(keys).all() and torch.isfinite(values).all()):
            raise ValueError(f"layer {layer} has numbers that are not finite")
        if kept.dtype != torch.int64 or kept.dim() != 2 or kept.shape[1] != stats.kept_tokens:
            raise ValueError(f"the places of layer {layer} have the shape {tuple(kept.shape)}")
        if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < stats.document_tokens:
            raise ValueError(f"the places of layer {layer} are outside of the documents")
        nbytes += keys.nbytes + values.nbytes
    if nbytes != length * spec.kv_bytes_per_token:
        raise ValueError(f"its cache has {nbytes} bytes")
