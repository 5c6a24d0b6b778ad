"""LlamaIndex's metadata filters as functions of a node's metadata."""

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from finch_integrations.errors import ConfigurationError, InvalidInputError

Predicate = Callable[[Mapping[str, Any]], bool]


def as_predicate(filters: object) -> Predicate:
    """Make a function of filters; they may be nested.

    Raises:
        ConfigurationError: They are no `MetadataFilters`.
    """
    if not isinstance(filters, MetadataFilters):
        raise ConfigurationError(
            f"filters must be MetadataFilters, got {type(filters).__name__}. A mapping of metadata "
            "names to values, or a function of the metadata, is given as filter=…"
        )
    parts = [
        as_predicate(one) if isinstance(one, MetadataFilters) else _single(one)
        for one in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return lambda metadata: any(part(metadata) for part in parts)
    if filters.condition == FilterCondition.NOT:
        return lambda metadata: not any(part(metadata) for part in parts)
    return lambda metadata: all(part(metadata) for part in parts)


def _single(one: Any) -> Predicate:
    # LlamaIndex looks the metadata up by a node's id; here it is the metadata itself.
    lookup: Any = lambda metadata: metadata  # noqa: E731
    matches: Any = build_metadata_filter_fn(lookup, MetadataFilters(filters=[one]))

    def predicate(metadata: Mapping[str, Any]) -> bool:
        try:
            return bool(matches(metadata))
        except TypeError as error:
            raise InvalidInputError(
                f"the filter on {one.key!r} cannot be applied to {metadata.get(one.key)!r}: {error}"
            ) from error

    return predicate
