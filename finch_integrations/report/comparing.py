"""Other ways to spend the same budget, to be shown next to what was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from finch_integrations.config import with_overrides
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.engine import FinchEngine
from finch_integrations.engine.methods import METHODS
from finch_integrations.errors import ConfigurationError
from finch_integrations.types import Document, Excerpt

# About as long as the segments of the default method.
_CHUNK_SIZE = 400


def check_comparison(what: str) -> None:
    """Refuse what `compare_with` cannot do, before anything slow happens.

    Raises:
        ConfigurationError: It is no method, no number of tokens and not `hybrid`.
        ModelLoadError: `hybrid` needs the embedding model, which has not been fetched.
    """
    if what == "hybrid":
        from finch_integrations.retrieval.embedder import MODEL

        MODEL.path()
    elif what not in METHODS and not (what.isdecimal() and int(what) > 0):
        raise ConfigurationError(
            f"{what!r} is nothing to compare with. Give a method ({', '.join(METHODS)}), a number "
            "of tokens to keep, or hybrid: retrieval by words and meaning"
        )


def compare_with(
    what: str,
    engine: FinchEngine,
    documents: Sequence[Document],
    question: str,
    kept_tokens: int,
    compression: Mapping[str, Any],
) -> CompressedContext | tuple[Excerpt, ...]:
    """Choose from the same documents in another way.

    Args:
        what: A method, with the same budget; a number of tokens, as another budget for the same
            method; or `hybrid`: the best chunks of a retrieval by words and meaning, in the same
            budget.
        engine: Compresses, and counts tokens.
        documents: With their ids.
        question: The question.
        kept_tokens: The budget.
        compression: Options of the compression that is compared.

    Raises:
        FinchError: As `FinchEngine.compress` and `HybridRetriever.retrieve` raise it.
    """
    if what == "hybrid":
        return _retrieve(engine, documents, question, kept_tokens)
    if what.isdecimal():
        unlike = ("compression_ratio", "max_kv_bytes")
        options = {name: compression[name] for name in compression if name not in unlike}
        options["target_size"] = int(what)
    else:
        # What else was set may not be an option of the other method.
        chunk_length = with_overrides(engine.compression, compression).chunk_length
        options = {"method": what, "target_size": kept_tokens, "chunk_length": chunk_length}
    return engine.compress(documents, question, **options)


def _retrieve(
    engine: FinchEngine, documents: Sequence[Document], question: str, budget: int
) -> tuple[Excerpt, ...]:
    from finch_integrations.retrieval.hybrid import HybridRetriever

    # Without metadata, which could say that a document is a part of another one.
    plain = [Document(document.text, document.id) for document in documents]
    retriever = HybridRetriever.from_documents(
        plain, encoder="embedded", chunk_size=_CHUNK_SIZE, count_tokens=engine.count_tokens
    )
    found = retriever.retrieve(
        question, top_k=len(retriever.collection), max_document_tokens=budget, return_parents=False
    )
    return tuple(
        Excerpt(
            document_id=hit.metadata["document_id"],
            start=hit.metadata["start_index"],
            end=hit.metadata["end_index"],
            text=hit.text,
            score=hit.metadata["score"],
        )
        for hit in found
    )
