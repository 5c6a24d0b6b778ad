"""Embedding models from any library, with one interface."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finch_integrations.errors import (
    ConfigurationError,
    MissingExtraError,
    ModelLoadError,
    install_command,
)
from finch_integrations.hub import is_out_of_reach, offline_hint
from finch_integrations.retrieval import embedder


class Encoder(Protocol):
    """Turns texts into vectors whose directions show how related they are.

    Attributes:
        name: Distinguishes encoders with different vectors.
    """

    name: str

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Encode texts to search in, [N, D]."""
        ...

    def encode_query(self, query: str) -> Any:
        """Encode a query, [D]."""
        ...


class SentenceTransformerEncoder:
    """A sentence-transformers model, loaded when it is first used."""

    def __init__(
        self, model: str = embedder.NAME, *, device: str | None = None, download: bool = True
    ) -> None:
        """Name a model.

        Args:
            model: `embedded` (all-MiniLM-L6-v2, see `finch fetch`), a hub id or a folder.
            device: Default: the accelerator if there is one.
            download: Whether a hub model may be fetched if it is not on this machine.
        """
        self.name = model
        self._download = download
        self._device = device
        self._model: Any = None

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Encode texts to search in, [N, D] float32.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            MissingExtraError: sentence-transformers is not installed.
        """
        return self._loaded().encode_document(list(texts), show_progress_bar=False)

    def encode_query(self, query: str) -> Any:
        """Encode a query, [D] float32; errors as for `encode_documents`."""
        return self._loaded().encode_query(query, show_progress_bar=False)

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = _load(self.name, self._device, self._download)
        return self._model


def is_embedded(encoder: Encoder) -> bool:
    """Whether it is the embedded model, which is pinned: two of them give the same vectors."""
    return isinstance(encoder, SentenceTransformerEncoder) and encoder.name == embedder.NAME


class _Adapter:
    """Another library's embedding model, or one without a name."""

    def __init__(
        self,
        model: Any,
        documents: Callable[[list[str]], Any],
        query: Callable[[str], Any],
    ) -> None:
        self.name = _name(model)
        self._documents = documents
        self._query = query

    def encode_documents(self, texts: Sequence[str]) -> Any:
        return self._documents(list(texts))

    def encode_query(self, query: str) -> Any:
        return self._query(query)


def as_encoder(model: Any) -> Encoder:
    """Take an embedding model by name or from any known library.

    Args:
        model: An `Encoder`; the name of a sentence-transformers model, or such a model; or an
            embedding model of LangChain or LlamaIndex. One without a `name` is named by its type
            and, if known, its model.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(model, str):
        return SentenceTransformerEncoder(model)
    if hasattr(model, "encode_documents") and hasattr(model, "encode_query"):
        if not isinstance(getattr(model, "name", None), str):
            return _Adapter(model, model.encode_documents, model.encode_query)
        encoder: Encoder = model
        return encoder
    if hasattr(model, "encode_document") and hasattr(model, "encode_query"):
        return _Adapter(model, model.encode_document, model.encode_query)
    if hasattr(model, "embed_documents") and hasattr(model, "embed_query"):
        return _Adapter(model, model.embed_documents, model.embed_query)
    if hasattr(model, "get_text_embedding_batch") and hasattr(model, "get_query_embedding"):
        return _Adapter(model, model.get_text_embedding_batch, model.get_query_embedding)
    raise ConfigurationError(
        "the encoder must be the name of a sentence-transformers model, an embedding model of "
        "sentence-transformers, LangChain or LlamaIndex, or have encode_documents and "
        f"encode_query; got {type(model).__name__}"
    )


def unit_vectors(vectors: Any, count: int, encoder: str) -> NDArray[np.float32]:
    """Check an encoder's vectors and scale them to length 1, [count, D].

    Raises:
        ModelLoadError: They are not `count` vectors of finite numbers.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(
            f"the encoder {encoder!r} returned {type(vectors).__name__} for {count} texts, not "
            f"numbers ({error}); it must return one vector per text"
        ) from error
    if array.ndim != 2 or len(array) != count or not array.shape[1]:
        raise ModelLoadError(
            f"the encoder {encoder!r} returned an array of shape {array.shape} for {count} "
            "texts; it must return one vector per text"
        )
    if not np.isfinite(array).all():
        raise ModelLoadError(f"the encoder {encoder!r} returned numbers that are not finite")
    # A zero vector stays zero: it is related to nothing.
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    unit: NDArray[np.float32] = array / lengths
    return unit


def _load(name: str, device: str | None, download: bool) -> Any:
    source = str(embedder.MODEL.path()) if name == embedder.NAME else name
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            f"embedding models need an extra: {install_command('retrieval')}. "
            "Or search by words alone, with encoder=None"
        ) from error
    local = not download or name == embedder.NAME or is_out_of_reach(name)
    try:
        return SentenceTransformer(source, device=device, local_files_only=local)
    except Exception as error:  # fails in many ways: no such model, no connection, damaged files
        if not download:
            raise ModelLoadError(
                f"the index needs the embedding model {name!r}, which cannot be loaded from this "
                f"machine, and nothing is fetched that an index names. Run `hf download {name}` if "
                f"you trust it, or give the encoder yourself ({error})"
            ) from error
        raise ModelLoadError(
            f"the embedding model {name!r} cannot be loaded ({error}).{offline_hint(local)} "
            "Give a hub id or a folder of a sentence-transformers model, or 'embedded'"
        ) from error


def _name(model: Any) -> str:
    """Type and, if known, model."""
    known = (getattr(model, name, None) for name in ("model_name", "model", "_name_or_path"))
    named = next((name for name in known if isinstance(name, str) and name), None)
    return type(model).__name__ + (f" {named}" if named else "")
