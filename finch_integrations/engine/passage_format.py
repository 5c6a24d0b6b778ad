"""A passage as a file: safetensors with a checksum."""

import json
import statistics
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from finch_integrations.engine.passage_files import draft, drop_from_page_cache
from finch_integrations.engine.passage_settings import ReadSpeed

# Increased when the files change, so that older ones are not used.
_FORMAT = "finch-passage-1"
# Files and their size for measuring how fast they are read: about that of a passage.
_PROBES = 8
_PROBE_BYTES = 2 << 20


def save_passage(key: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a passage's file.

    Raises:
        OSError: It cannot be written.
        SafetensorError: Likewise.
    """
    metadata = {"format": _FORMAT, "key": key, "checksum": _checksum(key, tensors)}
    safetensors.torch.save_file(dict(tensors), path, metadata=metadata)


def decode_passage(key: str, data: bytes) -> dict[str, Tensor] | None:
    """Read a file's content; None if it is damaged, of another format or of another key.

    It is read from memory, not mapped: a mapped file that another process truncates kills this one.
    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        expected = {"format": _FORMAT, "key": key, "checksum": _checksum(key, tensors)}
        return tensors if metadata == expected else None
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _checksum(key: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of names, types, shapes and numbers."""
    value = zlib.crc32(key.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def measure_read_speed(folder: Path) -> ReadSpeed:
    """Write files as large as a passage and read them as a store does.

    Raises:
        OSError: They cannot be written or read.
        SafetensorError: They cannot be written.
    """
    # Not zeros, which some file systems do not store; and not from the global random state.
    random = torch.randint(255, (_PROBE_BYTES,), generator=torch.Generator(), dtype=torch.uint8)
    key = "0" * 64
    seconds = []
    cold = []
    for _ in range(_PROBES):
        with draft(folder, lambda file: save_passage(key, {"probe": random}, file)) as path:
            cold.append(drop_from_page_cache(path))
            begin = time.perf_counter()
            decode_passage(key, path.read_bytes())
            seconds.append(time.perf_counter() - begin)
    speed = _PROBE_BYTES / statistics.median(seconds)
    return ReadSpeed(bytes_per_second=speed, cold=all(cold))
