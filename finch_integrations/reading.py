"""From files and folders to documents."""

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from finch_integrations import conversion
from finch_integrations.conversion import Converter
from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError
from finch_integrations.files import MAX_FILE_BYTES, FoundFile, find_files, read_bytes
from finch_integrations.types import Document

_TEXT_SUFFIXES = (".md", ".txt")
SUFFIXES = tuple(sorted((*conversion.SUFFIXES, *_TEXT_SUFFIXES)))


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that gave no document, or a folder that was not entered, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of reading files.

    Attributes:
        documents: One per readable file; the id is the file's path as reached from the caller's
            argument.
        skipped: Every other file, and folders that were not entered.
    """

    documents: tuple[Document, ...]
    skipped: tuple[SkippedFile, ...]


def read_documents(
    paths: Sequence[str | os.PathLike[str]],
    *,
    follow_links: bool = False,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> ReadResult:
    """Read files, and all files below folders, in the order of their names.

    Hidden files and folders inside a folder are skipped. A file named twice is read once.

    Args:
        paths: Files and folders.
        follow_links: Whether links inside folders are followed that lead to folders or out of
            the folder.
        max_file_bytes: Bigger files are skipped.

    Raises:
        InvalidInputError: A path does not exist, or not one file could be read.
        MissingExtraError: The file readers are not installed.
    """
    documents: list[Document] = []
    skipped: list[SkippedFile] = []
    with open_reader(max_file_bytes) as reader:
        for file in find_files(paths, follow_links=follow_links):
            try:
                documents.append(reader.read(file))
            except InvalidInputError as error:
                skipped.append(SkippedFile(str(file.path), str(error)))
    if not documents:
        reasons = "".join(f"\n  {file.path}: {file.reason}" for file in skipped)
        raise InvalidInputError(
            f"found nothing to read in {', '.join(str(path) for path in paths) or 'no path'}. "
            f"Readable are {', '.join(SUFFIXES)}{reasons}"
        )
    return ReadResult(tuple(documents), tuple(skipped))


@contextmanager
def open_reader(max_file_bytes: int = MAX_FILE_BYTES) -> Iterator["FileReader"]:
    """Yield a reader of files, and end what it has started.

    Raises:
        MissingExtraError: The file readers are not installed.
    """
    converter = Converter()
    try:
        yield FileReader(converter, max_file_bytes)
    finally:
        converter.close()


@dataclass(frozen=True, slots=True)
class FileReader:
    """Makes documents of files."""

    converter: Converter
    max_file_bytes: int = MAX_FILE_BYTES

    def content(self, file: FoundFile) -> bytes:
        """Return a file's bytes.

        Raises:
            InvalidInputError: It cannot be read, or is of a type that is not read.
        """
        if file.refusal is not None:
            raise InvalidInputError(file.refusal)
        try:
            file.path.as_posix().encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                "has a name that is not UTF-8. Rename file or folder"
            ) from error
        suffix = file.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise InvalidInputError(f"files of type {suffix or '(none)'} are not read")
        return read_bytes(file.path, self.max_file_bytes)

    def read(self, file: FoundFile) -> Document:
        """Make a document of a file; its id is the file's path.

        Raises:
            InvalidInputError: It cannot be read, or holds no text.
        """
        content, suffix = self.content(file), file.path.suffix.lower()
        return replace(self.parse(content, suffix), id=file.path.as_posix())

    def parse(self, content: bytes, suffix: str) -> Document:
        """Make a document, without an id, of a file's bytes.

        Args:
            content: The bytes.
            suffix: The end of its name, in lower case, which says what it is.

        Raises:
            InvalidInputError: It cannot be read, or holds no text.
        """
        if suffix not in SUFFIXES:
            raise InvalidInputError(
                f"files of type {suffix or '(none)'} are not read; readable are "
                f"{', '.join(SUFFIXES)}"
            )
        if suffix in _TEXT_SUFFIXES:
            text, title = _decode(content), None
        else:
            converted = self.converter.convert(content, suffix)
            text, title = converted.text, converted.title
        if not text.strip():
            hint = "; a scanned PDF needs text recognition first" if suffix == ".pdf" else ""
            raise InvalidInputError(f"holds no text{hint}")
        return Document(check_text("its text", text), title=title)


def _decode(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 that says so; guessing other encodings would garble text."""
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"is not UTF-8 text ({error}). Save it as UTF-8") from error
