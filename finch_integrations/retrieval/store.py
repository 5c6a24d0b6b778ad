"""An index's data: written once, memory-mapped when read.

- documents.jsonl: one document per line
- offsets.npy: where each line starts, and the file's end; [documents + 1]
- spans.npy: the chunks, see `Collection`; [C, 3]
- sources.json: what the documents were made of
- bm25/: the BM25 index
- vectors.npy: unit vectors, float16; [C, D]
- probe.npy: the encoder's vector of a fixed sentence; [D]

`folder.py` knows where they are and how they replace older ones.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from finch_integrations.bm25 import FILES as BM25_FILES
from finch_integrations.bm25 import BM25Index
from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError
from finch_integrations.retrieval.collection import Collection
from finch_integrations.retrieval.encoders import Encoder, SentenceTransformerEncoder
from finch_integrations.retrieval.folder import check_files, damaged, new_data, read_manifest
from finch_integrations.types import Document

_FILES = (
    "documents.jsonl",
    "offsets.npy",
    "spans.npy",
    "sources.json",
    *(f"bm25/{name}" for name in BM25_FILES),
    "vectors.npy",
    "probe.npy",
)
# Documents kept in memory while results are made; each may be a whole book.
_RECENT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """What an index was built with; chunks and vectors of other settings do not fit it.

    Attributes:
        chunk_size: Upper limit of a chunk's characters; None: every document is one chunk.
        encoder: Name of the embedding model; None: words only.
        encoder_by_name: Whether the name is enough to load it.
    """

    chunk_size: int | None
    encoder: str | None
    encoder_by_name: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What an index's documents were made of.

    Attributes:
        digests: Per source a hash of its content, in order.
        skipped: Sources that gave no document, and why.
    """

    digests: Mapping[str, str]
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIndex:
    """An index that has been opened.

    Attributes:
        settings: What it was built with.
        sources: What its documents were made of.
        collection: Documents and chunks.
        bm25: The index of words.
        vectors: Unit vectors, [C, D]; None: words only.
        probe: The encoder's vector of a fixed sentence, [D]; None: words only.
    """

    settings: IndexSettings
    sources: Sources
    collection: Collection
    bm25: BM25Index
    vectors: NDArray[Any] | None
    probe: NDArray[np.float32] | None


class StoredDocuments(Sequence[Document]):
    """Documents in a file, read one by one when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        with (folder / "documents.jsonl").open("rb") as file:
            # An empty file cannot be mapped; an index has at least one document.
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offsets = self._offsets
        if offsets.ndim != 1 or offsets.dtype != np.int64 or (np.diff(offsets) <= 0).any():
            raise ValueError("offsets.npy has no ascending places")
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(self._lines):
            raise ValueError("documents.jsonl has another length than it was written with")
        self._read = lru_cache(maxsize=_RECENT)(self._parse)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle has the documents themselves: it may be opened where the folder is not."""
        return tuple, (tuple(self),)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, number: int) -> Document: ...

    @overload
    def __getitem__(self, number: slice) -> list[Document]: ...

    def __getitem__(self, number: int | slice) -> Document | list[Document]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._read(number % len(self))

    def _parse(self, number: int) -> Document:
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        try:
            document = Document(**json.loads(self._lines[start:end]))
            check_text("its text", document.text)
        except Exception as error:  # forged files fail in many ways
            raise InvalidInputError(
                f"document {number} of the index is damaged ({error}). Build it again"
            ) from error
        return document


class DocumentWriter:
    """Writes documents and their chunks' places into a new index's folder."""

    def __init__(self, folder: Path, chunk_size: int | None) -> None:
        self._folder = folder
        self._chunk_size = chunk_size
        self._offsets = [0]
        self._spans: list[tuple[int, int, int]] = []
        self._file = (folder / "documents.jsonl").open("wb")

    def add(self, document: Document, spans: Iterable[tuple[int, int]]) -> None:
        """Append a document with its chunks, [start, end) in characters.

        Raises:
            InvalidInputError: Its metadata cannot be written as JSON.
        """
        content = {name: getattr(document, name) for name in ("text", "id", "title")}
        content["metadata"] = dict(document.metadata)
        if not all(isinstance(key, str) for key in content["metadata"]):
            raise InvalidInputError(
                f"the metadata of document {document.id!r} has keys that are no strings, which "
                "an index cannot hold. Turn them into strings"
            )
        try:
            line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the metadata of document {document.id!r} cannot be saved ({error}). "
                "Keep to strings, numbers, lists and mappings"
            ) from error
        self._file.write(line)
        number = len(self._offsets) - 1
        self._offsets.append(self._offsets[-1] + len(line))
        self._spans += [(number, start, end) for start, end in spans]

    def finish(self) -> Collection:
        """Complete the files and open them."""
        self._file.close()
        np.save(self._folder / "offsets.npy", np.array(self._offsets, dtype=np.int64))
        spans = np.array(self._spans, dtype=np.int64).reshape(-1, 3)
        np.save(self._folder / "spans.npy", spans)
        return _read_collection(self._folder, self._chunk_size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def new_index(path: Path, settings: IndexSettings) -> Iterator[Path]:
    """Make an index, or replace one, when the block ends without an error: see `new_data`.

    Args:
        path: The index's folder; it and its parents are made.
        settings: What it is built with.

    Yields:
        A folder for the data files.

    Raises:
        InvalidInputError: The folder holds other files, or another build of the index is running.
    """
    with new_data(path, _FILES, {"settings": asdict(settings)}) as data:
        yield data


def make_settings(encoder: Encoder | None, chunk_size: int | None) -> IndexSettings:
    """The settings that show whether an index fits an encoder and a chunk size."""
    return IndexSettings(
        chunk_size=chunk_size,
        encoder=None if encoder is None else encoder.name,
        encoder_by_name=isinstance(encoder, SentenceTransformerEncoder),
    )


def digest_of(document: Document) -> str:
    """Hash a document's content."""
    # Keys inside of the metadata may be of several kinds, which have no order.
    metadata = sorted(document.metadata.items(), key=lambda item: str(item[0]))
    content = json.dumps([document.text, document.title, metadata], default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def write_sources(folder: Path, sources: Sources) -> None:
    """Write what the documents were made of."""
    content = {"digests": dict(sources.digests), "skipped": dict(sources.skipped)}
    (folder / "sources.json").write_text(json.dumps(content), encoding="utf-8")


def write_vectors(folder: Path, vectors: NDArray[Any], probe: NDArray[np.float32]) -> None:
    """Write all vectors at once."""
    np.save(folder / "vectors.npy", vectors, allow_pickle=False)
    np.save(folder / "probe.npy", probe, allow_pickle=False)


def read_index(path: Path) -> StoredIndex:
    """Open an index; documents, words and vectors stay on disk until they are needed.

    Raises:
        InvalidInputError: There is none, it is damaged, or of another version.
    """
    manifest = read_manifest(path)
    while True:
        try:
            return _read_data(*manifest)
        except Exception as error:  # damaged and forged files fail in many ways
            before, manifest = manifest, read_manifest(path)
            if manifest == before:  # else a builder has replaced this index by a new one
                raise damaged(path, error) from error


def _read_data(data: Path, manifest: Mapping[str, Any]) -> StoredIndex:
    check_files(data, manifest)
    settings = IndexSettings(**manifest["settings"])
    content = json.loads((data / "sources.json").read_text(encoding="utf-8"))
    sources = Sources(digests=content["digests"], skipped=content["skipped"])
    ids = [id for id in sources.digests if id not in sources.skipped]
    collection = _read_collection(data, settings.chunk_size, ids)
    bm25 = BM25Index.load(data / "bm25")
    vectors: NDArray[Any] | None = None
    probe: NDArray[np.float32] | None = None
    if settings.encoder is not None:
        vectors = np.load(data / "vectors.npy", mmap_mode="r", allow_pickle=False)
        probe = np.load(data / "probe.npy", allow_pickle=False)
        _check_vectors(vectors, probe)
    if len(ids) != len(collection.documents):
        raise ValueError(f"it has {len(collection.documents)} documents of {len(ids)} sources")
    lengths = {len(collection), len(bm25), len(collection if vectors is None else vectors)}
    if len(lengths) > 1:
        raise ValueError(f"its parts have different lengths: {sorted(lengths)}")
    return StoredIndex(
        settings=settings,
        sources=sources,
        collection=collection,
        bm25=bm25,
        vectors=vectors,
        probe=probe,
    )


def _read_collection(
    folder: Path, chunk_size: int | None, ids: Sequence[str] | None = None
) -> Collection:
    spans = np.load(folder / "spans.npy", mmap_mode="r", allow_pickle=False)
    documents = StoredDocuments(folder)
    if spans.ndim != 2 or spans.shape[1] != 3 or spans.dtype != np.int64:
        raise ValueError(f"spans.npy has the shape {spans.shape}")
    numbers, starts, ends = spans.T
    inside = (numbers >= 0) & (numbers < len(documents)) & (starts >= 0) & (starts <= ends)
    if not inside.all() or (np.diff(numbers) < 0).any():
        raise ValueError("spans.npy has places outside of the documents")
    return Collection(documents, spans, chunk_size, ids)


def _check_vectors(vectors: Any, probe: Any) -> None:
    if vectors.ndim != 2 or probe.shape != vectors.shape[1:]:
        raise ValueError(f"vectors.npy has the shape {vectors.shape}")
    if not (np.isfinite(vectors).all() and np.isfinite(probe).all()):
        raise ValueError("vectors.npy has numbers that are not finite")
