"""`finch models` and `finch fetch`."""

import json
from pathlib import Path
from typing import Any

from finch_integrations.cli import console


def run_models(*, as_json: bool) -> None:
    """List this package's models and those in the Hugging Face cache."""
    from finch_integrations.engine import embedded
    from finch_integrations.retrieval import embedder

    stored = (embedded.MODEL.stored(), embedder.MODEL.stored())
    rows: list[dict[str, Any]] = [
        {"model": model.name, "path": str(model.path), "bytes": model.nbytes}
        for model in stored
        if model
    ]
    rows += _hub_models()
    if as_json:
        console.write(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not rows:
        console.note("no models on this machine; `finch fetch` downloads the embedded one")
    for row in [] if as_json else rows:
        console.write(f"{row['model']}  {row['bytes'] / 1e6:,.0f} MB  {row['path']}")


def run_fetch(*, model: bool, embedder: bool) -> None:
    """Make the embedded models available."""
    fetched = []
    if model:
        with console.busy("Fetching and converting the embedded model"):
            from transformers.utils import logging

            from finch_integrations.engine.embedded import MODEL

            logging.disable_progress_bar()
            fetched.append(MODEL.fetch())
    if embedder:
        with console.busy("Fetching the embedding model"):
            from finch_integrations.retrieval.embedder import MODEL as EMBEDDER

            fetched.append(EMBEDDER.fetch())
    for stored in fetched:
        console.write(f"{stored.name}  {stored.nbytes / 1e6:,.0f} MB  {stored.path}")


def _hub_models() -> list[dict[str, Any]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    if not Path(HF_HUB_CACHE).is_dir():
        return []
    return [
        {"model": repo.repo_id, "path": str(repo.repo_path), "bytes": repo.size_on_disk}
        for repo in sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
        if repo.repo_type == "model"
    ]
