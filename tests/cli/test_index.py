"""`finch index`, `finch search` and `finch ask --index`, in process on tiny models."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finch_integrations.cli.app import app
from finch_integrations.retrieval import HybridRetriever
from tests.encoders import save_bert
from tests.tiny import make_model, make_tokenizer

run = CliRunner().invoke
HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"


@pytest.fixture(autouse=True)
def quiet_transformers(monkeypatch):
    """The command silences transformers; leave it for later tests as it was."""
    from transformers.utils import logging

    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "boats.md").write_text("# Boats\n\nThe red boat leaks.\n\n# Ice\n\nIt is thin.\n")
    (folder / "doors.txt").write_text("The door code is 4711.")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / "empty.txt").write_text("")
    return folder


@pytest.fixture
def bert(tmp_path):
    return save_bert(tmp_path / "bert")


def index(*more):
    result = run(app, ["index", "files", "--out", "idx", *more])
    assert result.exit_code == 0, result.output
    return result


def test_index_says_what_it_did_and_again_only_what_changed(files):
    result = index("--encoder", "none")
    assert result.stdout.startswith("idx: 2 documents, 2 chunks (4 files added, 0 changed, ")
    assert "skipped files/photo.jpg: files of type .jpg are not read" in result.stderr
    assert "skipped files/empty.txt: holds no text" in result.stderr
    (files / "doors.txt").write_text("The door code is 0815.")
    (files / "boats.md").unlink()
    result = index("--encoder", "none")
    assert "1 documents, 1 chunks (0 files added, 1 changed, 1 removed, 2 unchanged;" in (
        result.stdout
    )
    assert "skipped files/empty.txt" in result.stderr


def test_index_json_and_other_settings(files, bert):
    first = json.loads(index("--encoder", bert, "--json").stdout)
    assert (first["documents"], first["encoded"], first["rebuilt"]) == (2, 2, None)
    assert first["skipped"]["files/empty.txt"] == "holds no text"
    again = json.loads(index("--encoder", bert, "--json").stdout)
    assert (again["unchanged"], again["encoded"]) == (4, 0)
    result = index("--encoder", bert, "--chunk-size", "30")
    assert "rebuilt: it was built with other settings" in result.stderr
    assert "3 chunks encoded" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_index_names_what_it_cannot_enter_or_call(files):
    (files / "link").symlink_to(files)
    (files / "loop.md").symlink_to(files / "loop.md")
    (files / os.fsdecode(b"n\xe4me.txt")).write_text("A boat.")
    for _ in range(2):
        skipped = json.loads(index("--encoder", "none", "--json").stdout)["skipped"]
        assert "not followed" in skipped["files/link"]
        assert "cannot be opened" in skipped["files/loop.md"]
        assert "name that is not UTF-8" in skipped[os.fsdecode(b"files/n\xe4me.txt")]
    result = index("--encoder", "none")
    assert "skipped files/n\\udce4me.txt: has a name that is not UTF-8" in result.stderr


def test_an_index_inside_the_indexed_folder_is_not_indexed(files):
    for _ in range(2):
        result = run(app, ["index", "files", "--out", "files/idx", "--encoder", "none", "--json"])
        assert set(json.loads(result.stdout)["skipped"]) == {"files/photo.jpg", "files/empty.txt"}


def test_search_shows_place_section_and_text(files):
    index("--encoder", "none", "--chunk-size", "30")
    result = run(app, ["search", "red boat", "--index", "idx", "--top-k", "1"])
    assert result.exit_code == 0, result.output
    assert "files/boats.md:0-28  Boats\n" in result.stdout
    assert "# Boats The red boat leaks." in result.stderr


def test_search_json_is_what_the_retriever_finds(files, bert):
    index("--encoder", bert)
    result = run(app, ["search", "door code", "-i", "idx", "--json", "--bm25-weight", "2"])
    expected = HybridRetriever.load("idx").retrieve("door code", bm25_weight=2)
    found = json.loads(result.stdout)
    assert [row["id"] for row in found] == [document.id for document in expected]
    assert found[0]["text"] == "The door code is 4711."
    assert found[0]["source"] == "files/doors.txt"
    assert found[0]["score"] == expected[0].metadata["score"]
    assert {"bm25_score", "dense_score", "fused_score"} <= found[0].keys()


def test_search_that_finds_nothing_says_so(files):
    index("--encoder", "none")
    result = run(app, ["search", "zebra", "--index", "idx"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing found\n")
    assert json.loads(run(app, ["search", "zebra", "-i", "idx", "--json"]).stdout) == []


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return ["--model", str(path), "--device", "cpu", "--dtype", "float32"]


def test_ask_compresses_the_documents_that_the_index_has_on_the_question(files, model):
    index("--encoder", "none")
    options = [*model, "--target-size", "20", "--max-tokens", "3", "--json"]
    answer = json.loads(run(app, ["ask", "Which boat leaks?", "-i", "idx", *options]).stdout)
    assert [source["id"] for source in answer["sources"]] == ["files/boats.md"]
    from_file = run(app, ["ask", "Which boat leaks?", "files/boats.md", *options])
    assert answer["answer"] == json.loads(from_file.stdout)["answer"]


def test_ask_counts_the_budget_in_the_models_tokens(files, model):
    index("--encoder", "none")
    ask = ["ask", "Does the boat leak at the door?", "-i", "idx", *model, "--max-tokens", "1"]
    both = run(app, [*ask, "--json"])
    assert len(json.loads(both.stdout)["sources"]) == 2
    # One byte is one token of this model: boats.md has 57, doors.txt 22.
    one = run(app, [*ask, "--max-document-tokens", "60", "--json"])
    assert len(json.loads(one.stdout)["sources"]) == 1
    none = run(app, [*ask, "--max-document-tokens", "5"])
    assert none.exit_code == 1
    assert "no result fits max_document_tokens=5: the shortest has 22 tokens" in none.stderr


@pytest.mark.model
def test_ask_shows_file_section_and_place_of_what_the_answer_cites(
    embedded_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(HANDBOOK.parent)
    path = f"{HANDBOOK.name}/04-laboratory.md"
    arguments = ["index", path, "--out", str(tmp_path / "idx"), "--encoder", "none"]
    assert run(app, arguments).exit_code == 0
    ask = ["ask", "What is the door code of the chemical store?", "--max-tokens", "20"]
    ask += ["--target-size", "512", "--device", "cpu", "--dtype", "float32"]
    found = run(app, [*ask, "--index", str(tmp_path / "idx")])
    answer = json.loads(run(app, [*ask, path, "--json"]).stdout)
    assert found.stdout == answer["answer"] + "\n"
    (citation,) = answer["citations"]
    text = (HANDBOOK.parent / path).read_text("utf-8")
    start, end = citation["source_start"], citation["source_end"]
    assert text[start:end] == citation["text"]
    assert "7316" in citation["text"]
    assert (citation["source"], citation["section"]) == (path, "Doors and keys")
    lines = found.stderr.splitlines()
    place = lines.index(f"  {path}:{start}-{end}  Doors and keys")
    assert lines[place - 1].startswith("Citations")
    assert citation["text"][:40] in lines[place + 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "nowhere", "--out", "idx"], "no file or folder nowhere"),
        (["index", "files", "--out", "files"], "files is not an index: it holds"),
        (["index", "files", "--out", "idx", "--chunk-size", "0"], "chunk_size must be"),
        (["index", "files", "--out", "idx", "--encoder", "./no"], "'./no' cannot be loaded"),
        (["index", "files/photo.jpg", "--out", "idx", "--encoder", "none"], "nothing to index"),
        (["search", "door", "--index", "nowhere"], "there is no index at nowhere"),
        (["search", "?", "--index", "IDX"], "has no word"),
        (["search", "door", "--index", "IDX", "--top-k", "0"], "top_k must be"),
        (["search", "door", "--index", "IDX", "--bm25-weight", "0"], "only the searcher bm25"),
        (["ask", "door?"], "give files or folders to read, or --index"),
        (["ask", "door?", "files", "--index", "IDX"], "one of the two"),
        (["ask", "door?", "files", "--top-k", "20"], "--top-k needs --index"),
        (["ask", "door?", "files", "--max-document-tokens", "5"], "--max-document-tokens needs"),
        (["ask", "door?", "--index", "nowhere"], "there is no index at nowhere"),
        (["ask", "door?", "--index", "IDX", "--top-k", "0"], "top_k must be"),
    ],
)
def test_mistakes_end_in_one_message_without_a_traceback(files, arguments, message):
    index("--encoder", "none")
    (files.parent / "idx").rename(files.parent / "IDX")
    result = run(app, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert not (files.parent / "idx").exists()


def test_ask_says_when_the_index_has_nothing(files, model):
    index("--encoder", "none")
    result = run(app, ["ask", "zebra?", "--index", "idx", *model])
    assert result.exit_code == 1
    assert "the collection has nothing on 'zebra?'" in result.stderr


def test_an_interrupted_index_ends_quietly_and_leaves_nothing(files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("finch_integrations.bm25.BM25Index.build", interrupt)
    result = run(app, ["index", "files", "--out", "idx", "--encoder", "none"])
    assert result.exit_code == 130
    assert not (files.parent / "idx").exists()


def test_fetch_gets_what_is_named(monkeypatch, tmp_path):
    from finch_integrations.engine import embedded
    from finch_integrations.retrieval import embedder

    monkeypatch.setenv("FINCH_CACHE", str(tmp_path))
    lines = []
    for folder, name in ((embedded.MODEL.folder, "embedded"), (embedder.MODEL.folder, "embedder")):
        folder.mkdir(parents=True)  # both are there: nothing is downloaded
        (folder / "model.safetensors").write_bytes(b"x" * 1_000_000)
        lines.append(f"{name}  1 MB  {folder}\n")
    assert run(app, ["fetch"]).stdout == lines[0]
    assert run(app, ["fetch", "embedder"]).stdout == lines[1]
    assert run(app, ["fetch", "all"]).stdout == "".join(lines)
    assert run(app, ["models"]).stdout.startswith("".join(lines))


def test_the_progress_bar_counts_every_step(monkeypatch):
    import io

    from rich.console import Console

    from finch_integrations.cli import console
    from finch_integrations.retrieval import IndexProgress

    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "_console", terminal)
    with console.IndexBar() as bar:
        bar(IndexProgress("read", 3, 3))
        bar(IndexProgress("words", 7, 7))
        bar(IndexProgress("encode", 2, 1234))
        bar._bar.refresh()
    output = terminal.file.getvalue()
    for part in ("Reading", "3/3 files", "Indexing words", "7/7 chunks", "Encoding", "2/1,234"):
        assert part in output
