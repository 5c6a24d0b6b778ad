"""An index's folder: which files in it are ours, and how new data replaces old data.

- index.json: the manifest. It names its maker, the folder with the data, and the size and checksum
  of every file there, and has a checksum of its own
- data-<16 hex digits>/: the data. Its finch-index-data.json, written first, names its maker and
  lists what is written there
- .lock: empty; locked during a build; readers ignore it

Nothing else is ever replaced or removed, and nothing through a link. Files that were added to an
index by others are left alone; a folder with files that is not an index is refused.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finch_integrations.errors import InvalidInputError
from finch_integrations.storage import replaced, sync

# Increased when the files, the chunking or the words change, so that older indexes are refused.
FORMAT = 3
MANIFEST = "index.json"
_MARKER = "finch-index-data.json"
_MAKER = "finch-integrations"
_OPENING = b'{"made_by": "finch-integrations"'
_LONGEST_MANIFEST = 2**16
_LOCK = ".lock"
_DATA_NAME = re.compile("data-[0-9a-f]{16}")
_FILE_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def check_target(path: Path) -> None:
    """Make sure that an index may be written there: it is one, or there is nothing.

    Raises:
        InvalidInputError: It is a file, a folder with other files, or an index whose data are not
            marked.
    """
    if not path.is_dir():
        if os.path.lexists(path):
            raise InvalidInputError(f"{path} is a file. Give a folder for the index")
        return
    lock = path / _LOCK
    # Some versions of filelock empty the file that they lock.
    if os.path.lexists(lock) and (not _is_file(lock) or lock.stat().st_size):
        raise _foreign(path, _LOCK)
    if not os.path.lexists(path / MANIFEST):
        for file in sorted(path.iterdir()):
            if file.name != _LOCK and not _is_data(file):
                raise _foreign(path, file.name)
    _check_manifest(path)


@contextmanager
def new_data(path: Path, files: Sequence[str], description: Mapping[str, Any]) -> Iterator[Path]:
    """Make an index, or replace one, when the block ends without an error.

    Until then, and if it fails or is killed, the old index stays as it is; readers that have it
    open can continue. What builders that died left is removed.

    Args:
        path: The index's folder; it and its parents are made.
        files: All that may be written into the data's folder, as relative paths with `/`.
        description: For the manifest.

    Yields:
        The new data's folder.

    Raises:
        InvalidInputError: The folder holds other files, or another build of the index is running.
    """
    check_target(path)
    with _folders_made(path), _only_builder(path):
        remove_leftovers(path)
        data = path / f"data-{secrets.token_hex(8)}"
        try:
            data.mkdir()
            # If a kill cuts this off, it says nothing; nothing else has been written by then.
            marker = {"made_by": _MAKER, "files": [*files, MANIFEST]}
            (data / _MARKER).write_text(json.dumps(marker), encoding="utf-8")
            yield data
            _publish(path, data, description)
        except BaseException:
            if _named_data(path) != data.name:
                _remove(data)
            raise
        remove_leftovers(path)


def tidy(path: Path) -> None:
    """Remove what builders that died left, unless a build is running."""
    if _leftovers(path):
        with suppress(InvalidInputError, OSError), _only_builder(path):
            remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """Remove the data that no manifest names; for the only builder."""
    for folder in _leftovers(path):
        _remove(folder)


def read_manifest(path: Path) -> tuple[Path, dict[str, Any]]:
    """The data's folder, and the manifest.

    Raises:
        InvalidInputError: There is no index, it is damaged, or of another version.
    """
    try:
        manifest = json.loads(_read(path / MANIFEST))
        version = manifest["format"]
        if version == FORMAT:
            if manifest.pop("sha256") != _digest_of(manifest):
                raise ValueError("the checksum of its manifest is another one")
            if not _DATA_NAME.fullmatch(manifest["data"]):
                raise ValueError(f"it names the data {manifest['data']!r}")
            return path / manifest["data"], manifest
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(
            f"there is no index at {path}. Build one: finch index FOLDER --out {path}"
        ) from None
    except Exception as error:  # forged files fail in many ways
        raise damaged(path, error) from error
    raise InvalidInputError(
        f"the index {path} was built by another version of this package (format {version}, "
        f"this one reads {FORMAT}). Build it again in a new folder"
    )


def check_files(data: Path, manifest: Mapping[str, Any]) -> None:
    """Make sure that the data are those that the manifest was written for.

    Raises:
        ValueError: They are not.
        OSError: A file cannot be read.
    """
    for name, (size, digest) in manifest["files"].items():
        if not _FILE_NAME.fullmatch(name) or not _is_file(data / name):
            raise ValueError(f"{name} is missing")
        if (data / name).stat().st_size != size:
            raise ValueError(f"{name} has another length than it was written with")
        if _digest_of_file(data / name) != digest:
            raise ValueError(f"{name} has another content than was written")
    unknown = {*_listed(data), *manifest["files"]} - manifest["files"].keys() - {MANIFEST}
    if more := sorted(name for name in unknown if os.path.lexists(data / name)):
        raise ValueError(f"{more[0]} was not written with it")


def damaged(path: Path, error: Exception) -> InvalidInputError:
    """What to raise when an index cannot be read."""
    reason = str(error) or type(error).__name__
    return InvalidInputError(f"the index {path} is damaged ({reason:.300}). Build it again")


def _check_manifest(path: Path) -> None:
    """Make sure that a manifest may be written there: there is none, or it is ours.

    Raises:
        InvalidInputError: It is something else, or an index whose data are not marked.
    """
    manifest = path / MANIFEST
    if not os.path.lexists(manifest):
        return
    content = b""
    if _is_file(manifest):
        with manifest.open("rb") as file:
            content = file.read(_LONGEST_MANIFEST)
    if _is_first_format(content):
        raise InvalidInputError(
            f"the index {path} was built by an earlier version of this package (format 1, this "
            f"one writes {FORMAT}), which did not mark its files as its own, so that they cannot "
            "be replaced safely. Give a new folder, then delete this one"
        )
    if not content.startswith(_OPENING):
        raise _foreign(path, MANIFEST)


def _foreign(path: Path, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is not an index: it holds {name}. Give a new folder for the index"
    )


@contextmanager
def _folders_made(path: Path) -> Iterator[None]:
    """Make a folder and its parents; if the block fails, those that are empty are removed."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Lock out other builders; the system releases the lock of a process that dies."""
    lock = FileLock(path / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InvalidInputError(
            f"another process is building the index {path}. Wait until it is done, or "
            "give another folder"
        ) from None
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if [file.name for file in path.iterdir()] == [_LOCK]:
                (path / _LOCK).unlink()  # there was no index before, either
        raise
    finally:
        lock.release()


def _publish(path: Path, data: Path, description: Mapping[str, Any]) -> None:
    """Replace the manifest in one step: from here on the new data is the index."""
    written = sorted(file for file in data.rglob("*") if file.is_file() and file.name != _MARKER)
    files = {
        file.relative_to(data).as_posix(): [file.stat().st_size, _digest_of_file(file)]
        for file in written
    }
    manifest = {
        "made_by": _MAKER,
        "format": FORMAT,
        "data": data.name,
        **description,
        "files": files,
    }
    manifest["sha256"] = _digest_of(manifest)
    for file in [*data.rglob("*"), data]:
        sync(file)
    # In the data's folder a draft is known as ours if a kill leaves it.
    with replaced(path / MANIFEST, draft=data / MANIFEST) as draft:
        draft.write_text(json.dumps(manifest), encoding="utf-8")
        _check_manifest(path)  # a build takes long enough for someone to put another file there


def _leftovers(path: Path) -> list[Path]:
    """Data that the manifest does not name; none where there is a manifest that names no data."""
    named = _named_data(path)
    if named is None and os.path.lexists(path / MANIFEST):
        return []  # it is damaged, and its data may be all that is left
    return [file for file in path.iterdir() if file.name != named and _is_data(file)]


def _named_data(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        name = json.loads(_read(path / MANIFEST))["data"]
        if _DATA_NAME.fullmatch(name):
            return str(name)
    return None


def _read(path: Path) -> bytes:
    """Read a small file of ours.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too long, or no regular file.
    """
    if not path.is_file() and path.exists():
        raise ValueError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        content = file.read(_LONGEST_MANIFEST + 1)
    if len(content) > _LONGEST_MANIFEST:
        raise ValueError(f"{path.name} is too long")
    return content


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_data(path: Path) -> bool:
    """Whether it is a folder that a builder made: marked, or empty as it is before that."""
    if path.is_symlink() or not path.is_dir() or not _DATA_NAME.fullmatch(path.name):
        return False
    return _is_file(path / _MARKER) or not any(path.iterdir())


def _is_first_format(content: bytes) -> bool:
    with suppress(ValueError, KeyError, TypeError):
        manifest = json.loads(content)
        return bool(manifest["format"] == 1 and manifest["data"].startswith("data-"))
    return False


def _remove(data: Path) -> None:
    """Remove what a builder wrote; other files stay, and then the folder stays, too."""
    files = [data / name for name in _listed(data)]
    folders = {parent for file in files for parent in file.relative_to(data).parents}
    linked = {folder for folder in folders if (data / folder).is_symlink()}
    for file in files:
        if _is_file(file) and linked.isdisjoint(file.relative_to(data).parents):
            with suppress(OSError):  # some systems do not remove files that are open
                file.unlink()
    for folder in sorted(folders - linked - {Path()}, reverse=True):
        with suppress(OSError):
            (data / folder).rmdir()
    with suppress(OSError):
        # Last: a folder without it would not be known as ours again.
        if [file.name for file in data.iterdir()] == [_MARKER]:
            (data / _MARKER).unlink()
        data.rmdir()


def _listed(data: Path) -> list[str]:
    """What the builder of a data folder said that it would write."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        marker = json.loads(_read(data / _MARKER))
        if marker["made_by"] == _MAKER:
            return [name for name in marker["files"] if _FILE_NAME.fullmatch(name)]
    return []
