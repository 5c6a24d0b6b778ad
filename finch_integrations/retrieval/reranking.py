"""Cross-encoders from any library, with one interface."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finch_integrations.errors import (
    ConfigurationError,
    MissingExtraError,
    ModelLoadError,
    install_command,
)
from finch_integrations.hub import is_out_of_reach, offline_hint

# Scores (query, text) pairs; higher is better.
Reranker = Callable[[Sequence[tuple[str, str]]], list[float]]


def as_reranker(model: Any) -> Reranker:
    """Take a cross-encoder by name or from any known library.

    Args:
        model: The name of a sentence-transformers CrossEncoder, loaded when it is first used;
            an object with `predict` (sentence-transformers) or `score` (LangChain); or a
            function of (query, text) pairs that returns their scores.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(model, str):
        return _checked(_by_name(model))
    for method in ("predict", "score"):
        if hasattr(model, method):
            return _checked(getattr(model, method))
    if callable(model):
        return _checked(model)
    raise ConfigurationError(
        "the reranker must be the name of a CrossEncoder, have predict or score, or be a "
        f"function of (query, text) pairs, got {type(model).__name__}"
    )


def _checked(score: Callable[[list[tuple[str, str]]], Any]) -> Reranker:
    def rerank(pairs: Sequence[tuple[str, str]]) -> list[float]:
        returned = score(list(pairs))
        try:
            scores = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(
                f"the reranker must return one score per pair, got {type(returned).__name__} "
                f"({error})"
            ) from error
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise ModelLoadError(
                f"the reranker must return one finite score per pair, got an array of shape "
                f"{scores.shape} for {len(pairs)} pairs"
            )
        return [float(value) for value in scores]

    return rerank


def _by_name(name: str) -> Callable[[list[tuple[str, str]]], Any]:
    loaded: list[Any] = []

    def predict(pairs: list[tuple[str, str]]) -> Any:
        if not loaded:
            loaded.append(_load(name))
        return loaded[0].predict(pairs, show_progress_bar=False)

    return predict


def _load(name: str) -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingExtraError(
            f"reranking needs an extra: {install_command('retrieval')}"
        ) from error
    local = is_out_of_reach(name)
    try:
        return CrossEncoder(name, local_files_only=local)
    except Exception as error:  # fails in many ways: no such model, no connection, damaged files
        raise ModelLoadError(
            f"the cross-encoder {name!r} cannot be loaded ({error}).{offline_hint(local)} "
            "Give a hub id or a folder of a sentence-transformers CrossEncoder"
        ) from error
