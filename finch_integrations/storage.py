"""Where this package keeps its own files, and how files are written completely or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path


def models_folder() -> Path:
    """Folder of converted models; `FINCH_CACHE` moves it."""
    return _cache_folder() / "models"


def passages_folder() -> Path:
    """Folder of what models computed from passages; `FINCH_CACHE` moves it."""
    return _cache_folder() / "passages"


def _cache_folder() -> Path:
    root = os.environ.get("FINCH_CACHE")
    return Path(root) if root else user_cache_path("finch-integrations")


@contextmanager
def replaced(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """Write a file so that readers find the old content or the new, also after a power failure.

    A link is followed, as when a file is opened.

    Args:
        path: The file; its folder exists.
        draft: What to write first, on the same file system. By default a hidden file next to
            `path`; only a kill leaves it there.

    Yields:
        The draft's path. It replaces the file when the block ends without an error.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(os.path.realpath(path))
    draft = draft or path.with_name(f".finch-{secrets.token_hex(8)}")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk.

    Raises:
        OSError: The file cannot be written. Of folders nothing is raised: not all systems can.
    """
    if path.is_dir():
        with suppress(OSError):
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR)  # Windows syncs only files that are open for writing


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
