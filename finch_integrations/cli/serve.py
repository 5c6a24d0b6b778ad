"""`finch serve`: a server for OpenAI's clients."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finch_integrations.cli import console
from finch_integrations.pipeline.options import check_compression
from finch_integrations.pipeline.shared_engine import SharedEngine


def run_serve(
    *,
    model: str,
    scorer: str | None,
    base_url: str | None,
    index: Path | None,
    host: str,
    port: int,
    device: str | None,
    dtype: str,
    compression: Mapping[str, Any],
    limits: Mapping[str, Any],
) -> None:
    """Run the command."""
    from finch_integrations.serve import ServerSettings

    options = check_compression(compression, has_scorer=scorer is not None and base_url is None)
    settings = ServerSettings(
        host=host,
        api_key=os.environ.get("FINCH_SERVE_KEY") or None,
        compression={name: value for name, value in options.items() if value is not None},
        **limits,
    )
    answering: Any
    if base_url is None:
        answering = SharedEngine(model, scorer=scorer, device=device, dtype=dtype)
    else:
        from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
        from finch_integrations.pipeline.openai_server import OpenAIServer

        reader = SharedEngine(scorer or "embedded", device=device, dtype=dtype)
        answering = ChooseThenGenerate(OpenAIServer(base_url, model), reader)
    retriever = None
    if index is not None:
        from finch_integrations.config import RetrievalConfig
        from finch_integrations.retrieval.hybrid import HybridRetriever

        config = RetrievalConfig(top_k=20, max_document_tokens=16384, return_parents=True)
        retriever = HybridRetriever.load(index, config=config)
    from finch_integrations.serve.run import run_server

    console.note(f"finch serve: {model} on http://{host}:{port} (stop with Ctrl-C)")
    run_server(answering, port=port, retriever=retriever, encoder=_encoder(), settings=settings)


def _encoder() -> Any:
    """The embedded encoder if it is on this machine, else None."""
    from importlib.util import find_spec

    from finch_integrations.errors import ModelLoadError
    from finch_integrations.retrieval import embedder

    if find_spec("sentence_transformers") is None:
        return None
    try:
        embedder.MODEL.path()
    except ModelLoadError:
        return None
    from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

    return SentenceTransformerEncoder()
