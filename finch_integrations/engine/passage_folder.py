"""Entries by key within a byte cap, in a folder that several processes may share.

An entry's last use is its modification time. No file here uses tensors, so that `finch cache`
starts without torch.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from finch_integrations.engine.lru import ByteLRU
from finch_integrations.engine.passage_files import (
    MARKER,
    check_ours,
    delete_abandoned_drafts,
    draft,
    entries,
    entry_path,
    subfolders,
)
from finch_integrations.engine.passage_settings import (
    ModelSpeed,
    ReadSpeed,
    Settings,
    keeping_pays,
    read_settings,
    write_settings,
)
from finch_integrations.errors import InvalidInputError

# What other processes did is looked up at most this often: listing 5,000 files takes 0.1 s.
_LIST_SECONDS = 5.0
# How exactly the files show when they were used; a process knows its own uses exactly.
_MARK_SECONDS = 60.0


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
        check_ours(path)
        sizes = [stat.st_size for _, stat in entries(path)]
        settings = read_settings(path)
    except OSError as error:
        raise InvalidInputError(f"cannot read the passages in {path}: {error}") from error
    return FolderSummary(
        entries=len(sizes),
        nbytes=sum(sizes),
        max_bytes=settings.max_bytes,
        read_speed=settings.read_speed,
        models=settings.models,
    )


def clear(path: Path) -> None:
    """Delete all passages in a folder, and nothing else that may be there.

    Raises:
        ConfigurationError: It has other files than passages.
        InvalidInputError: A file cannot be deleted.
    """
    try:
        check_ours(path)
        for key, _ in entries(path):
            entry_path(path, key).unlink(missing_ok=True)
        delete_abandoned_drafts(path)
        for folder in subfolders(path):
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
            delete_abandoned_drafts(path)
            if read_settings(path).max_bytes != max_bytes:
                write_settings(self.path, replace(read_settings(path), max_bytes=max_bytes))
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
            with entry_path(self.path, key).open("rb") as file:
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
                if not entry_path(self.path, key).exists():  # else it was written meanwhile
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
            os.utime(entry_path(self.path, key), ns=(use.used, use.used))

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
            entry_path(self.path, key).unlink(missing_ok=True)

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
        known = read_settings(self.path).read_speed
        if known is None:
            known = measure()
            with suppress(OSError):  # then it is measured again next time
                write_settings(self.path, replace(read_settings(self.path), read_speed=known))
        return known

    def model_speed(self, model: str) -> ModelSpeed | None:
        """What was last measured of a model; None: nothing was."""
        return read_settings(self.path).models.get(model)

    def note_model_speed(self, model: str, speed: ModelSpeed) -> None:
        """Keep what was measured of a model, for the next process and for `finch cache`."""
        settings = read_settings(self.path)
        with suppress(OSError):  # then it is measured again next time
            write_settings(self.path, replace(settings, models={**settings.models, model: speed}))

    def _write_entry(self, key: str, save: Callable[[Path], None]) -> None:
        target = entry_path(self.path, key)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with draft(target.parent, save) as written:
            size = written.stat().st_size
            if size > self._files.max_bytes:
                self.remove(key)
                return
            with self._lock:
                if time.monotonic() - self._listed >= _LIST_SECONDS:
                    self._list()
                self._files.remove(key)
                for oldest in self._files.shrink(size):
                    entry_path(self.path, oldest).unlink(missing_ok=True)
                now = time.time_ns()
                os.utime(written, ns=(now, now))
                os.replace(written, target)
                self._files.add(key, _Use(now, now), size)

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
        for key, stat in entries(self.path):
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
        check_ours(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if not (self.path / MARKER).exists():
            self.path.chmod(0o700)
            write_settings(self.path, Settings(max_bytes=self._files.max_bytes))
