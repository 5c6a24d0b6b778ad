"""The files in a folder of passages: which are ours, and how one is written.

- finch-passages.json: marks the folder as ours (`passage_settings`)
- ab/abcd….safetensors: an entry; its name is its key
- ab/.0123….draft: an entry that is being written, locked by its writer

An entry appears complete, by a rename. A killed process leaves at most a draft without a lock; the
next process that opens the folder deletes it. Nothing is flushed to the device: after a power
failure an entry may be damaged, which its checksum shows, and a cache may lose entries.
"""

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finch_integrations.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

MARKER = "finch-passages.json"
_KEY = re.compile(r"[0-9a-f]{64}")
_SUBFOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(rf"({_KEY.pattern})\.safetensors")
_DRAFT = re.compile(r"\.[0-9a-f]{16}\.draft")


def is_key(key: str) -> bool:
    """Whether an entry can have this key: 64 hexadecimal digits."""
    return _KEY.fullmatch(key) is not None


@contextmanager
def draft(folder: Path, save: Callable[[Path], None]) -> Iterator[Path]:
    """Write a file that cannot be mistaken for an entry; it is deleted unless it was moved.

    Args:
        folder: Where.
        save: Writes its content to an empty file that exists.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / f".{secrets.token_hex(8)}.draft"
    # Closed before it may be moved: Windows does not move open files.
    try:
        with open(path, "xb", opener=_open_private) as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            save(path)
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def check_ours(path: Path) -> None:
    """Make sure that a folder holds passages; an empty or missing one counts as ours.

    Raises:
        ConfigurationError: It has other files than passages, or is a file.
        OSError: It cannot be read.
    """
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigurationError(f"{path} is a file. Give a folder for the passages") from None
    foreign = [name for name in names if not _DRAFT.fullmatch(name)]
    if foreign and MARKER not in foreign:
        raise ConfigurationError(
            f"{path} holds other files than passages, such as {min(foreign)}. Give a new or empty "
            "folder for the passages"
        )


def entry_path(path: Path, key: str) -> Path:
    """Where an entry's file is, or would be."""
    return path / key[:2] / f"{key}.safetensors"


def subfolders(path: Path) -> list[Path]:
    """The folders that entries are in."""
    try:
        with os.scandir(path) as found:
            return [
                Path(folder.path)
                for folder in found
                if _SUBFOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []


def entries(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All entries' keys and what the system says of their files."""
    for folder in subfolders(path):
        with suppress(FileNotFoundError), os.scandir(folder) as files:
            for file in files:
                name = _ENTRY.fullmatch(file.name)
                if not name or name[1][:2] != folder.name:
                    continue
                with suppress(FileNotFoundError):
                    if file.is_file(follow_symlinks=False):
                        yield name[1], file.stat(follow_symlinks=False)


def delete_abandoned_drafts(path: Path) -> None:
    """Delete what killed processes were writing."""
    for folder in (path, *subfolders(path)):
        with suppress(FileNotFoundError):
            for name in os.listdir(folder):
                if _DRAFT.fullmatch(name):
                    _delete_if_abandoned(folder / name)


def _delete_if_abandoned(draft: Path) -> None:
    try:
        with draft.open("rb") as file:
            if sys.platform != "win32":
                # The system releases the lock of a process that dies.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.unlink(missing_ok=True)
    except (FileNotFoundError, BlockingIOError):
        return
    except PermissionError:
        if sys.platform != "win32":  # there it means that a process has it open
            raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def drop_from_page_cache(path: Path) -> bool:
    """Make the next reading of a file come from the device.

    Returns:
        Whether that worked: not every system can, and some files are in memory only.
    """
    if sys.platform != "linux":
        return False
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        last = os.fstat(file.fileno()).st_size - 1
        try:
            os.preadv(file.fileno(), [bytearray(1)], last, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:  # a file system that cannot say
            pass
        return False
