"""Building an index on disk, reading and encoding only what has changed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finch_integrations.bm25 import BM25Index
from finch_integrations.errors import InvalidInputError
from finch_integrations.retrieval import folder, store
from finch_integrations.retrieval.chunking import split_text
from finch_integrations.retrieval.collection import Collection
from finch_integrations.retrieval.dense import DTYPE, encode, probe, same_encoder
from finch_integrations.retrieval.encoders import Encoder, as_encoder, is_embedded
from finch_integrations.retrieval.hybrid import CHUNK_SIZE, check_chunk_size
from finch_integrations.types import Document


@dataclass(frozen=True, slots=True)
class Source:
    """A document that is read only if it has changed.

    Attributes:
        id: The document's id.
        digest: A hash of its content.
        read: Makes the document; raises InvalidInputError if it cannot be used.
    """

    id: str
    digest: str
    read: Callable[[], Document]


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far a running build is.

    Attributes:
        step: `read` counts documents, `words` and `encode` count chunks.
        done: How many are done.
        total: How many there are.
    """

    step: Literal["read", "words", "encode"]
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a build did.

    Attributes:
        documents: Documents in the index.
        chunks: Chunks in the index.
        added: Sources that are new.
        changed: Sources with another content than before.
        removed: Sources that are gone.
        unchanged: Sources that were not read again.
        encoded: Chunks that were encoded.
        skipped: Sources that gave no document, and why.
        rebuilt: Why an existing index could not be reused; None: it could, or there was none.
        seconds: Wall-clock time.
    """

    documents: int
    chunks: int
    added: int
    changed: int
    removed: int
    unchanged: int
    encoded: int
    skipped: dict[str, str]
    rebuilt: str | None
    seconds: float


def build_index(
    path: str | Path,
    sources: Sequence[Source],
    *,
    encoder: Any = None,
    chunk_size: int = CHUNK_SIZE,
    progress: Callable[[IndexProgress], None] = lambda _: None,
) -> IndexReport:
    """Build an index, or bring one up to date.

    Sources whose digest is the same as in the index at `path` are neither read nor encoded
    again; if the encoder gives other vectors than it did, all are encoded. If the build fails or
    is interrupted, that index stays as it is.

    Args:
        path: The index's folder.
        sources: What to index, in order; their ids differ.
        encoder: As for `HybridRetriever.from_documents`.
        chunk_size: Upper limit of a chunk's characters.
        progress: Called while the build runs.

    Raises:
        InvalidInputError: Not one document could be read, the folder holds other files, or
            another process builds this index.
        ConfigurationError: Encoder or chunk size are unusable.
        ModelLoadError: The encoder cannot be loaded.
    """
    started = time.perf_counter()
    path = Path(path)
    check_chunk_size(chunk_size)
    model = None if encoder is None else as_encoder(encoder)
    settings = store.make_settings(model, chunk_size)
    folder.check_target(path)
    digests = {source.id: source.digest for source in sources}
    if len(digests) < len(sources):
        raise InvalidInputError("two sources have the same id. Ids must differ")
    old, rebuilt = _previous(path, settings)
    before = {} if old is None else dict(old.sources.digests)
    same = {id for id, digest in digests.items() if before.get(id) == digest}
    unchanged = old is not None and list(before.items()) == list(digests.items())
    # Loading a model takes seconds; of the embedded one it is known that it is the same.
    mark = None if model is None or (unchanged and is_embedded(model)) else probe(model)
    vectors = _usable_vectors(old, mark)
    encoded_before = model is None or mark is None or vectors is not None
    if old is not None and unchanged and encoded_before:
        collection, skipped, encoded = old.collection, dict(old.sources.skipped), 0
        folder.tidy(path)
    else:
        with store.new_index(path, settings) as data:
            collection, skipped, rows = _write_documents(
                data, sources, same, old, chunk_size, progress
            )
            store.write_sources(data, store.Sources(digests=digests, skipped=skipped))
            texts = _counted(collection, "words", progress)
            BM25Index.build(texts).save(data / "bm25")
            encoded = 0
            if model is not None and mark is not None:
                encoded = _write_vectors(data, collection, rows, vectors, model, mark, progress)
    return IndexReport(
        documents=len(collection.documents),
        chunks=len(collection),
        added=len(digests.keys() - before.keys()),
        changed=len((digests.keys() & before.keys()) - same),
        removed=len(before.keys() - digests.keys()),
        unchanged=len(same),
        encoded=encoded,
        skipped=skipped,
        rebuilt=rebuilt,
        seconds=time.perf_counter() - started,
    )


def _previous(
    path: Path, settings: store.IndexSettings
) -> tuple[store.StoredIndex | None, str | None]:
    """The existing index, if it can be reused; else why not."""
    if not (path / folder.MANIFEST).exists():
        return None, None  # a build that was killed may have left data
    try:
        old = store.read_index(path)
    except InvalidInputError as error:
        return None, str(error)
    if old.settings != settings:
        return None, f"it was built with other settings: {old.settings}"
    return old, None


def _usable_vectors(
    old: store.StoredIndex | None, mark: NDArray[np.float32] | None
) -> NDArray[Any] | None:
    """The old index's vectors, if this encoder made them: another may have the same name."""
    if old is None or old.probe is None or mark is None or not same_encoder(mark, old.probe):
        return None
    return old.vectors


def _write_documents(
    data: Path,
    sources: Sequence[Source],
    same: set[str],
    old: store.StoredIndex | None,
    chunk_size: int,
    progress: Callable[[IndexProgress], None],
) -> tuple[Collection, dict[str, str], list[int]]:
    """Write all documents; also returns per chunk its row in the old index, -1 if it is new."""
    writer = store.DocumentWriter(data, chunk_size)
    skipped: dict[str, str] = {}
    rows: list[int] = []
    try:
        for done, source in enumerate(sources, start=1):
            kept = old if source.id in same else None
            if kept is not None and source.id in kept.sources.skipped:
                skipped[source.id] = kept.sources.skipped[source.id]
            elif kept is not None:
                document, first, spans = kept.collection.find(source.id)
                writer.add(document, spans)
                rows += range(first, first + len(spans))
            else:
                try:
                    document = replace(source.read(), id=source.id)
                    spans = split_text(document.text, chunk_size)
                    writer.add(document, spans)
                    rows += [-1] * len(spans)
                except InvalidInputError as error:
                    skipped[source.id] = str(error)
            progress(IndexProgress("read", done, len(sources)))
        if not rows:
            reasons = "".join(f"\n  {id}: {reason}" for id, reason in skipped.items())
            raise InvalidInputError(f"there is nothing to index{reasons}")
        return writer.finish(), skipped, rows
    finally:
        writer.close()


def _write_vectors(
    data: Path,
    collection: Collection,
    rows: Sequence[int],
    vectors: NDArray[Any] | None,
    encoder: Encoder,
    mark: NDArray[np.float32],
    progress: Callable[[IndexProgress], None],
) -> int:
    """Write the vectors of all chunks, reusing old ones, and return how many are new."""
    known = np.array(rows, dtype=np.int64)
    if vectors is None:
        known[:] = -1
    wanted = known < 0
    target: np.memmap[Any, Any] = np.lib.format.open_memmap(
        data / "vectors.npy", mode="w+", dtype=DTYPE, shape=(len(known), len(mark))
    )
    if vectors is not None:
        target[~wanted] = vectors[known[~wanted]]
    texts = [text for text, new in zip(collection.chunk_texts(), wanted, strict=True) if new]
    places = np.flatnonzero(wanted)
    done = 0
    for batch in encode(texts, encoder):
        target[places[done : done + len(batch)]] = batch
        done += len(batch)
        progress(IndexProgress("encode", done, len(texts)))
    target.flush()
    np.save(data / "probe.npy", mark)
    return done


def _counted(
    collection: Collection,
    step: Literal["words"],
    progress: Callable[[IndexProgress], None],
) -> Iterator[str]:
    for done, text in enumerate(collection.chunk_texts(), start=1):
        yield text
        if done % 256 == 0 or done == len(collection):
            progress(IndexProgress(step, done, len(collection)))
