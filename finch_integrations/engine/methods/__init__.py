"""Compression methods by name.

A `PassageMethod` scores passages and leaves the rest to the engine; a `TokenMethod` does the whole
compression. Both say what they need from a model.
"""

from finch_integrations.engine.methods.base import (
    Evicted,
    Method,
    OnChunk,
    PassageMethod,
    Reading,
    SegmentScorer,
    TokenMethod,
)
from finch_integrations.engine.methods.contrast import score_by_contrast
from finch_integrations.engine.methods.finch import evict_by_attention
from finch_integrations.engine.methods.likelihood import read_ahead, score_by_likelihood
from finch_integrations.engine.support import ModelSpec
from finch_integrations.errors import ConfigurationError, UnsupportedModelError

METHODS: dict[str, Method] = {
    "likelihood": PassageMethod(score_by_likelihood, read_ahead),
    "contrast": PassageMethod(score_by_contrast, needs=frozenset({"observe_attention"})),
    "finch": TokenMethod(evict_by_attention, frozenset({"observe_attention", "move_keys"})),
}
SEGMENT_SCORERS: dict[str, SegmentScorer] = {
    name: method.score for name, method in METHODS.items() if isinstance(method, PassageMethod)
}
METHODS_THAT_READ_AHEAD = [
    name
    for name, method in METHODS.items()
    if isinstance(method, PassageMethod) and method.read_ahead is not None
]

__all__ = [
    "METHODS",
    "METHODS_THAT_READ_AHEAD",
    "SEGMENT_SCORERS",
    "Evicted",
    "Method",
    "OnChunk",
    "PassageMethod",
    "Reading",
    "SegmentScorer",
    "TokenMethod",
    "check_method",
    "get_method",
]


def get_method(name: str) -> Method:
    """Look up a method.

    Raises:
        ConfigurationError: There is no such method.
    """
    if name not in METHODS:
        raise ConfigurationError(f"unknown method {name!r}. Known: {', '.join(sorted(METHODS))}")
    return METHODS[name]


def check_method(name: str, spec: ModelSpec) -> None:
    """Make sure that a model has what a method needs.

    Raises:
        UnsupportedModelError: It lacks something.
    """
    lacking = sorted(METHODS[name].needs & spec.lacks.keys())
    if lacking:
        others = [
            repr(other) for other, method in METHODS.items() if not method.needs & spec.lacks.keys()
        ]
        raise UnsupportedModelError(
            f"the method {name!r} cannot compress for this model: {spec.lacks[lacking[0]]}. "
            f"Use method={' or '.join(others)}"
        )
