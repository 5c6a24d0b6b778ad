"""The dense searcher: which chunks mean something close to the query."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finch_integrations.errors import InvalidInputError
from finch_integrations.retrieval.encoders import Encoder, unit_vectors

# What vectors are stored in: a third decimal of the cosine is exact enough to rank by.
DTYPE = np.float16
_BATCH = 256
_BLOCK = 16_384
_PROBE = "The quick brown fox jumps over the lazy dog."
# Other hardware and batch sizes change a vector far less, other models far more.
_SAME = 0.99


class DenseIndex:
    """Unit vectors, searched exactly by one matrix product.

    Attributes:
        vectors: float16, [C, D]; may be mapped from a file.
        probe: The encoder's vector of a fixed sentence, [D]; shows at the first query whether it is
            still the same encoder.
    """

    def __init__(self, vectors: NDArray[Any], encoder: Encoder, probe: NDArray[np.float32]) -> None:
        self.vectors = vectors
        self.probe = probe
        self._encoder = encoder
        self._checked = False

    @classmethod
    def build(cls, texts: Sequence[str], encoder: Encoder) -> "DenseIndex":
        """Encode texts, at least one."""
        vectors = np.concatenate(list(encode(texts, encoder)))
        return cls(vectors, encoder, probe(encoder))

    @property
    def encoder(self) -> Encoder:
        """What the vectors were made with."""
        return self._encoder

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Cosine of the query's and every text's vector, [C].

        Raises:
            InvalidInputError: The encoder is not the one that the vectors were made with.
        """
        if not self._checked:
            self._check()
        vector = unit_vectors([self._encoder.encode_query(query)], 1, self._encoder.name)[0]
        scores = np.empty(len(self.vectors), dtype=np.float32)
        # By blocks: float16 products are slow, and all vectors in float32 are twice the memory.
        for start in range(0, len(scores), _BLOCK):
            block = self.vectors[start : start + _BLOCK].astype(np.float32)
            scores[start : start + _BLOCK] = block @ vector
        return scores

    def _check(self) -> None:
        now = probe(self._encoder)
        if not same_encoder(now, self.probe):
            raise InvalidInputError(
                f"the encoder {self._encoder.name!r} gives other vectors than the ones in this "
                "index. Search with the encoder it was built with, or build the index again"
            )
        self._checked = True


def encode(texts: Sequence[str], encoder: Encoder) -> Iterator[NDArray[Any]]:
    """Encode texts batch by batch, [batch, D] float16 each."""
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        vectors = encoder.encode_documents(batch)
        yield unit_vectors(vectors, len(batch), encoder.name).astype(DTYPE)


def probe(encoder: Encoder) -> NDArray[np.float32]:
    """The encoder's vector of a fixed sentence, [D]."""
    vector: NDArray[np.float32] = unit_vectors(encoder.encode_documents([_PROBE]), 1, encoder.name)[
        0
    ]
    return vector


def same_encoder(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two probes come from the same encoder."""
    return one.shape == other.shape and float(one @ other) >= _SAME
