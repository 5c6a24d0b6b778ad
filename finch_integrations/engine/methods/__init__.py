"""Compression methods: each decides which document tokens stay in the cache.

A method is a function (backbone, prompt, plan, config, on_chunk) -> Compressed, named in `METHODS`.
One that keeps whole passages only says how it rates them, and is named in `RATINGS`.
"""

from finch_integrations.engine.methods.base import Compressed, Method, OnChunk
from finch_integrations.engine.methods.contrast import rate_by_contrast
from finch_integrations.engine.methods.finch import compress_finch
from finch_integrations.engine.methods.full import keep_everything
from finch_integrations.engine.methods.likelihood import rate_by_likelihood
from finch_integrations.engine.methods.passages import Rate, keep_passages
from finch_integrations.engine.support import ModelSpec
from finch_integrations.errors import ConfigurationError, UnsupportedModelError

RATINGS: dict[str, Rate] = {"likelihood": rate_by_likelihood, "contrast": rate_by_contrast}
METHODS: dict[str, Method] = {
    **{name: keep_passages(rate) for name, rate in RATINGS.items()},
    "finch": compress_finch,
}

__all__ = [
    "METHODS",
    "RATINGS",
    "Compressed",
    "Method",
    "OnChunk",
    "Rate",
    "get_method",
    "keep_everything",
]


def get_method(name: str, spec: ModelSpec) -> Method:
    """Look up a method for a model.

    Raises:
        ConfigurationError: There is no such method.
        UnsupportedModelError: It cannot compress for this model.
    """
    if name not in METHODS:
        raise ConfigurationError(f"unknown method {name!r}. Known: {', '.join(sorted(METHODS))}")
    if spec.sliding and name != "likelihood":
        raise UnsupportedModelError(
            f"the method {name!r} cannot compress for this model: some of its layers see a "
            f"sliding window of {spec.sliding} tokens only. Use method='likelihood'"
        )
    return METHODS[name]
