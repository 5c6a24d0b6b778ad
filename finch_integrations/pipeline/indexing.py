"""From files to an index that the retriever searches."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finch_integrations.errors import InvalidInputError
from finch_integrations.files import MAX_FILE_BYTES, FoundFile, find_files
from finch_integrations.reading import FileReader, open_reader
from finch_integrations.retrieval.build import IndexProgress, IndexReport, Source, build_index
from finch_integrations.retrieval.hybrid import CHUNK_SIZE
from finch_integrations.types import Document


def index_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    encoder: Any = "embedded",
    chunk_size: int = CHUNK_SIZE,
    follow_links: bool = False,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Callable[[IndexProgress], None] = lambda _: None,
) -> IndexReport:
    """Index files, and all files below folders; unchanged files are not read again.

    The id of a document is its path; its metadata has the path as `source`.

    Args:
        paths: Files and folders. Hidden files inside a folder are skipped.
        out: The index's folder. It may be in an indexed folder and is not indexed itself.
        encoder: An embedding model or its name; None: search by words only.
        chunk_size: Upper limit of a chunk's characters.
        follow_links: Whether links inside folders are followed that lead to folders or out of
            the folder.
        max_file_bytes: Bigger files are skipped.
        progress: Called while the build runs.

    Raises:
        InvalidInputError: A path does not exist, not one file could be read, or another process
            builds this index.
        MissingExtraError: The file readers or sentence-transformers are not installed.
        ModelLoadError: The encoder cannot be loaded.
    """
    index = os.path.realpath(out)
    with open_reader(max_file_bytes) as reader:
        sources = [
            Source(file.path.as_posix(), _digest(reader, file), partial(_read, reader, file))
            for file in find_files(paths, follow_links=follow_links)
            if not Path(os.path.realpath(file.path)).is_relative_to(index)
        ]
        return build_index(
            Path(out), sources, encoder=encoder, chunk_size=chunk_size, progress=progress
        )


def _digest(reader: FileReader, file: FoundFile) -> str:
    """Hash a file's content, or say why it is not read."""
    try:
        return hashlib.sha256(reader.content(file)).hexdigest()
    except InvalidInputError as error:
        return str(error)


def _read(reader: FileReader, file: FoundFile) -> Document:
    document = reader.read(file)
    return replace(document, metadata={**document.metadata, "source": document.id})
