"""Files by key within a byte cap, in a folder that several processes may share.

- finch-passages.json: marks the folder as ours; the cap, and how fast it reads
- ab/abcd….safetensors: an entry; its name is its key
- ab/.0123….draft: an entry that is being written, locked by its writer

An entry appears complete, by a rename. A killed process leaves at most a draft without a lock; the
next process that opens the folder deletes it. An entry's last use is its modification time. Nothing
is flushed to the device: after a power failure an entry may be damaged, which its checksum shows,
and a cache may lose entries.

This file does not use tensors, so that `finch cache` starts without torch.
"""

import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from finch_integrations.engine.lru import ByteLRU
from finch_integrations.errors import ConfigurationError, InvalidInputError

if sys.platform != "win32":
    import fcntl

_MARKER = "finch-passages.json"
_KEY = re.compile(r"[0-9a-f]{64}")
_SUBFOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(rf"({_KEY.pattern})\.safetensors")
_DRAFT = re.compile(r"\.[0-9a-f]{16}\.draft")
# What other processes did is looked up at most this often: listing 5,000 files takes 0.1 s.
_LIST_SECONDS = 5.0
# How exactly the files show when they were used; a process knows its own uses exactly.
_MARK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpeed:
    """How fast entries are read.

    Attributes:
        bytes_per_second: From opening a file to checked tensors.
        cold: Whether the files were out of the page cache, so that the device was read.
    """

    bytes_per_second: float
    cold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpeed:
    """How fast a model reads passages, and what it leaves of them.

    Attributes:
        tokens_per_second: How fast.
        bytes_per_token: Size of what is kept.
    """

    tokens_per_second: float
    bytes_per_token: int

    def __post_init__(self) -> None:
        if not (self.tokens_per_second >= 0 and self.bytes_per_token > 0):
            raise ValueError("a speed and a size are positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSummary:
    """What is in a folder of passages.

    Attributes:
        entries: Number of passages.
        nbytes: Size of their files.
        max_bytes: The cap with which the folder was last opened; None: it never was.
        read_speed: None: it was not measured yet.
        models: How fast which model on which device read what is in there.
    """

    entries: int
    nbytes: int
    max_bytes: int | None
    read_speed: ReadSpeed | None
    models: Mapping[str, ModelSpeed]

    def pays(self, model: str) -> bool:
        """Whether a model's passages come from the folder sooner than it reads them again."""
        return self.read_speed is None or keeping_pays(self.models[model], self.read_speed)


@dataclass(frozen=True, slots=True)
class _Settings:
    max_bytes: int | None = None
    read_speed: ReadSpeed | None = None
    models: Mapping[str, ModelSpeed] = field(default_factory=dict)


@dataclass(slots=True)
class _Use:
    """When an entry was last used, and when its file says it was; nanoseconds."""

    used: int
    marked: int


def summarize(path: Path) -> FolderSummary:
    """Describe a folder of passages; one that does not exist is empty.

    Raises:
        ConfigurationError: It has other files than passages.
        InvalidInputError: It cannot be read.
    """
    try:
        _check_ours(path)
        sizes = [stat.st_size for _, stat in _entries(path)]
        settings = _read_settings(path)
    except OSError as error:
        raise InvalidInputError(f"cannot read the passages in {path}: {error}") from error
    return FolderSummary(
        entries=len(sizes),
        nbytes=sum(sizes),
        max_bytes=settings.max_bytes,
        read_speed=settings.read_speed,
        models=settings.models,
    )


def keeping_pays(model: ModelSpeed, folder: ReadSpeed) -> bool:
    """Whether what a model read comes from a folder sooner than the model reads it again."""
    return folder.bytes_per_second >= model.tokens_per_second * model.bytes_per_token


def clear(path: Path) -> None:
    """Delete all passages in a folder, and nothing else that may be there.

    Raises:
        ConfigurationError: It has other files than passages.
        InvalidInputError: A file cannot be deleted.
    """
    try:
        _check_ours(path)
        for key, _ in _entries(path):
            _entry(path, key).unlink(missing_ok=True)
        _delete_abandoned_drafts(path)
        for folder in _subfolders(path):
            with suppress(OSError):  # something else is there, or is being written
                folder.rmdir()
    except OSError as error:
        raise InvalidInputError(
            f"cannot delete the passages in {path}: {error}. Delete the folder yourself"
        ) from error


class PassageFolder:
    """The entries in a folder: at most that many bytes; the least recently used are deleted first.

    Thread-safe. Several processes may open one folder; each keeps its own cap and sees what the
    others wrote some seconds later, so together they may exceed it for that long.

    Args:
        path: The folder; it and its parents are made, for this user only.
        max_bytes: Upper limit of the entries' files together.

    Raises:
        ConfigurationError: The folder has other files than passages.
        OSError: It cannot be made or read.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._files: ByteLRU[_Use] = ByteLRU(max_bytes)
        self._listed = 0.0
        self._retrying(self._adopt)
        with suppress(OSError):  # a folder that is read-only
            _delete_abandoned_drafts(path)
            if _read_settings(path).max_bytes != max_bytes:
                self._write_settings(replace(_read_settings(path), max_bytes=max_bytes))
        with self._lock:
            self._list()

    @property
    def nbytes(self) -> int:
        """Size of the entries' files, as far as this process knows."""
        return self._files.nbytes

    @property
    def max_bytes(self) -> int:
        """Upper limit of the entries' files together."""
        return self._files.max_bytes

    def keys(self) -> list[str]:
        """List the entries that this process knows of, the least recently used first."""
        with self._lock:
            return list(self._files)

    def read(self, key: str) -> bytes | None:
        """Read an entry's file; None if there is none, or if it is larger than the cap.

        Raises:
            OSError: It cannot be read.
        """
        try:
            with _entry(self.path, key).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > self._files.max_bytes:
                    # Whatever is there takes no more memory than an entry may.
                    return None
                data = file.read(size)
                with self._lock:
                    now = os.fstat(file.fileno())
                    if now.st_nlink:  # else it was deleted or replaced meanwhile
                        use = self._files.get(key) or _Use(now.st_mtime_ns, now.st_mtime_ns)
                        self._files.add(key, use, size)
        except FileNotFoundError:
            with self._lock:
                if not _entry(self.path, key).exists():  # else it was written meanwhile
                    self._files.remove(key)
            return None
        self.use(key)
        return data

    def use(self, key: str) -> None:
        """Make an entry, if it is there, the most recently used."""
        with self._lock:
            use = self._files.use(key)
            if use is None:
                return
            use.used = time.time_ns()
            if use.used - use.marked < _MARK_SECONDS * 1e9:
                return
            use.marked = use.used
        with suppress(OSError):  # it is gone, or read-only: neither matters here
            os.utime(_entry(self.path, key), ns=(use.used, use.used))

    def write(self, key: str, save: Callable[[Path], None]) -> None:
        """Write or replace an entry, and delete the least recently used ones beyond the cap.

        Args:
            key: The entry's key.
            save: Writes the file's content to an empty file that exists. A file that is larger
                than the cap is not kept.

        Raises:
            ConfigurationError: The folder was replaced by one with other files.
            OSError: It cannot be written.
        """
        self._retrying(lambda: self._write_entry(key, save))

    def remove(self, key: str) -> None:
        """Delete an entry if it is there.

        Raises:
            OSError: It cannot be deleted.
        """
        with self._lock:
            self._files.remove(key)
            _entry(self.path, key).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all entries.

        Raises:
            ConfigurationError: The folder was replaced by one with other files.
            InvalidInputError: A file cannot be deleted.
        """
        clear(self.path)
        with self._lock:
            self._list()

    def read_speed(self, measure: Callable[[], ReadSpeed]) -> ReadSpeed:
        """Return how fast entries are read; it is measured once and kept in the folder.

        Raises:
            OSError: `measure` raised it.
        """
        known = _read_settings(self.path).read_speed
        if known is None:
            known = measure()
            with suppress(OSError):  # then it is measured again next time
                self._write_settings(replace(_read_settings(self.path), read_speed=known))
        return known

    def model_speed(self, model: str) -> ModelSpeed | None:
        """What was last measured of a model; None: nothing was."""
        return _read_settings(self.path).models.get(model)

    def note_model_speed(self, model: str, speed: ModelSpeed) -> None:
        """Keep what was measured of a model, for the next process and for `finch cache`."""
        settings = _read_settings(self.path)
        with suppress(OSError):  # then it is measured again next time
            self._write_settings(replace(settings, models={**settings.models, model: speed}))

    @contextmanager
    def draft(self, save: Callable[[Path], None], folder: Path | None = None) -> Iterator[Path]:
        """Write a file that cannot be mistaken for an entry; it is deleted unless it was moved.

        Args:
            save: As for `write`.
            folder: Where; this folder itself if not given.

        Raises:
            OSError: It cannot be written.
        """
        path = (folder or self.path) / f".{secrets.token_hex(8)}.draft"
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

    def _write_entry(self, key: str, save: Callable[[Path], None]) -> None:
        target = _entry(self.path, key)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with self.draft(save, target.parent) as draft:
            size = draft.stat().st_size
            if size > self._files.max_bytes:
                self.remove(key)
                return
            with self._lock:
                if time.monotonic() - self._listed >= _LIST_SECONDS:
                    self._list()
                self._files.remove(key)
                for oldest in self._files.shrink(size):
                    _entry(self.path, oldest).unlink(missing_ok=True)
                now = time.time_ns()
                os.utime(draft, ns=(now, now))
                os.replace(draft, target)
                self._files.add(key, _Use(now, now), size)

    def _write_settings(self, settings: _Settings) -> None:
        content = json.dumps(asdict(settings), indent=2) + "\n"
        with self.draft(lambda draft: _write_text(draft, content)) as draft:
            os.replace(draft, self.path / _MARKER)

    def _retrying(self, write: Callable[[], None]) -> None:
        try:
            write()
        except FileNotFoundError:
            # Someone deleted the folder, or took the draft for that of a dead process.
            self._adopt()
            write()

    def _list(self) -> None:
        """Read what is in the folder; this process's own uses count, marked or not."""
        found = []
        for key, stat in _entries(self.path):
            own = self._files.get(key)
            used = max(stat.st_mtime_ns, own.used if own else 0)
            found.append((used, key, stat))
        files: ByteLRU[_Use] = ByteLRU(self._files.max_bytes)
        for used, key, stat in sorted(found, key=lambda entry: entry[:2]):
            files.add(key, _Use(used, stat.st_mtime_ns), stat.st_size)
        self._files = files
        self._listed = time.monotonic()

    def _adopt(self) -> None:
        """Make the folder, or make sure that it is ours."""
        _check_ours(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if not (self.path / _MARKER).exists():
            self.path.chmod(0o700)
            self._write_settings(_Settings(max_bytes=self._files.max_bytes))


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


def is_key(key: str) -> bool:
    """Whether an entry can have this key: 64 hexadecimal digits."""
    return _KEY.fullmatch(key) is not None


def _check_ours(path: Path) -> None:
    """An empty or missing folder counts as ours."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigurationError(f"{path} is a file. Give a folder for the passages") from None
    foreign = [name for name in names if not _DRAFT.fullmatch(name)]
    if foreign and _MARKER not in foreign:
        raise ConfigurationError(
            f"{path} holds other files than passages, such as {min(foreign)}. Give a new or empty "
            "folder for the passages"
        )


def _entry(path: Path, key: str) -> Path:
    return path / key[:2] / f"{key}.safetensors"


def _subfolders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as found:
            return [
                Path(folder.path)
                for folder in found
                if _SUBFOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []


def _entries(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All entries' keys and what the system says of their files."""
    for folder in _subfolders(path):
        with suppress(FileNotFoundError), os.scandir(folder) as files:
            for file in files:
                name = _ENTRY.fullmatch(file.name)
                if not name or name[1][:2] != folder.name:
                    continue
                with suppress(FileNotFoundError):
                    if file.is_file(follow_symlinks=False):
                        yield name[1], file.stat(follow_symlinks=False)


def _delete_abandoned_drafts(path: Path) -> None:
    for folder in (path, *_subfolders(path)):
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


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _read_settings(path: Path) -> _Settings:
    try:
        content = json.loads((path / _MARKER).read_text(encoding="utf-8"))
        speed = content["read_speed"]
        return _Settings(
            max_bytes=int(content["max_bytes"]),
            read_speed=None
            if speed is None
            else ReadSpeed(
                bytes_per_second=float(speed["bytes_per_second"]), cold=bool(speed["cold"])
            ),
            models={
                str(name): ModelSpeed(
                    tokens_per_second=float(model["tokens_per_second"]),
                    bytes_per_token=int(model["bytes_per_token"]),
                )
                for name, model in content.get("models", {}).items()
            },
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return _Settings()  # nothing in it that cannot be measured again
