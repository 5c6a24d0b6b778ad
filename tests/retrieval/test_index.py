"""Indexes on disk: saved, loaded, brought up to date, refused."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from finch_integrations import ConfigurationError, Document, InvalidInputError, ModelLoadError
from finch_integrations.bm25 import BM25Index
from finch_integrations.retrieval import (
    HybridRetriever,
    IndexProgress,
    Source,
    build_index,
    encoders,
)
from finch_integrations.retrieval import folder as folders
from finch_integrations.retrieval.store import read_index
from tests.encoders import HashEncoder, save_bert

TEXTS = {
    "doors": "# Doors\nThe door code is 4711.",
    "boats": "# Boats\nThe red boat leaks. " * 5,
    "food": "Food is in the store. 店に食べ物がある。",
}
QUERY = "red boat in the store"


class Reader:
    """Makes sources of texts and remembers which were read."""

    def __init__(self):
        self.read = []

    def sources(self, texts):
        return [Source(id, f"{hash(text)}", lambda id=id: self._read(id, texts)) for id, text in
                texts.items()]  # fmt: skip

    def _read(self, id, texts):
        self.read.append(id)
        if texts[id] == "broken":
            raise InvalidInputError("cannot be read")
        return Document(texts[id], id=id, title=id.title(), metadata={"source": id})


def build(path, texts, encoder=None, **options):
    """Build, and check the result against an index made from nothing."""
    reader = Reader()
    encoder = encoder or HashEncoder()
    report = build_index(
        path, reader.sources(texts), encoder=encoder, **{"chunk_size": 40, **options}
    )
    documents = [
        Document(text, id=id, title=id.title(), metadata={"source": id})
        for id, text in texts.items()
        if text != "broken"
    ]
    fresh = HybridRetriever.from_documents(
        documents, encoder=HashEncoder(encoder.dimension), **{"chunk_size": 40, **options}
    )
    loaded = HybridRetriever.load(path, encoder=encoder)
    assert loaded.retrieve(QUERY) == fresh.retrieve(QUERY)
    assert report.documents == len(documents)
    assert report.chunks == len(fresh.collection)
    return report, reader.read


def contents(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def names(path):
    return sorted(file.name.partition("-")[0] for file in path.iterdir())


BUILDER = """
import sys
from finch_integrations import Document
from finch_integrations.retrieval import Source, build_index

def pause(progress):
    if progress.step == "words":
        print("building", flush=True)
        sys.stdin.readline()

build_index(sys.argv[1], [Source("a", "1", lambda: Document("A ladder."))], progress=pause)
print("done", flush=True)
"""


@pytest.fixture
def builder(index):
    """Another process in the middle of a build; a line on its standard input lets it go on."""
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(index)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "building\n"
        yield process
        process.kill()


@pytest.fixture
def index(tmp_path):
    build(tmp_path / "index", TEXTS)
    return tmp_path / "index"


def test_a_new_index_reads_and_encodes_everything(tmp_path):
    report, read = build(tmp_path / "deep" / "index", TEXTS)
    assert read == list(TEXTS)
    assert (report.added, report.changed, report.removed, report.unchanged) == (3, 0, 0, 0)
    assert report.encoded == report.chunks > 3
    assert report.rebuilt is None
    assert names(tmp_path / "deep" / "index") == [".lock", "data", "index.json"]


def test_without_changes_nothing_is_read_encoded_or_written(index):
    before = contents(index)
    encoder = HashEncoder()
    report, read = build(index, TEXTS, encoder)
    assert read == []
    probe = "The quick brown fox jumps over the lazy dog."
    assert encoder.encoded == [probe, probe]  # by the build and by the search
    assert (report.unchanged, report.encoded) == (3, 0)
    assert contents(index) == before


def test_only_changed_sources_are_read_and_encoded(index):
    encoder = HashEncoder()
    texts = {"new": "A new ladder.", **TEXTS, "doors": "The door is blue."}
    del texts["food"]
    report, read = build(index, texts, encoder)
    assert read == ["new", "doors"]
    assert set(encoder.encoded[1:-1]) == {"New\nA new ladder.", "Doors\nThe door is blue."}
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 1)
    assert report.encoded == 2
    assert names(index) == [".lock", "data", "index.json"]


def test_removed_sources_are_not_found_and_their_vectors_are_gone(index):
    report, read = build(index, {"food": TEXTS["food"]})
    assert (report.removed, report.encoded, read) == (2, 0, [])
    search = HybridRetriever.load(index, encoder=HashEncoder())
    assert {r.metadata["document_id"] for r in search.retrieve("red boat")} == {"food"}


def test_sources_in_another_order_keep_their_vectors(index):
    report, read = build(index, dict(reversed(TEXTS.items())))
    assert (report.unchanged, report.encoded, read) == (3, 0, [])


def test_a_source_that_cannot_be_read_is_reported_every_time_and_read_once(index):
    texts = {**TEXTS, "bad": "broken"}
    report, read = build(index, texts)
    assert (report.skipped, read) == ({"bad": "cannot be read"}, ["bad"])
    report, read = build(index, texts)
    assert (report.skipped, read) == ({"bad": "cannot be read"}, [])
    report, read = build(index, {**texts, "bad": "repaired"})
    assert (report.skipped, read) == ({}, ["bad"])


def test_documents_are_found_by_their_ids_beside_sources_that_were_skipped(index):
    texts = {"bad": "broken", **TEXTS, "boats#2": "A red ladder."}
    build(index, texts)
    search = HybridRetriever.load(index, encoder=HashEncoder())
    assert search.collection.document("bad") is None
    for id in texts.keys() - {"bad"}:
        assert search.collection.document(id).id == id
    assert {hit.id for hit in search.retrieve("red boat")} >= {"boats#1", "boats#2#", "boats#2#1"}


@pytest.mark.parametrize("options", [{"chunk_size": 30}, {"encoder": HashEncoder(dimension=32)}])
def test_other_settings_rebuild_everything_and_say_so(index, options):
    report, read = build(index, TEXTS, **options)
    assert read == list(TEXTS)
    assert report.encoded == report.chunks
    assert "built with other settings" in report.rebuilt


class Shifted(HashEncoder):
    """Gives other vectors, of another length if that is wanted, under the same name."""

    def __init__(self, dimension=64):
        super().__init__(dimension)
        self.name = HashEncoder().name

    def encode_query(self, query):
        return np.roll(super().encode_query(query), 1)


@pytest.mark.parametrize("dimension", [64, 32])
@pytest.mark.parametrize("more", [{}, {"new": "A ladder."}])
def test_another_model_under_the_same_name_encodes_everything_again(index, dimension, more):
    encoder = Shifted(dimension)
    reader = Reader()
    sources = reader.sources({**TEXTS, **more})
    report = build_index(index, sources, encoder=encoder, chunk_size=40)
    assert report.encoded == report.chunks
    assert reader.read == list(more)
    assert HybridRetriever.load(index, encoder=encoder).retrieve("boat", bm25_weight=0)
    with pytest.raises(InvalidInputError, match="other vectors than the ones in this index"):
        HybridRetriever.load(index, encoder=HashEncoder()).retrieve("boat")
    again = build_index(index, sources, encoder=encoder, chunk_size=40)
    assert again.encoded == 0


@pytest.mark.parametrize("step", ["read", "words", "encode"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_the_old_index_as_it_was(index, step, error):
    before = contents(index)

    def interrupt(progress):
        if progress.step == step:
            raise error

    sources = Reader().sources({**TEXTS, "new": "A ladder."})
    with pytest.raises(error):
        build_index(index, sources, encoder=HashEncoder(), chunk_size=40, progress=interrupt)
    assert contents(index) == before


def test_a_build_killed_before_the_switch_leaves_the_old_index_and_is_cleaned_up(index):
    """What a killed process leaves: a half-written draft, and data that is not named yet."""
    expected = HybridRetriever.load(index, encoder=HashEncoder()).retrieve(QUERY)
    data = next(index.glob("data-*"))
    shutil.copytree(data, index / "data-00000000000000ff")
    (index / "data-00000000000000ff" / "index.json").write_text("half")
    shutil.copytree(data, index / "data-00000000000000fe", ignore=lambda *_: {"vectors.npy"})
    assert HybridRetriever.load(index, encoder=HashEncoder()).retrieve(QUERY) == expected
    build(index, {**TEXTS, "new": "A ladder."})
    assert names(index) == [".lock", "data", "index.json"]


def test_a_killed_process_leaves_the_old_index_as_it_was(index):
    before = contents(index)
    code = f"""
import os, signal
from finch_integrations import Document
from finch_integrations.retrieval import Source, build_index

def kill(progress):
    if progress.step == "words":
        os.kill(os.getpid(), signal.SIGKILL)

build_index({str(index)!r}, [Source("a", "1", lambda: Document("A door."))], progress=kill)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    left = contents(index)
    assert {name: left[name] for name in before} == before
    assert len(left) > len(before)
    report, _ = build(index, TEXTS)
    assert (report.unchanged, report.encoded) == (3, 0)


def test_a_second_builder_is_refused_and_harms_neither_index_nor_first_builder(index, builder):
    before = contents(index)
    with pytest.raises(InvalidInputError, match="another process is building .*Wait until"):
        build_index(index, Reader().sources({"new": "A ladder."}))
    with pytest.raises(InvalidInputError, match="another process is building the index"):
        HybridRetriever.from_documents(["A door."]).save(index)
    assert contents(index) == before
    builder.communicate("go on\n")
    assert builder.returncode == 0
    assert [document.id for document in HybridRetriever.load(index).collection.documents] == ["a"]
    build(index, TEXTS)


def test_readers_pay_no_attention_to_a_builder(index, builder):
    search = HybridRetriever.load(index, encoder=HashEncoder())
    expected = search.retrieve(QUERY)
    report, _ = build(index, TEXTS)  # nothing has changed: nothing is built
    assert report.unchanged == 3
    builder.communicate("go on\n")
    assert builder.returncode == 0
    assert search.retrieve(QUERY) == expected


def test_a_builder_that_is_killed_or_stopped_leaves_no_lock(index, builder):
    builder.kill()
    builder.wait()
    assert (index / ".lock").exists()
    report, _ = build(index, {**TEXTS, "new": "A ladder."})
    assert report.added == 1

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(index, Reader().sources(TEXTS), chunk_size=40, progress=interrupt)
    build(index, TEXTS)


def test_a_refused_builder_does_not_remove_a_first_builds_folder(tmp_path):
    path = tmp_path / "new"
    refused = []

    def build_again(progress):
        if progress.step == "words":
            with pytest.raises(InvalidInputError, match="another process is building"):
                build_index(path, Reader().sources({"b": "A boat."}))
            refused.append(True)

    build_index(path, Reader().sources({"a": "A door."}), progress=build_again)
    assert refused
    assert HybridRetriever.load(path).retrieve("door")


def test_an_interrupted_first_build_leaves_nothing(tmp_path):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "index", Reader().sources(TEXTS), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_open_index_can_be_read_while_it_is_replaced(index):
    search = HybridRetriever.load(index, encoder=HashEncoder())
    expected = HybridRetriever.load(index, encoder=HashEncoder()).retrieve(QUERY)
    build(index, {"only": "A ladder."})
    assert search.retrieve(QUERY) == expected


def test_an_index_that_is_replaced_while_it_is_opened_is_opened_anew(index, monkeypatch):
    def replace_first(folder):
        monkeypatch.undo()
        build_index(index, Reader().sources({"only": "A ladder."}))
        return BM25Index.load(folder)

    monkeypatch.setattr(BM25Index, "load", replace_first)
    assert HybridRetriever.load(index).retrieve("ladder")[0].text == "A ladder."


def test_progress_counts_up_to_the_end(tmp_path):
    seen = []
    build_index(
        tmp_path / "index", Reader().sources(TEXTS), encoder=HashEncoder(), progress=seen.append
    )
    reads = [p for p in seen if p.step == "read"]
    assert reads == [IndexProgress("read", n, 3) for n in (1, 2, 3)]
    assert [p for p in seen if p.step == "words"] == [IndexProgress("words", 3, 3)]
    assert [p for p in seen if p.step == "encode"] == [IndexProgress("encode", 3, 3)]


def test_saved_and_loaded_a_retriever_finds_the_same(tmp_path):
    documents = [
        Document(text, id=id, metadata={"n": n, "tags": ["ä"]})
        for n, (id, text) in enumerate(TEXTS.items())
    ]
    search = HybridRetriever.from_documents(documents, encoder=HashEncoder(), chunk_size=40)
    search.save(tmp_path / "index")
    loaded = HybridRetriever.load(tmp_path / "index", encoder=HashEncoder(), chunk_size=40)
    for options in ({}, {"return_parents": True}, {"filter": {"n": 1}}, {"dense_weight": 0}):
        assert loaded.retrieve(QUERY, **options) == search.retrieve(QUERY, **options)
    loaded.save(tmp_path / "index")  # over the index that it reads from
    again = HybridRetriever.load(tmp_path / "index", encoder=HashEncoder())
    assert again.retrieve(QUERY) == search.retrieve(QUERY)


def test_an_index_of_words_needs_no_encoder(tmp_path):
    HybridRetriever.from_documents(["A door.", "A boat."]).save(tmp_path / "index")
    loaded = HybridRetriever.load(tmp_path / "index")
    assert loaded.retrieve("boat")[0].text == "A boat."
    with pytest.raises(InvalidInputError, match="built with the encoder None, not 'hash-64'"):
        HybridRetriever.load(tmp_path / "index", encoder=HashEncoder())


def test_an_encoder_given_by_name_is_found_again(tmp_path):
    name = save_bert(tmp_path / "bert")
    search = HybridRetriever.from_documents(["A door.", "A boat."], encoder=name)
    search.save(tmp_path / "index")
    assert HybridRetriever.load(tmp_path / "index").retrieve("boat") == search.retrieve("boat")


def test_vectors_and_words_stay_on_disk(index):
    stored = read_index(index)
    assert isinstance(stored.vectors, np.memmap)
    assert stored.vectors.dtype == np.float16
    assert isinstance(stored.collection.spans, np.memmap)


def test_a_mismatch_says_how_to_rebuild(index):
    with pytest.raises(InvalidInputError, match="encoder 'hash-64', not 'hash-32'.*Build it again"):
        HybridRetriever.load(index, encoder=HashEncoder(dimension=32))
    with pytest.raises(InvalidInputError, match="chunk_size=40, not 41. Build it again"):
        HybridRetriever.load(index, encoder=HashEncoder(), chunk_size=41)
    with pytest.raises(ConfigurationError, match="Give it: encoder="):
        HybridRetriever.load(index)


def test_no_index_and_other_versions_are_refused(tmp_path, index):
    with pytest.raises(InvalidInputError, match="there is no index at .*finch index FOLDER"):
        HybridRetriever.load(tmp_path / "nowhere")
    manifest = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InvalidInputError, match="format 99, this one reads 3.*Build it again"):
        HybridRetriever.load(index)
    report, _ = build(index, TEXTS)
    assert "format 99" in report.rebuilt


@pytest.mark.parametrize(
    "damaged",
    ["documents.jsonl", "offsets.npy", "spans.npy", "sources.json", "vectors.npy", "probe.npy",
     "bm25/vocab.index.json", "bm25/data.csc.index.npy", "../index.json"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["remove", "truncate"])
def test_damage_is_noticed_and_a_build_mends_it(index, damaged, how):
    file = next(index.glob("data-*")) / damaged
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InvalidInputError, match="damaged|there is no index"):
        HybridRetriever.load(index, encoder=HashEncoder())
    report, read = build(index, TEXTS)
    assert read == list(TEXTS)
    # Without its manifest an index is what a killed first build leaves: nothing is replaced.
    assert bool(report.rebuilt) == ((how, damaged) != ("remove", "../index.json"))


def test_parts_of_different_indexes_are_noticed(index):
    vectors = next(index.glob("data-*/vectors.npy"))
    np.save(vectors, np.load(vectors)[:-1])
    with pytest.raises(InvalidInputError, match="vectors.npy has another length"):
        HybridRetriever.load(index, encoder=HashEncoder())


def test_other_folders_are_not_written_into(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InvalidInputError, match="is not an index: it holds mine.txt"):
        build_index(tmp_path, Reader().sources(TEXTS))
    with pytest.raises(InvalidInputError, match="is a file"):
        build_index(tmp_path / "mine.txt", Reader().sources(TEXTS))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_to_index_is_an_error_with_the_reasons(tmp_path):
    with pytest.raises(InvalidInputError, match="nothing to index"):
        build_index(tmp_path / "index", [])
    with pytest.raises(InvalidInputError, match="nothing to index\n  bad: cannot be read"):
        build_index(tmp_path / "index", Reader().sources({"bad": "broken"}))
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_json_cannot_hold_is_named(tmp_path):
    search = HybridRetriever.from_documents([Document("A door.", id="a", metadata={"x": {1, 2}})])
    with pytest.raises(InvalidInputError, match="metadata of document 'a' cannot be saved"):
        search.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_two_sources_with_one_id_are_refused(tmp_path):
    sources = Reader().sources({"a": "x"}) * 2
    with pytest.raises(InvalidInputError, match="two sources have the same id"):
        build_index(tmp_path / "index", sources)


def test_an_encoder_that_an_index_names_is_never_fetched(tmp_path, monkeypatch):
    """Sockets are off in the tests: whoever asked the hub would get another error."""
    asked = []
    monkeypatch.setattr(encoders, "is_out_of_reach", asked.append)
    path = tmp_path / "index"
    HybridRetriever.from_documents(["one two"], encoder=HashEncoder(name="some/model")).save(path)
    stored = json.loads((path / "index.json").read_text())
    stored["settings"]["encoder_by_name"] = True
    del stored["sha256"]
    stored["sha256"] = folders._digest_of(stored)
    (path / "index.json").write_text(json.dumps(stored))
    with pytest.raises(
        ModelLoadError, match="nothing is fetched .* Run `hf download some/model-64`"
    ):
        HybridRetriever.load(path).retrieve("one")
    assert asked == []


@pytest.mark.model
def test_an_unchanged_index_does_not_load_the_embedded_encoder(
    tmp_path, monkeypatch, embedded_encoder
):
    def build_embedded():
        source = Source("a", "1", lambda: Document("one two"))
        return build_index(tmp_path / "index", [source], encoder="embedded")

    assert build_embedded().encoded == 1
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path / "no models"))
    assert build_embedded().unchanged == 1
    with pytest.raises(ModelLoadError, match="has not been fetched"):
        build_index(
            tmp_path / "index", [Source("a", "2", lambda: Document("three"))], encoder="embedded"
        )
