"""Finding files below folders, and reading their bytes: regular files only, of bounded size."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finch_integrations.errors import InvalidInputError

MAX_FILE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file, or a folder that is not entered.

    Attributes:
        path: As reached from the caller's argument.
        refusal: Why it must not be read; None: it may be.
    """

    path: Path
    refusal: str | None = None


def find_files(
    paths: Sequence[str | os.PathLike[str]], *, follow_links: bool = False
) -> list[FoundFile]:
    """Find files, and all files below folders, in the order of their names; each once.

    Hidden files and folders inside a folder are skipped.

    Args:
        paths: Files and folders; a link among them is followed.
        follow_links: Whether links inside folders are followed that lead to folders or out of
            the folder. Otherwise they are refused.

    Raises:
        InvalidInputError: A path does not exist or cannot be opened.
    """
    found: dict[str, FoundFile] = {}
    for path in map(Path, paths):
        for file in _below(path, follow_links) if _is_folder(path) else [FoundFile(path)]:
            found.setdefault(os.path.realpath(file.path), file)
    return list(found.values())


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file.

    Raises:
        InvalidInputError: It is something else, cannot be opened, or is too big.
    """
    try:
        # Opened without waiting: a named pipe would wait for a writer.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise InvalidInputError("is not a regular file, but a device, pipe or socket")
            if facts.st_size <= max_bytes:
                content = file.read(max_bytes + 1)
                if len(content) <= max_bytes:
                    return content
            raise InvalidInputError(
                f"is bigger than {max_bytes / 1e6:,.0f} MB. Split it, or raise the limit"
            )
    except OSError as error:
        raise InvalidInputError(f"cannot be opened ({error.strerror})") from error


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(f"there is no file or folder {path}. Check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{path} cannot be opened ({reason}). Check the path") from error


def _below(root: Path, follow_links: bool) -> Iterator[FoundFile]:
    unopened: list[OSError] = []
    inside = os.path.realpath(root)
    entered = {inside}
    for folder, subfolders, names in os.walk(
        root, onerror=unopened.append, followlinks=follow_links
    ):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(folder, name)
            leaves = os.path.islink(path) and not _is_in(os.path.realpath(path), inside)
            refused = leaves and not follow_links and os.path.lexists(os.path.realpath(path))
            yield FoundFile(path, _LEAVES if refused else None)
        for name in [*subfolders]:
            path = Path(folder, name)
            if not os.path.islink(path):
                continue
            if not follow_links:
                yield FoundFile(path, _FOLDER)
            elif os.path.realpath(path) in entered or _is_in(inside, os.path.realpath(path)):
                subfolders.remove(name)
            entered.add(os.path.realpath(path))
    yield from (
        FoundFile(Path(error.filename), f"cannot be opened ({error.strerror})")
        for error in unopened
    )


_LEAVES = "is a link that leaves the folder. Give the file's own path, or follow links"
_FOLDER = "is a link to a folder, and these are not followed. Give its own path, or follow links"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
