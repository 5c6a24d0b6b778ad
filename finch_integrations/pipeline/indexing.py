"""From files to an index that the retriever searches."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finch_integrations.reading import SUFFIXES, find_files, make_reader
from finch_integrations.retrieval.build import IndexProgress, IndexReport, Source, build_index
from finch_integrations.retrieval.hybrid import CHUNK_SIZE
from finch_integrations.types import Document


def index_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    encoder: Any = "embedded",
    chunk_size: int = CHUNK_SIZE,
    progress: Callable[[IndexProgress], None] = lambda _: None,
) -> IndexReport:
    """Index files, and all files below folders; unchanged files are not read again.

    The id of a document is its path; its metadata has the path as `source`.

    Args:
        paths: Files and folders. Hidden files inside a folder are skipped.
        out: The index's folder. It may be in an indexed folder and is not indexed itself.
        encoder: An embedding model or its name; None: search by words only.
        chunk_size: Upper limit of a chunk's characters.
        progress: Called while the build runs.

    Raises:
        InvalidInputError: A path does not exist, not one file could be read, or another process
            builds this index.
        MissingExtraError: The file readers or sentence-transformers are not installed.
        ModelLoadError: The encoder cannot be loaded.
    """
    read = make_reader()
    index = os.path.realpath(out)
    sources = [
        Source(path.as_posix(), _digest(path), partial(_read, read, path))
        for path in find_files(paths)
        if not Path(os.path.realpath(path)).is_relative_to(index)
    ]
    return build_index(
        Path(out), sources, encoder=encoder, chunk_size=chunk_size, progress=progress
    )


def _digest(path: Path) -> str:
    """Hash a file's content; files that are never read need none."""
    if path.suffix.lower() not in SUFFIXES:
        return "not read"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be opened ({error.strerror})"


def _read(read: Callable[[Path], Document], path: Path) -> Document:
    document = read(path)
    return replace(document, metadata={**document.metadata, "source": document.id})
