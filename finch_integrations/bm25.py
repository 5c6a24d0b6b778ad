"""Which texts share a query's words."""

import json
import math
import sys
import threading
from array import array
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from finch_integrations.words import words

_WORDLESS = "wordless.json"
# What a saved index may consist of.
FILES = (
    _WORDLESS,
    "data.csc.index.npy",
    "indices.csc.index.npy",
    "indptr.csc.index.npy",
    "nonoccurrence_array.index.npy",
    "params.index.json",
    "vocab.index.json",
)
_importing = threading.Lock()

# Texts as numbers, [first, end).
Groups = Sequence[tuple[int, int]]


class BM25Index:
    """Texts indexed by their words: BM25 as Lucene computes it.

    score = Σ over the query's distinct words w of
    ln(1 + (N − n + ½) / (n + ½)) · f / (f + k1 · (1 − b + b · |text| / mean |text|)),
    where n of the N texts contain w, and the text contains it f times.
    """

    def __init__(self, index: Any, size: int) -> None:
        """Wrap a bm25s index; None if no text has a word."""
        self._index = index
        self._size = size

    @classmethod
    def build(cls, texts: Iterable[str], *, k1: float = 1.5, b: float = 0.75) -> Self:
        """Index texts; one without words is never found.

        Args:
            texts: Read once.
            k1: How slowly repeated words stop adding to the score, 0 or more.
            b: How much the score of long texts is reduced, 0 to 1.
        """
        return cls._index_words(*_number_words(texts), k1=k1, b=b)

    @classmethod
    def build_many(cls, texts: Iterable[str], groups: Iterable[Groups]) -> list[Self]:
        """Index the same texts in several ways, each joined to longer ones; they are split once.

        Args:
            texts: Read once.
            groups: For each index, which texts are joined to one: [first, end).
        """
        ids, vocabulary = _number_words(texts)
        return [
            cls._index_words([_join(ids[first:end]) for first, end in joined], vocabulary)
            for joined in groups
        ]

    @classmethod
    def _index_words(
        cls,
        ids: Sequence["array[int]"],
        vocabulary: dict[str, int],
        *,
        k1: float = 1.5,
        b: float = 0.75,
    ) -> Self:
        if not any(ids):
            return cls(None, len(ids))
        index = _import_bm25s().BM25(method="lucene", k1=k1, b=b)
        index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index, len(ids))

    def __len__(self) -> int:
        return self._size

    def scores(self, query: str) -> NDArray[np.float32]:
        """Score every text; 0 where it shares no word with the query. Shape [number of texts]."""
        wanted = [word for word in dict.fromkeys(words(query)) if self._knows(word)]
        if not wanted:
            return np.zeros(self._size, dtype=np.float32)
        scores: NDArray[np.float32] = self._index.get_scores(wanted)
        return scores

    def query_coverage(self, query: str) -> NDArray[np.float64]:
        """Return which share of the query every text contains, 0 to 1. Shape [number of texts].

        Each of the query's distinct words weighs ln(1 + (N − n + ½) / (n + ½)), as in the score,
        however often a text contains it; a word that no text contains weighs most.
        """
        shares, total = np.zeros(self._size), 0.0
        for word in dict.fromkeys(words(query)):
            weight = self.weight(word)
            shares[self.holding(word)] += weight
            total += weight
        return shares / total if total else shares

    def weight(self, word: str) -> float:
        """ln(1 + (N − n + ½) / (n + ½)), where n of the N texts contain the word."""
        holders = len(self.holding(word))
        return math.log1p((self._size - holders + 0.5) / (holders + 0.5))

    def holding(self, word: str) -> NDArray[np.integer[Any]]:
        """Rows of the texts that contain a word."""
        if not self._knows(word):
            return np.empty(0, dtype=np.int64)
        columns, column = self._index.scores, self._index.vocab_dict[word]
        start, end = columns["indptr"][column : column + 2]
        rows: NDArray[np.integer[Any]] = columns["indices"][start:end]
        return rows

    def save(self, folder: Path) -> None:
        """Write the index into its own folder."""
        if self._index is None:
            folder.mkdir(parents=True)
            (folder / _WORDLESS).write_text(json.dumps(self._size), encoding="utf-8")
        else:
            self._index.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open a saved index; its arrays stay on disk until they are needed.

        Raises:
            ValueError: Its parts do not belong together. Damaged files raise other errors, too.
        """
        if (folder / _WORDLESS).is_file():
            size = json.loads((folder / _WORDLESS).read_text(encoding="utf-8"))
            if type(size) is not int or size < 0:
                raise ValueError(f"{_WORDLESS} has no number of texts")
            return cls(None, size)
        index = _import_bm25s().BM25.load(folder, mmap=True, show_progress=False)
        _check(index)
        return cls(index, index.scores["num_docs"])

    def _knows(self, word: str) -> bool:
        return self._index is not None and word in self._index.vocab_dict


def _number_words(texts: Iterable[str]) -> tuple[list["array[int]"], dict[str, int]]:
    """Each text's words as numbers, and the number of each word."""
    vocabulary: dict[str, int] = {}
    # Numbers in arrays: a hundred thousand texts as lists of strings would fill gigabytes.
    ids = [
        array("i", [vocabulary.setdefault(word, len(vocabulary)) for word in words(text)])
        for text in texts
    ]
    return ids, vocabulary


def _join(parts: Sequence["array[int]"]) -> "array[int]":
    joined = array("i")
    for part in parts:
        joined.extend(part)
    return joined


def _check(index: Any) -> None:
    """Make sure that every number in a loaded index points into it."""
    size, words = index.scores["num_docs"], index.vocab_dict
    scores, rows, columns = (index.scores[name] for name in ("data", "indices", "indptr"))
    if type(size) is not int or size < 1 or len(scores) != len(rows):
        raise ValueError("the index of words has parts of different lengths")
    if columns[0] != 0 or columns[-1] != len(rows) or (np.diff(columns) < 0).any():
        raise ValueError("the index of words has no ascending columns")
    if len(rows) and not 0 <= rows.min() <= rows.max() < size:
        raise ValueError("the index of words names texts that do not exist")
    if not all(type(n) is int and 0 <= n < len(columns) - 1 for n in words.values()):
        raise ValueError("the index of words names words that do not exist")
    if not np.isfinite(scores).all():
        raise ValueError("the index of words has numbers that are not finite")


def _import_bm25s() -> Any:
    """Import bm25s when it is first needed: that takes a fifth of a second.

    JAX is hidden from it during the import: bm25s runs JAX once if it finds it, and on a GPU that
    reserves three quarters of the memory that the model needs. One thread at a time: a second one
    would get a half-imported module, or would restore the stand-in instead of JAX.
    """
    with _importing:
        if "bm25s" in sys.modules:
            return import_module("bm25s")  # waits if another thread is importing it
        absent = object()
        hidden = {name: sys.modules.get(name, absent) for name in ("jax", "jax.lax")}
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
        try:
            return import_module("bm25s")
        finally:
            for name, module in hidden.items():
                if module is absent:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module  # type: ignore[assignment]
