"""Nothing of the user's is lost: what a build replaces and removes, and what it leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finch_integrations import Document, InvalidInputError
from finch_integrations.cli.app import app
from finch_integrations.retrieval import HybridRetriever, Source, build_index

ROOT = Path(__file__).parents[2]


def sources(*texts):
    return [Source(text, text, lambda text=text: Document(text, id=text)) for text in texts]


def snapshot(path):
    """Everything below a folder: files with their content, links with their target."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            found[name] = f"link to {os.readlink(file)}"
        else:
            found[name] = file.read_bytes() if file.is_file() else "folder"
    return found


def data_of(index):
    return index / json.loads((index / "index.json").read_text())["data"]


def texts_of(index):
    return [document.text for document in HybridRetriever.load(index).collection.documents]


def ours(index):
    """What a finished build has in its folder."""
    return {".lock", "index.json", data_of(index).name}


@pytest.fixture
def index(tmp_path):
    build_index(tmp_path / "index", sources("A door."))
    return tmp_path / "index"


FOREIGN = {
    "a folder called like data": {"data-2024/p.txt": "x"},
    "an empty folder called like data": {"data-2024/": None},
    "a folder called exactly like data": {"data-0123456789abcdef/p.txt": "x"},
    "a folder called like a draft": {".build-2024/p.txt": "x"},
    "an index.json of something else": {"index.json": '{"data": "x", "format": 7}'},
    "an index.json that is no mapping": {"index.json": "[1]"},
    "an index.json that is not JSON": {"index.json": "<html>"},
    "an index.json and other files": {"index.json": "{}", "main.js": "x"},
    "the draft of an index.json": {"index.json.new": "x"},
    "a file beside": {"notes.txt": "x"},
    "a hidden file": {".gitignore": "*"},
    "another lock": {".lock": "pid 12"},
    "an index of the first format": {
        "index.json": '{"format": 1, "data": "data-01234567", "settings": {}}',
        "data-01234567/documents.jsonl": "x",
        ".lock": "",
    },
}


def fill(folder, files):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            file.mkdir()
        else:
            file.write_text(text)


def by_build(path):
    build_index(path, sources("A boat."))


def by_save(path):
    HybridRetriever.from_documents(["A boat."]).save(path)


@pytest.mark.parametrize("write", [by_build, by_save])
@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_no_index_is_refused_and_stays_as_it_was(tmp_path, files, write):
    fill(tmp_path / "project", files)
    before = snapshot(tmp_path)
    with pytest.raises(InvalidInputError, match="new folder"):
        write(tmp_path / "project")
    assert snapshot(tmp_path) == before


def test_the_command_refuses_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, {"a.txt": "A boat.", "project/data-2024/p.txt": "x"})
    before = snapshot(tmp_path)
    result = CliRunner().invoke(app, ["index", "a.txt", "--out", "project", "--encoder", "none"])
    assert result.exit_code == 1
    assert "project is not an index: it holds data-2024" in result.stderr
    assert snapshot(tmp_path) == before


def test_an_index_of_the_first_format_is_to_be_built_again_elsewhere(tmp_path):
    fill(tmp_path, FOREIGN["an index of the first format"])
    with pytest.raises(InvalidInputError, match="format 1, .*Build it again"):
        HybridRetriever.load(tmp_path)


@pytest.mark.parametrize("name", ["index.json", ".lock"])
def test_links_in_place_of_our_files_are_not_written_through(tmp_path, index, name):
    target = tmp_path / "mine"
    (index / name).rename(target)
    (index / name).symlink_to(target)
    before = snapshot(tmp_path)
    with pytest.raises(InvalidInputError, match=f"it holds {name}"):
        by_build(index)
    assert snapshot(tmp_path) == before


def test_a_link_to_a_lock_elsewhere_is_refused_in_a_new_folder(tmp_path):
    fill(tmp_path, {"mine": "", "new/": None})
    (tmp_path / "new" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InvalidInputError, match="it holds .lock"):
        by_build(tmp_path / "new")


def test_a_link_to_data_elsewhere_does_not_make_a_folder_ours(tmp_path, index):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / data_of(index).name).symlink_to(data_of(index), target_is_directory=True)
    with pytest.raises(InvalidInputError, match="it holds data-"):
        by_build(tmp_path / "new")
    assert texts_of(index) == ["A door."]


def test_what_a_dead_build_left_is_gone_before_the_next_one_writes(index):
    fill(index, {"data-0123456789abcdef/finch-index-data.json": ""})
    seen = []
    build_index(
        index,
        sources("A boat."),
        progress=lambda _: seen.append((index / "data-0123456789abcdef").exists()),
    )
    assert seen
    assert not any(seen)


def test_an_empty_folder_and_a_folder_with_only_our_lock_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    fill(tmp_path, {"locked/.lock": ""})
    for name in ("empty", "locked"):
        by_build(tmp_path / name)
        assert texts_of(tmp_path / name) == ["A boat."]


@pytest.mark.parametrize("write", [by_build, by_save])
def test_what_the_user_put_into_an_index_survives_every_build(tmp_path, index, write):
    elsewhere = tmp_path / "elsewhere"
    marker = (data_of(index) / "finch-index-data.json").read_text()
    fill(elsewhere, {"finch-index-data.json": marker, "documents.jsonl": "x",
                     "bm25/params.index.json": "x"})  # fmt: skip
    fill(index, {"notes.txt": "x", "data-2024/p.txt": "x", ".build-2024/p.txt": "x",
                 "data-0123456789abcdef/p.txt": "x", "index.json~": "x"})  # fmt: skip
    (index / "data-fedcba9876543210").symlink_to(elsewhere, target_is_directory=True)
    mine = {name: content for name, content in snapshot(tmp_path).items()
            if name != "index/index.json" and data_of(index).name not in name}  # fmt: skip
    for _ in range(2):
        write(index)
        assert mine.items() <= snapshot(tmp_path).items()
        assert texts_of(index) == ["A boat."]


def test_what_the_user_put_into_our_data_survives_while_the_data_goes(tmp_path, index):
    old = data_of(index)
    fill(tmp_path, {"mine/params.index.json": "x"})
    fill(old, {"notes.txt": "x", "sub/p.txt": "x"})
    (old / "spans.npy").unlink()
    (old / "spans.npy").symlink_to(tmp_path / "mine" / "params.index.json")
    for _ in range(2):
        by_save(index)
        left = {name for name, content in snapshot(old).items() if content != "folder"}
        assert left == {"notes.txt", "sub/p.txt", "spans.npy", "finch-index-data.json"}
    assert (tmp_path / "mine" / "params.index.json").read_text() == "x"


def test_nothing_is_removed_through_a_linked_folder_in_our_data(tmp_path, index):
    old = data_of(index)
    (old / "bm25").rename(tmp_path / "mine")
    (old / "bm25").symlink_to(tmp_path / "mine", target_is_directory=True)
    before = snapshot(tmp_path / "mine")
    by_save(index)
    assert snapshot(tmp_path / "mine") == before


@pytest.mark.parametrize("name", ["../notes.txt", "bm25/../../notes.txt", "{path}/notes.txt", "."])
def test_a_forged_list_of_files_removes_nothing_outside(tmp_path, index, name):
    fill(index, {"notes.txt": "x"})
    marker = data_of(index) / "finch-index-data.json"
    forged = json.loads(marker.read_text())
    forged["files"].append(name.format(path=index))
    marker.write_text(json.dumps(forged))
    by_save(index)
    assert (index / "notes.txt").read_text() == "x"


@pytest.mark.parametrize("data", ["../mine", "/", "data-2024", 5, None])
def test_a_forged_place_of_the_data_is_damage(tmp_path, index, data):
    manifest = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({**manifest, "data": data}))
    with pytest.raises(InvalidInputError, match="damaged"):
        HybridRetriever.load(index)
    by_build(index)
    assert texts_of(index) == ["A boat."]
    assert {file.name for file in index.iterdir()} == ours(index)


def test_the_data_lists_exactly_what_was_written(tmp_path):
    class Encoder:
        name = "one"

        def encode_documents(self, texts):
            return [[1.0, 0.0]] * len(texts)

        def encode_query(self, query):
            return [1.0, 0.0]

    for number, (text, encoder) in enumerate([("A door.", Encoder()), ("?!", Encoder())]):
        path = tmp_path / str(number)
        build_index(path, sources(text), encoder=encoder)
        marker = json.loads((data_of(path) / "finch-index-data.json").read_text())
        assert marker["made_by"] == "finch-integrations"
        written = {name for name, content in snapshot(data_of(path)).items() if content != "folder"}
        assert written <= {*marker["files"], "finch-index-data.json"}
        build_index(path, sources("A boat."), encoder=Encoder())
        assert {file.name for file in path.iterdir()} == ours(path)


def test_an_unchanged_build_removes_what_a_dead_one_left(index):
    fill(index, {"data-0123456789abcdef/finch-index-data.json": "", "data-00/p.txt": "x"})
    (index / "data-00000000000000ff").mkdir()
    report = build_index(index, sources("A door."))
    assert report.unchanged == 1
    assert {file.name for file in index.iterdir()} == ours(index) | {"data-00"}


def test_a_first_build_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(InvalidInputError, match="nothing to index"):
        build_index(tmp_path / "deep" / "index", [])
    (tmp_path / "there").mkdir()
    with pytest.raises(InvalidInputError, match="nothing to index"):
        build_index(tmp_path / "there", [])
    assert snapshot(tmp_path) == {"there": "folder"}


def test_a_first_build_that_fails_leaves_what_came_meanwhile(tmp_path):
    path = tmp_path / "index"

    def fail(_):
        (path / "notes.txt").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(path, sources("A door."), progress=fail)
    assert (path / "notes.txt").read_text() == "x"


def test_an_index_json_that_comes_during_a_first_build_is_not_replaced(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(InvalidInputError, match="it holds index.json"):
        build_index(
            path, sources("A door."), progress=lambda _: (path / "index.json").write_text("x")
        )
    assert snapshot(path) == {".lock": b"", "index.json": b"x"}


KILLS = """
import itertools, os, signal, sys
from pathlib import Path
from finch_integrations import Document, InvalidInputError
from finch_integrations.retrieval import HybridRetriever, Source, build_index

COUNTED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
root, base = Path(sys.argv[1]), sys.argv[2] == "rebuild"

def sources(text):
    return [Source(text, text, lambda: Document(text, id=text))]

def texts(path):
    return [document.text for document in HybridRetriever.load(path).collection.documents]

def kill_at(number):
    left = itertools.count()
    def hook(event, args):
        if event in COUNTED and str(root) in str(args[0]) and next(left) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def names(path):
    return sorted(file.name.partition("-")[0] for file in path.iterdir())

build_index(root / "warm", sources("x"))  # everything is imported
texts(root / "warm")
for number in itertools.count():
    path = root / f"index{number}"
    if base:
        build_index(path, sources("old"))
        (path / "notes.txt").write_text("x")
        (path / "data-2024").mkdir()
        (path / "data-2024" / "p.txt").write_text("x")
    child = os.fork()
    if not child:
        kill_at(number)
        build_index(path, sources("new"))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, (number, status)
    if base:
        assert texts(path) in (["old"], ["new"]), number
    elif (path / "index.json").exists():
        assert texts(path) == ["new"], number
    build_index(path, sources("newer"))
    assert texts(path) == ["newer"], number
    mine = ["data", "notes.txt"] if base else []
    assert names(path) == sorted([".lock", "data", "index.json", *mine]), (number, names(path))
    if base:
        assert (path / "notes.txt").read_text() == "x"
        assert (path / "data-2024" / "p.txt").read_text() == "x"
print(number)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
@pytest.mark.parametrize("what", ["first", "rebuild"])
def test_a_build_killed_at_any_step_is_cleaned_up_by_the_next(tmp_path, what):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path), what],
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15  # so many steps were there to be killed at
