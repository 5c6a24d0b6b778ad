"""What a model computed when it read passages, kept in memory and, if asked for, on disk."""

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from finch_integrations.engine.encodings import Encodings
from finch_integrations.engine.lru import ByteLRU
from finch_integrations.engine.passage_files import is_key
from finch_integrations.engine.passage_folder import PassageFolder
from finch_integrations.engine.passage_format import (
    decode_passage,
    measure_read_speed,
    save_passage,
)
from finch_integrations.engine.passage_settings import ModelSpeed, ReadSpeed, keeping_pays
from finch_integrations.errors import ConfigurationError, FinchError, InvalidInputError

logger = logging.getLogger(__name__)

# Of the limit in memory, encodings may take so much in addition, and no more than these bytes.
_ENCODINGS, _MOST_ENCODINGS = 1 / 4, 256 << 20
# A speed that is so much higher than the one on record replaces it.
_FASTER = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """What is in a store and how often it helped.

    Attributes:
        memory_entries: Passages in memory.
        memory_bytes: Size of their tensors.
        disk_entries: Passages on disk, as far as this process knows.
        disk_bytes: Size of their files.
        memory_hits: Calls of `get` that were answered from memory.
        disk_hits: Calls of `get` that were answered from disk.
        misses: Calls of `get` that found nothing.
        damaged: Files that were deleted because their content was not what had been written.
    """

    memory_entries: int
    memory_bytes: int
    disk_entries: int
    disk_bytes: int
    memory_hits: int
    disk_hits: int
    misses: int
    damaged: int


class PassageStore:
    """Named tensors by key: the most recently used ones, in memory and on disk.

    Thread-safe, and several processes may share one folder. The folder's content survives the
    process. It is what a model computed from the documents, from which their text can be
    reconstructed: it is readable for this user only, and `clear` deletes it.

    If the folder cannot be written or read (full, read-only, not permitted), that is logged once
    and the store goes on without it.

    Args:
        memory_bytes: Upper limit of the tensors in memory together; 0: none are kept there. The
            last encoded prompts may take a quarter in addition, at most 256 MiB, on the model's
            device.
        folder: Where to keep passages on disk, None: nowhere. It is made if it does not exist.
        disk_bytes: Upper limit of the files in the folder together; 0: as without a folder.

    Attributes:
        encodings: The prompts that were encoded last; never on disk.

    Raises:
        ConfigurationError: A limit is negative, or the folder has other files.
    """

    def __init__(
        self,
        *,
        memory_bytes: int = 1 << 30,
        folder: str | os.PathLike[str] | None = None,
        disk_bytes: int = 8 << 30,
    ) -> None:
        for name, value in (("memory_bytes", memory_bytes), ("disk_bytes", disk_bytes)):
            if value < 0:
                raise ConfigurationError(f"{name} must be at least 0, got {value}")
        self._lock = threading.Lock()
        self._memory: ByteLRU[dict[str, Tensor]] = ByteLRU(memory_bytes)
        self.encodings = Encodings(min(int(_ENCODINGS * memory_bytes), _MOST_ENCODINGS))
        self._memory_hits = self._disk_hits = self._misses = self._damaged = 0
        self._folder: PassageFolder | None = None
        self._reads = self._writes = True
        if folder is not None and disk_bytes:
            try:
                self._folder = PassageFolder(Path(folder), disk_bytes)
            except OSError as error:
                logger.warning("Passages are not kept on disk: cannot use %s: %s", folder, error)

    def __len__(self) -> int:
        """Count the passages, in memory or on disk."""
        return len(self.keys())

    def keys(self) -> set[str]:
        """The keys of all passages, in memory or on disk, as far as this process knows."""
        folder = self._folder if self._reads else None
        with self._lock:
            keys = set(self._memory)
        return keys.union(folder.keys() if folder else ())

    def touch(self, keys: Iterable[str]) -> None:
        """Count passages in memory as used, so that others leave it before them."""
        with self._lock:
            for key in keys:
                self._memory.use(key)

    @property
    def nbytes(self) -> int:
        """Size of the tensors in memory."""
        return self._memory.nbytes

    @property
    def max_bytes(self) -> int:
        """Size of what can be kept, in memory or on disk."""
        folder = self._folder if self._writes else None
        return max(self._memory.max_bytes, folder.max_bytes if folder else 0)

    @property
    def on_disk(self) -> bool:
        """Whether passages are looked up on disk."""
        return self._folder is not None and self._reads

    @property
    def statistics(self) -> StoreStatistics:
        """What is in the store and how often it helped."""
        folder = self._folder
        disk = (len(folder.keys()), folder.nbytes) if folder else (0, 0)
        with self._lock:
            return StoreStatistics(
                memory_entries=len(self._memory),
                memory_bytes=self._memory.nbytes,
                disk_entries=disk[0],
                disk_bytes=disk[1],
                memory_hits=self._memory_hits,
                disk_hits=self._disk_hits,
                misses=self._misses,
                damaged=self._damaged,
            )

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return what was stored under a key, or None.

        Args:
            key: SHA-256 in hexadecimal digits, of everything that the tensors depend on.

        Returns:
            The tensors, on the CPU. They belong to the store: do not change them in place.

        Raises:
            InvalidInputError: This is not such a key.
        """
        folder = self._folder if self._reads else None
        with self._lock:
            tensors = self._memory.use(key)
            self._memory_hits += tensors is not None
        if tensors is not None:
            if folder:
                folder.use(key)
            return dict(tensors)
        _check_key(key)  # before it becomes a file's name
        tensors = self._read(folder, key) if folder else None
        with self._lock:
            if tensors is None:
                self._misses += 1
                return None
            self._disk_hits += 1
            self._remember(key, tensors)
        return dict(tensors)

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep copies of tensors; the least recently used passages go when a limit is reached.

        Tensors that are larger than a limit are not kept there.

        Args:
            key: As for `get`; what was kept under it before is replaced.
            tensors: On any device, of any strides.

        Raises:
            InvalidInputError: This is not such a key.
        """
        _check_key(key)
        folder = self._folder if self._writes else None
        if not (self._memory.max_bytes or folder):
            return
        # A slice of a batch would keep the whole batch in memory.
        copies = {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        with self._lock:
            self._remember(key, copies)
        if folder:
            self._write(folder, key, copies)

    def clear(self) -> None:
        """Forget everything, in memory and on disk.

        Raises:
            InvalidInputError: A file cannot be deleted.
        """
        with self._lock:
            self._memory = ByteLRU(self._memory.max_bytes)
        self.encodings.clear()
        if self._folder:
            self._folder.clear()

    def read_speed(self) -> ReadSpeed | None:
        """Return how fast passages are read from disk; None if they are not, or it is unknown.

        The first call for a folder measures it, which takes a fraction of a second; the result is
        kept in the folder. It writes files, drops them from the page cache where the system
        allows that, and reads them as `get` does. What is in the page cache is read faster.
        """
        folder = self._folder
        if folder is None or not self._reads:
            return None
        try:
            return folder.read_speed(lambda: measure_read_speed(folder.path))
        except (OSError, SafetensorError) as error:
            self._stop_writing(folder, error)
            return None

    def weigh(self, model: str, bytes_per_token: int, tokens_per_second: float) -> None:
        """Leave the disk if a model reads passages sooner than they come from there.

        How fast the model reads is kept in the folder: in a later process it is known before
        anything was read. A store that serves several models leaves the disk for all of them.

        Args:
            model: The model and its device.
            bytes_per_token: Size of what is kept of a token.
            tokens_per_second: How fast the model reads; 0: not measured in this process.
        """
        folder = self._folder
        if folder is None or not self._reads:
            return
        known = folder.model_speed(model)
        if known is None or tokens_per_second > _FASTER * known.tokens_per_second:
            if not tokens_per_second:
                return
            known = ModelSpeed(tokens_per_second=tokens_per_second, bytes_per_token=bytes_per_token)
            folder.note_model_speed(model, known)
        disk = self.read_speed()
        if disk and not keeping_pays(known, disk):
            logger.info("%s reads faster than %s: passages are not kept there", model, folder.path)
            self.leave_disk()

    def leave_disk(self) -> None:
        """Neither read nor write the folder from now on; what is in it stays until `clear`."""
        self._reads = self._writes = False

    def _remember(self, key: str, tensors: dict[str, Tensor]) -> None:
        nbytes = sum(tensor.nbytes for tensor in tensors.values())
        self._memory.remove(key)
        if nbytes <= self._memory.max_bytes:
            self._memory.shrink(nbytes)
            self._memory.add(key, tensors, nbytes)

    def _read(self, folder: PassageFolder, key: str) -> dict[str, Tensor] | None:
        try:
            data = folder.read(key)
            if data is None:
                return None
            tensors = decode_passage(key, data)
            if tensors is None:
                folder.remove(key)
        except OSError as error:
            logger.warning("Passages on disk are left alone: cannot use %s: %s", folder.path, error)
            self.leave_disk()
            return None
        with self._lock:
            self._damaged += tensors is None
        return tensors

    def _write(self, folder: PassageFolder, key: str, tensors: Mapping[str, Tensor]) -> None:
        try:
            folder.write(key, lambda file: save_passage(key, tensors, file))
        except (OSError, SafetensorError, FinchError) as error:
            self._stop_writing(folder, error)

    def _stop_writing(self, folder: PassageFolder, error: Exception) -> None:
        """Continue with what can be read."""
        with self._lock:
            first, self._writes = self._writes, False
        if first:
            logger.warning(
                "No more passages are kept on disk: cannot write to %s: %s", folder.path, error
            )


def _check_key(key: str) -> None:
    if not is_key(key):
        raise InvalidInputError(
            f"a passage's key must be a SHA-256 in 64 hexadecimal digits, got {key!r}"
        )
