"""What a question may need of a device's memory, and what is free there."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from finch_integrations.config import DEFAULT_TARGET_SIZE, CompressionConfig
from finch_integrations.engine.support import ModelSpec

# Of a batch that is read its cache exists twice while it grows, and once more when it is moved.
CACHE_COPIES = 3
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_GROUP_USE = Path("/sys/fs/cgroup/memory.current")
# Where the system does not say.
_UNKNOWN = 4 << 30


def answering_bytes(
    spec: ModelSpec, config: CompressionConfig, *, documents: int, others: int, answer: int
) -> int:
    """Bytes of keys and values that an answer needs at most.

    Args:
        spec: Of the model that answers.
        config: How its documents are compressed.
        documents: Tokens of the documents, or more; 0: there are none.
        others: Tokens of instruction, history and question.
        answer: The most tokens that are written.
    """
    kept = min(documents, _most_kept(spec, config, documents))
    return spec.kv_bytes_per_token * min(spec.window, others + kept + answer)


def reading_bytes(
    spec: ModelSpec, config: CompressionConfig, *, documents: int, others: int
) -> int:
    """Bytes of keys and values that reading documents needs at most, by chunks.

    Args:
        spec: Of the model that reads.
        config: How much it reads at once.
        documents: Tokens of the documents, or more.
        others: Tokens of instruction, history and question.
    """
    chunk = min(documents, max(config.chunk_length, config.batch_tokens or 0))
    return spec.kv_bytes_per_token * CACHE_COPIES * (chunk + min(spec.window, others))


def free_bytes(devices: Iterable[torch.device]) -> int:
    """Memory that can still be used on the fullest of some devices."""
    return min(map(_free_of, set(devices)))


def _most_kept(spec: ModelSpec, config: CompressionConfig, document_tokens: int) -> int:
    if config.fixed_size is not None:
        return config.fixed_size
    if config.compression_ratio is not None:
        return max(1, round(document_tokens * (1 - config.compression_ratio)))
    if config.max_kv_bytes is not None:
        return config.max_kv_bytes // spec.kv_bytes_per_token
    return DEFAULT_TARGET_SIZE


def _free_of(device: torch.device) -> int:
    if device.type == "cuda":
        # What torch holds without using it is free for torch.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        free = _UNKNOWN
    try:  # a container may have less
        return min(free, int(_GROUP_LIMIT.read_text()) - int(_GROUP_USE.read_text()))
    except (OSError, ValueError):
        return free
