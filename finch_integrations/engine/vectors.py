"""Vectors of texts: their directions show how related texts are. The last ones are kept."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finch_integrations.encoder import Encoder
from finch_integrations.engine.lru import ByteLRU
from finch_integrations.errors import ConfigurationError

_MAX_BYTES = 64 << 20


class Vectors:
    """An encoder that remembers; safe to use from several threads."""

    def __init__(self, encoder: Encoder, max_bytes: int = _MAX_BYTES) -> None:
        """Start empty.

        Args:
            encoder: Makes the vectors.
            max_bytes: Most bytes of vectors to keep.

        Raises:
            ConfigurationError: It is no encoder.
        """
        wanted = ("name", "encode_documents", "encode_query")
        if missing := [name for name in wanted if not hasattr(encoder, name)]:
            raise ConfigurationError(
                f"the encoder must have {', '.join(wanted)}, and this {type(encoder).__name__} has "
                f"no {', '.join(missing)}. Give a SentenceTransformerEncoder, or what "
                "retrieval.encoders.as_encoder makes of a name or of another library's model"
            )
        self.encoder = encoder
        self._lock = threading.Lock()
        self._known: ByteLRU[Tensor] = ByteLRU(max_bytes)

    def of_documents(self, texts: Sequence[str]) -> Tensor:
        """Encode texts to search in, float32, [N, D].

        Raises:
            ConfigurationError: What the encoder returns are not so many vectors.
        """
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        with self._lock:
            found = {key: self._known.use(key) for key in keys}
        new = {key: text for key, text in zip(keys, texts, strict=True) if found[key] is None}
        if new:
            made = self._check(self.encoder.encode_documents(list(new.values())), len(new))
            found |= dict(zip(new, made, strict=True))
            with self._lock:
                for key, vector in zip(new, made, strict=True):
                    nbytes = vector.numel() * vector.element_size()
                    self._known.shrink(nbytes)
                    if nbytes <= self._known.max_bytes:
                        self._known.add(key, vector.clone(), nbytes)
        vectors = [vector for key in keys if (vector := found[key]) is not None]
        if len({len(vector) for vector in vectors}) > 1:
            raise ConfigurationError(
                f"the encoder {self.encoder.name!r} returned vectors of different lengths"
            )
        return torch.stack(vectors)

    def of_question(self, question: str) -> Tensor:
        """Encode a question, float32, [D].

        Raises:
            ConfigurationError: What the encoder returns is no vector.
        """
        return self._check([self.encoder.encode_query(question)], 1)[0]

    def unlike(self, question: int, documents: int) -> ConfigurationError:
        """Say that a question's vector has another length than those of documents."""
        return ConfigurationError(
            f"the encoder {self.encoder.name!r} returned vectors of {documents} numbers for "
            f"documents and of {question} for a question"
        )

    def _check(self, made: Any, count: int) -> Tensor:
        try:
            rows = [torch.as_tensor(row, dtype=torch.float32, device="cpu") for row in made]
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the encoder {self.encoder.name!r} returned {type(made).__name__} for {count} "
                f"texts, not {count} vectors of numbers"
            ) from error
        if len(rows) != count or any(row.dim() != 1 or row.shape != rows[0].shape for row in rows):
            raise ConfigurationError(
                f"the encoder {self.encoder.name!r} must return a vector for each text; of {count} "
                f"texts it returned the shapes {[tuple(row.shape) for row in rows[:3]]}"
            )
        vectors = torch.stack(rows)
        if not vectors.isfinite().all():
            raise ConfigurationError(
                f"the encoder {self.encoder.name!r} returned numbers that are not finite"
            )
        return vectors
