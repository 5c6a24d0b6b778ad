"""The texts that models encoded last, as caches on their devices.

The same prompt comes before the documents in every question, and whoever asks the same again needs
the same encoding. What is taken from here is to the bit what would be made: it is found only by
exactly its tokens, fed in the same steps.
"""

import threading
from collections.abc import Callable, Sequence

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import (
    KVCache,
    cache_bytes,
    cache_length,
    new_cache,
    share_cache,
)
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.lru import ByteLRU

# Called after every step with (tokens of the last part fed so far, tokens in the KV cache).
OnChunk = Callable[[int, int], None]


class Encodings:
    """The last encodings within a byte cap; safe to use from several threads.

    Args:
        max_bytes: Most that is kept; 0: nothing is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._caches: ByteLRU[KVCache] = ByteLRU(max_bytes)

    @property
    def nbytes(self) -> int:
        """Size of the keys and values that are kept."""
        return self._caches.nbytes

    def encode(
        self,
        backbone: Backbone,
        parts: Sequence[Sequence[int]],
        chunk_length: int,
        on_chunk: OnChunk | None = None,
    ) -> KVCache:
        """Feed tokens to a new cache, or continue from what was fed before.

        Args:
            backbone: The model.
            parts: Token ids of texts that follow each other; each begins a new step.
            chunk_length: Tokens to feed per step.
            on_chunk: Called after every step of the last part.

        Returns:
            A cache of all parts, which may be grown.
        """
        if not parts:
            return new_cache()
        # Identifies keys and values to the last bit.
        devices = sorted(map(str, backbone.layer_devices))
        key = repr((backbone.fingerprint, devices, chunk_length, [tuple(ids) for ids in parts]))
        with self._lock:
            known = self._caches.use(key)
        if known is not None:
            if on_chunk:
                on_chunk(len(parts[-1]), cache_length(known))
            return share_cache(known)
        cache = self.encode(backbone, parts[:-1], chunk_length)
        for start, chunk in chunks_of(parts[-1], chunk_length):
            backbone.forward(chunk, cache)
            if on_chunk:
                on_chunk(start + len(chunk), cache_length(cache))
        nbytes = cache_bytes(cache)
        if 0 < nbytes <= self._caches.max_bytes:
            with self._lock:
                self._caches.remove(key)
                self._caches.shrink(nbytes)
                self._caches.add(key, share_cache(cache), nbytes)
        return cache

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._caches = ByteLRU(self._caches.max_bytes)
