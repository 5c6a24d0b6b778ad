"""Parts of the pages that are made from code and results when the site is built."""

from collections.abc import Callable

from page_parts import caches, front, reference, results

PARTS: dict[str, Callable[[], str]] = {
    "commands": reference.commands,
    "kv_bytes": caches.kv_bytes,
    "length": results.length,
    "memory": caches.memory,
    "prefill": results.prefill,
    "public_names": reference.public_names,
    "quality": results.quality,
    "recall": results.recall,
    "scale": results.scale,
    "shared": front.quality,
}
