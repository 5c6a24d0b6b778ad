"""Compression methods: each decides which document tokens stay in the cache.

A method is a function (backbone, prompt, plan, config, on_chunk) -> Compressed. To add one,
write it in a file of its own and name it in `METHODS`.
"""

from finch_integrations.engine.methods.base import Compressed, Method, OnChunk
from finch_integrations.engine.methods.contrast import compress_contrast
from finch_integrations.engine.methods.finch import compress_finch
from finch_integrations.engine.methods.full import keep_everything
from finch_integrations.errors import ConfigurationError

METHODS: dict[str, Method] = {"contrast": compress_contrast, "finch": compress_finch}

__all__ = ["METHODS", "Compressed", "Method", "OnChunk", "get_method", "keep_everything"]


def get_method(name: str) -> Method:
    """Look up a method.

    Raises:
        ConfigurationError: There is no such method.
    """
    if name not in METHODS:
        raise ConfigurationError(f"unknown method {name!r}. Known: {', '.join(sorted(METHODS))}")
    return METHODS[name]
