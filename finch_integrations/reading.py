"""From files and folders to documents."""

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError, MissingExtraError, install_command
from finch_integrations.types import Document

SUFFIXES = (".docx", ".htm", ".html", ".md", ".pdf", ".txt")
_TEXT_SUFFIXES = (".md", ".txt")


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


def read_documents(paths: Sequence[str | os.PathLike[str]]) -> ReadResult:
    """Read files, and all files below folders, in the order of their names.

    Hidden files and folders inside a folder are skipped, and links to folders are not followed. A
    file named twice is read once.

    Raises:
        InvalidInputError: A path does not exist, or not one file could be read.
        MissingExtraError: The file readers are not installed.
    """
    read = make_reader()
    documents: list[Document] = []
    skipped: list[SkippedFile] = []
    for path in find_files(paths):
        try:
            documents.append(read(path))
        except InvalidInputError as error:
            skipped.append(SkippedFile(str(path), str(error)))
    if not documents:
        reasons = "".join(f"\n  {file.path}: {file.reason}" for file in skipped)
        raise InvalidInputError(
            f"found nothing to read in {', '.join(str(path) for path in paths) or 'no path'}. "
            f"Readable are {', '.join(SUFFIXES)}{reasons}"
        )
    return ReadResult(tuple(documents), tuple(skipped))


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Find files, and all files below folders, in the order of their names; each once.

    Hidden files and folders inside a folder are skipped. Folders that are not entered, because they
    are links or cannot be opened, are returned like files; reading them says why.

    Raises:
        InvalidInputError: A path does not exist.
    """
    found: dict[str, Path] = {}
    for path in _files([Path(path) for path in paths]):
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def make_reader() -> Callable[[Path], Document]:
    """Make a function that reads a file; it raises InvalidInputError for one that it cannot.

    Raises:
        MissingExtraError: The file readers are not installed.
    """
    converter = _converter()

    def read(path: Path) -> Document:
        try:
            if path.is_dir():
                _refuse_folder(path)
            return _read(converter, path)
        except OSError as error:
            raise InvalidInputError(f"cannot be opened ({error.strerror})") from error

    return read


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from _below(path)
        elif path.exists():
            yield path
        else:
            raise InvalidInputError(f"there is no file or folder {path}. Check the path")


def _below(path: Path) -> Iterator[Path]:
    unopened: list[OSError] = []
    for folder, subfolders, names in os.walk(path, onerror=unopened.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        files = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder, name) for name in files + links)
    yield from (Path(error.filename) for error in unopened)


def _read(converter: Any, path: Path) -> Document:
    try:
        id = path.as_posix()
        id.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("has a name that is not UTF-8. Rename file or folder") from error
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInputError(f"files of type {suffix or '(none)'} are not read")
    if suffix in _TEXT_SUFFIXES:
        text, title = _decode(path.read_bytes()), None
    else:
        try:
            result = converter.convert_local(str(path))
        except Exception as error:  # the readers of damaged files fail in many ways
            raise InvalidInputError(f"cannot be read ({_first_line(error)})") from error
        text, title = result.markdown, (result.title or "").strip() or None
    if not text.strip():
        hint = "; a scanned PDF needs text recognition first" if suffix == ".pdf" else ""
        raise InvalidInputError(f"holds no text{hint}")
    return Document(check_text("its text", text), id=id, title=title)


def _refuse_folder(path: Path) -> None:
    """Say why a folder was not entered."""
    if path.is_symlink():
        raise InvalidInputError(
            "is a link to a folder, and these are not followed: they may lead in circles. "
            "Give its own path to have it read"
        )
    os.listdir(path)  # raises the error that prevents opening the folder


def _decode(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 that says so; guessing other encodings would garble text."""
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"is not UTF-8 text ({error}). Save it as UTF-8") from error


def _converter() -> Any:
    try:
        from markitdown import MarkItDown
        from markitdown.converters import DocxConverter, HtmlConverter, PdfConverter
    except ImportError as error:
        raise MissingExtraError(
            f"reading files needs an extra: {install_command('cli')}"
        ) from error
    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    # Only these: the built-in plain-text converter would take a damaged PDF's bytes for text.
    for reader in (DocxConverter, HtmlConverter, PdfConverter):
        converter.register_converter(reader())
    return converter


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
