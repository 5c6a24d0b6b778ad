"""Which hits are returned: within the token budget, as chunks or as whole documents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finch_integrations.errors import InvalidInputError
from finch_integrations.retrieval.collection import Collection
from finch_integrations.types import Document

# Names in a result's metadata.
SCORES = ("bm25_score", "dense_score", "fused_score", "rerank_score", "score")


def select_hits(
    hits: Sequence[Document], max_document_tokens: int | None, count_tokens: Callable[[str], int]
) -> list[Document]:
    """Take hits, best first, that together fit the budget.

    Args:
        hits: Chunks, best first.
        max_document_tokens: The budget; None: all hits.
        count_tokens: Counts a text's tokens.

    Raises:
        InvalidInputError: None fits.
    """
    return list(_within(((hit,) for hit in hits), max_document_tokens, count_tokens))


def select_parents(
    hits: Sequence[Document],
    collection: Collection,
    max_document_tokens: int | None,
    count_tokens: Callable[[str], int],
) -> list[Document]:
    """Take the documents that hits are in; a hit itself where its document does not fit.

    Args:
        hits: Chunks, best first.
        collection: Has the documents.
        max_document_tokens: The budget; None: all.
        count_tokens: Counts a text's tokens.

    Returns:
        Documents with the scores of their best hit, in the collection's order.

    Raises:
        InvalidInputError: Not one result fits.
    """

    def place(result: Document) -> tuple[int, int]:
        start = result.metadata.get("start_index")
        position = collection.position(collection.document_id(result))
        return position, start if isinstance(start, int) else 0

    choices = ((*_parent(hit, collection), hit) for hit in hits)
    return sorted(_within(choices, max_document_tokens, count_tokens), key=place)


def with_metadata(document: Document, metadata: Mapping[str, Any]) -> Document:
    """Copy a document with more metadata."""
    return replace(document, metadata={**document.metadata, **metadata})


def _parent(hit: Document, collection: Collection) -> Iterator[Document]:
    """The document a hit is in, with the hit's scores.

    None if the hit is a document itself, or if only a wrapped store has its document.
    """
    parent = collection.document(collection.document_id(hit))
    if parent is not None and collection.chunk_size is not None:
        scores = {name: hit.metadata[name] for name in SCORES if name in hit.metadata}
        yield with_metadata(parent, {"document_id": parent.id, **scores})


def _within(
    choices: Iterator[tuple[Document, ...]],
    max_document_tokens: int | None,
    count_tokens: Callable[[str], int],
) -> Iterator[Document]:
    """From every list of alternatives take the first that fits what is left of the budget."""
    left = max_document_tokens
    taken: set[str | None] = set()
    shortest: int | None = None
    for candidates in choices:
        if candidates[0].id in taken:
            continue
        for candidate in candidates:
            if left is not None:
                tokens = count_tokens(candidate.text)
                if tokens > left:
                    shortest = tokens if shortest is None else min(shortest, tokens)
                    continue
                left -= tokens
            taken.add(candidate.id)
            yield candidate
            break
    if shortest is not None and not taken:
        raise InvalidInputError(
            f"no result fits max_document_tokens={max_document_tokens}: the shortest has "
            f"{shortest} tokens. Raise max_document_tokens, or index with a smaller chunk_size"
        )
