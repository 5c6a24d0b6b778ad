"""`finch cache`, run in process."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from finch_integrations.cli.app import app
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.storage import passages_folder

run = CliRunner().invoke


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path))
    return tmp_path / "passages"


@pytest.fixture
def store(folder):
    store = PassageStore(folder=passages_folder(), disk_bytes=50_000_000)
    for number in range(3):
        store.put(f"{number:064x}", {"keys": torch.zeros(250_000)})
    return store


def test_a_folder_that_does_not_exist_is_empty_and_not_made(folder):
    result = run(app, ["cache"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder}\n0 passages, 0 MB\nreading speed not measured yet\n"
    assert run(app, ["cache", "--clear"]).exit_code == 0
    assert not folder.exists()


def test_passages_sizes_and_speed_are_shown(folder, store):
    result = run(app, ["cache"])
    lines = [str(folder), "3 passages, 3 MB of at most 50 MB", "reading speed not measured yet"]
    assert result.stdout.splitlines() == lines
    speed = store.read_speed()
    where = "from the device" if speed.cold else "from the page cache"
    shown = run(app, ["cache"]).stdout.splitlines()[-1]
    assert shown == f"read at {speed.bytes_per_second / 1e6:,.0f} MB/s, {where}"


def test_json_has_everything(folder, store):
    facts = json.loads(run(app, ["cache", "--json"]).stdout)
    assert facts == {
        "folder": str(folder),
        "passages": 3,
        "bytes": store.statistics.disk_bytes,
        "max_bytes": 50_000_000,
        "read_bytes_per_second": None,
        "read_cold": None,
        "models": {},
        "removed": 0,
    }
    speed = store.read_speed()
    facts = json.loads(run(app, ["cache", "--json"]).stdout)
    assert (facts["read_bytes_per_second"], facts["read_cold"]) == (
        speed.bytes_per_second,
        speed.cold,
    )


def test_whether_keeping_pays_for_a_model_is_shown(folder, store):
    store.weigh("slow on cpu", 20_000, 100.0)
    store.weigh("fast on cuda", 20_000, 1e9)
    lines = run(app, ["cache"]).stdout.splitlines()
    assert lines[-2:] == [
        "slow on cpu: reads 100 tokens/s, which is 2 MB/s; used",
        "fast on cuda: reads 1,000,000,000 tokens/s, which is 20,000,000 MB/s; "
        "not used: reading again is faster",
    ]
    models = json.loads(run(app, ["cache", "--json"]).stdout)["models"]
    assert models["slow on cpu"] == {
        "tokens_per_second": 100.0,
        "bytes_per_token": 20_000,
        "kept_on_disk": True,
    }
    assert not models["fast on cuda"]["kept_on_disk"]


def test_clear_deletes_the_passages_and_says_how_many(folder, store):
    result = run(app, ["cache", "--clear"])
    assert result.stderr == "deleted 3 passages, 3 MB\n"
    assert "0 passages, 0 MB of at most 50 MB" in result.stdout
    assert not list(folder.rglob("*.safetensors"))
    store.put("a" * 64, {"keys": torch.zeros(1)})
    facts = json.loads(run(app, ["cache", "--clear", "--json"]).stdout)
    assert (facts["removed"], facts["passages"]) == (1, 0)


def test_another_folder_can_be_named(tmp_path, store):
    result = run(app, ["cache", "--folder", str(tmp_path / "elsewhere"), "--clear"])
    assert result.exit_code == 0, result.output
    assert len(PassageStore(folder=passages_folder())) == 3


def test_a_folder_of_other_files_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for more in ([], ["--clear"]):
        result = run(app, ["cache", "--folder", str(tmp_path), *more])
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {tmp_path} holds other files than passages")
    assert (tmp_path / "notes.txt").exists()


def test_the_command_starts_without_torch(store):
    code = (
        "import sys\n"
        "from finch_integrations.cli.cache import run_cache\n"
        "run_cache(None, empty=False, as_json=False)\n"
        "print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.splitlines()[-1] == "False", output.stderr
