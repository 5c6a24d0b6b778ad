"""Selections that were made lately: the same question to the same documents is answered at once."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.selection import Selection
from finch_integrations.types import Document

_ENTRIES = 64


class SelectionCache:
    """The last selections by what was asked; in memory, thread-safe."""

    def __init__(self, entries: int = _ENTRIES) -> None:
        """Start empty.

        Args:
            entries: How many selections to keep.
        """
        self._entries = entries
        self._lock = threading.Lock()
        self._selections: OrderedDict[str, Selection] = OrderedDict()

    def get(self, key: str) -> Selection | None:
        """Return the selection that was put under a key, or None."""
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
            return self._selections.get(key)

    def put(self, key: str, selection: Selection) -> None:
        """Keep a selection; the one that was not used for longest goes."""
        with self._lock:
            self._selections[key] = selection
            self._selections.move_to_end(key)
            while len(self._selections) > self._entries:
                self._selections.popitem(last=False)


def digest_documents(documents: Sequence[Document]) -> str:
    """Hash what a selection depends on of its documents: ids, titles and texts."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.title, document.text):
            content = b"-" if part is None else b"+" + part.encode()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def selection_key(
    documents: str, prompt: Prompt, config: CompressionConfig, target: int, models: Sequence[str]
) -> str:
    """Name everything that a selection depends on.

    Args:
        documents: From `digest_documents`.
        prompt: What is asked.
        config: How it is chosen.
        target: How much.
        models: Fingerprints of the model that is chosen for and of the one that reads.
    """
    return repr((documents, prompt, config, target, tuple(models)))


def repeated(selection: Selection, seconds: float) -> Selection:
    """The same selection, made again: nothing was read for it."""
    stats = replace(selection.stats, read_tokens=0, peak_kv_tokens=0, seconds=seconds)
    return replace(selection, stats=stats)
