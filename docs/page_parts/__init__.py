"""Parts of the pages that are made from code and results when the site is built."""

from collections.abc import Callable
from functools import partial

from page_parts import answers, caches, prices, read_less, reference, results

PARTS: dict[str, Callable[[], str]] = {
    "answers": answers.written,
    "auto_size": results.auto_size,
    "cascade": read_less.cascade,
    "cascade_choice": read_less.cascade_choice,
    "commands": reference.commands,
    "elsewhere": results.elsewhere,
    "first_token": results.first_token,
    "hybrids": results.hybrids,
    "kv_bytes": caches.kv_bytes,
    "length": prices.length,
    "long_sets": answers.long_sets,
    "memory": caches.memory,
    "near_copies": results.near_copies,
    "prefill": prices.prefill,
    "price": prices.price,
    "price_of_length": prices.price_of_length,
    "price_of_many": prices.price_of_many,
    "price_of_rows": prices.price_of_rows,
    "public_names": reference.overview,
    "quality": results.quality,
    "read_cap": read_less.read_cap,
    "recall": results.recall,
    "scale": results.scale,
    "same_items": results.same_items,
    "searched": results.searched,
    "start": prices.start,
    "two_steps": results.two_steps,
}
PARTS |= {
    f"names_{reference.page_of(package)[4:-3].replace('-', '_')}": partial(
        reference.public_names, package
    )
    for package in reference.PACKAGES
}
