"""Parts of the pages that are made from code and results when the site is built."""

from collections.abc import Callable
from functools import partial

from page_parts import answers, caches, reference, results

PARTS: dict[str, Callable[[], str]] = {
    "answers": answers.written,
    "cascade": results.cascade,
    "cascade_choice": results.cascade_choice,
    "commands": reference.commands,
    "elsewhere": results.elsewhere,
    "first_token": results.first_token,
    "hybrids": results.hybrids,
    "kv_bytes": caches.kv_bytes,
    "length": results.length,
    "long_sets": answers.long_sets,
    "memory": caches.memory,
    "near_copies": results.near_copies,
    "prefill": results.prefill,
    "price": results.price,
    "public_names": reference.overview,
    "quality": results.quality,
    "recall": results.recall,
    "scale": results.scale,
    "same_items": results.same_items,
    "start": results.start,
    "two_steps": results.two_steps,
}
PARTS |= {
    f"names_{reference.page_of(package)[4:-3].replace('-', '_')}": partial(
        reference.public_names, package
    )
    for package in reference.PACKAGES
}
