"""Damaged files: always one of our errors, never another answer. Killed builds: nothing is lost."""

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from hashlib import sha256

import numpy as np
import pytest

from finch_integrations import FinchEngine, FinchError, InvalidInputError, ModelLoadError
from finch_integrations.config import CompressionConfig
from finch_integrations.engine.gguf import check_gguf
from finch_integrations.retrieval.folder import MANIFEST
from finch_integrations.retrieval.hybrid import HybridRetriever
from tests.encoders import HashEncoder
from tests.hostile.conftest import amount
from tests.tiny import make_model, make_tokenizer, text_of

TEXTS = [f"Boat {number} is moored at pier {number * 7}. " * 3 for number in range(12)]
QUERIES = ("boat", "pier 14", "moored 3")


def damage(rng, content):
    """Flip, cut, insert, repeat or zero a part."""
    place = rng.randrange(len(content))
    length = rng.randrange(1, 40)
    before, part, after = (
        content[:place],
        content[place : place + length],
        content[place + length :],
    )
    kind = rng.choice(["flip", "cut", "insert", "truncate", "repeat", "zero", "swap"])
    if kind == "flip":
        flipped = bytes([part[0] ^ (1 << rng.randrange(8))]) if part else b"x"
        return before + flipped + part[1:] + after
    return {
        "cut": before + after,
        "insert": before + rng.randbytes(length) + part + after,
        "truncate": before,
        "repeat": before + part + part + after,
        "zero": before + bytes(len(part)) + after + b"\0" * (not any(part)),
        "swap": after + part + before,
    }[kind]


def ranking(retriever):
    return [
        [(hit.id, hit.text, hit.metadata["score"]) for hit in retriever.retrieve(query, top_k=5)]
        for query in QUERIES
    ]


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
def test_a_damaged_index_is_refused_and_never_answers_differently(tmp_path, rng, encoder):
    path = tmp_path / "index"
    HybridRetriever.from_documents(TEXTS, encoder=encoder, chunk_size=60).save(path)
    right = ranking(HybridRetriever.load(path, encoder=encoder))
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    files = [file for file in files if file.name != "finch-index-data.json"]
    refused = 0
    for _ in range(amount(120, 25)):
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(damaged := damage(rng, content))
        try:
            assert ranking(HybridRetriever.load(path, encoder=encoder)) == right
        except FinchError:
            refused += 1
        else:
            # Only blanks of the manifest may change without being noticed.
            assert file.name == "index.json" or damaged == content
        file.write_bytes(content)
    assert refused >= amount(110, 22)
    assert ranking(HybridRetriever.load(path, encoder=encoder)) == right


def sign(path):
    """Write the checksums of what is there, as whoever forges an index would."""
    manifest = json.loads((path / MANIFEST).read_text())
    data = path / manifest["data"]
    for name in manifest["files"]:
        content = (data / name).read_bytes()
        manifest["files"][name] = [len(content), sha256(content).hexdigest()]
    manifest.pop("sha256")
    text = json.dumps(manifest, sort_keys=True)
    manifest["sha256"] = sha256(text.encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
def test_a_forged_index_is_refused_or_finds_passages_of_its_own(tmp_path, rng, encoder):
    path = tmp_path / "index"
    HybridRetriever.from_documents(TEXTS, encoder=encoder, chunk_size=60).save(path)
    data = path / json.loads((path / MANIFEST).read_text())["data"]
    files = sorted(f for f in data.rglob("*") if f.is_file() and f.name != MANIFEST)
    files = [file for file in files if file.name != "finch-index-data.json"]
    right = ranking(HybridRetriever.load(path, encoder=encoder))
    sign(path)
    assert ranking(HybridRetriever.load(path, encoder=encoder)) == right  # `sign` signs well
    refused = 0
    for _ in range(amount(120, 25)):
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(damage(rng, content) or b"x")
        sign(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = ranking(HybridRetriever.load(path, encoder=encoder))
        except FinchError:
            refused += 1
        else:
            for _, text, score in (hit for hits in found for hit in hits):
                assert isinstance(text, str)
                assert math.isfinite(score)
        file.write_bytes(content)
    assert refused >= amount(50, 10)


@pytest.mark.parametrize("name", ["vectors.npy", "probe.npy", "bm25/data.csc.index.npy"])
def test_a_forged_index_has_no_numbers_that_are_not_finite(tmp_path, name):
    path = tmp_path / "index"
    HybridRetriever.from_documents(TEXTS, encoder=HashEncoder()).save(path)
    file = path / json.loads((path / MANIFEST).read_text())["data"] / name
    numbers = np.load(file)
    numbers.flat[-1] = np.nan
    np.save(file, numbers)
    sign(path)
    with pytest.raises(InvalidInputError, match="not finite"):
        HybridRetriever.load(path, encoder=HashEncoder())


def test_a_damaged_context_or_selection_is_refused_or_the_same(tmp_path, rng):
    engine = FinchEngine(
        make_model(), make_tokenizer(), compression=CompressionConfig(target_size=60)
    )
    documents = [text_of(200, seed=seed) for seed in range(3)]
    context, selection = (make(documents, "What?") for make in (engine.compress, engine.select))
    expected = engine.generate(context, max_tokens=4).tokens
    path = tmp_path / "file"
    refused = 0
    for thing, load in ((context, engine.load_context), (selection, type(selection).load)):
        thing.save(path)
        content = path.read_bytes()
        for _ in range(amount(50, 25)):
            path.write_bytes(damage(rng, content))
            try:
                loaded = load(path)
            except FinchError:
                refused += 1
                continue
            if thing is selection:
                assert loaded == selection
            else:
                assert engine.generate(loaded, max_tokens=4).tokens == expected
        path.write_bytes(content)
        load(path)
    assert refused >= amount(90, 45)


def value(kind, content):
    return struct.pack("<Q", 4) + b"name" + struct.pack("<I", kind) + content


def gguf(values, *, tensors=0, version=3, count=None):
    header = b"GGUF" + struct.pack(
        "<IQQ", version, tensors, len(values) if count is None else count
    )
    return header + b"".join(values)


FORGED = {
    "an array of 2**60": gguf([value(9, struct.pack("<IQ", 4, 2**60))]),
    "strings of 2**60": gguf([value(9, struct.pack("<IQ", 8, 2**60))]),
    "a string of 2**60": gguf([value(8, struct.pack("<Q", 2**60))]),
    "a name of 2**63": gguf([struct.pack("<Q", 2**63)]),
    "2**60 values": gguf([], count=2**60),
    "2**60 tensors": gguf([], tensors=2**60),
    "nested arrays": gguf([value(9, struct.pack("<IQ", 9, 1) * 1000)]),
    "an unknown type": gguf([value(99, b"")]),
    "version 0": gguf([], version=0),
    "version 2**31": gguf([], version=2**31),
    "nothing more": b"GGUF",
    "half a header": b"GGUF" + b"\x03\0\0\0\x01",
    "many dimensions": gguf([], tensors=1)
    + struct.pack("<Q", 1)
    + b"t"
    + struct.pack("<I", 2**31)
    + b"\0" * 64,
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_gguf_file_is_refused_at_once(tmp_path, forged):
    path = tmp_path / "model.gguf"
    path.write_bytes(FORGED[forged])
    started = time.process_time()
    with pytest.raises(ModelLoadError, match="damaged or incomplete"):
        check_gguf(path)
    assert time.process_time() - started < 2


def test_random_gguf_headers_are_refused_or_read(tmp_path, rng):
    path = tmp_path / "model.gguf"
    right = gguf(
        [value(8, struct.pack("<Q", 3) + b"abc"), value(9, struct.pack("<IQ", 5, 2) + b"\0" * 8)]
    )
    for _ in range(amount(200, 20)):
        path.write_bytes(b"GGUF" + damage(rng, right)[4:])
        with suppress(ModelLoadError):
            check_gguf(path)


BUILD = """
import sys
from finch_integrations.pipeline.indexing import index_files
print("ready", flush=True)
while True:
    for folder in sys.argv[2:]:
        index_files([folder], sys.argv[1], encoder=None, chunk_size=200)
"""


def test_builds_that_are_killed_lose_nothing(tmp_path, rng):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.txt").write_text(f"{name} {number}. " * 200)
    index = tmp_path / "index"
    (tmp_path / "index").mkdir()
    kills = amount(40, 3)
    for _ in range(kills):
        command = [
            sys.executable,
            "-c",
            BUILD,
            str(index),
            str(tmp_path / "one"),
            str(tmp_path / "two"),
        ]
        builder = subprocess.Popen(command, stdout=subprocess.PIPE)
        builder.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.5))
        builder.send_signal(signal.SIGKILL)
        builder.communicate()
        if (index / "index.json").exists():
            hits = HybridRetriever.load(index).retrieve("one two", top_k=40)
            names = {str(hit.metadata["source"]).split("/")[-2] for hit in hits}
            assert len(names) == 1
    from finch_integrations.pipeline.indexing import index_files

    report = index_files([tmp_path / "one"], index, encoder=None, chunk_size=200)
    assert report.documents == 20
    assert report.rebuilt is None
    index_files([tmp_path / "one"], index, encoder=None, chunk_size=200)
    assert len([file for file in index.iterdir() if file.name.startswith("data-")]) == 1
    assert sorted(len(list((tmp_path / name).iterdir())) for name in ("one", "two")) == [20, 20]


def test_a_disk_that_is_full_leaves_the_old_index_and_a_sentence(tmp_path):
    """A limit on the size of files stands for a full disk."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("The door code is 4711.")
    index = tmp_path / "index"
    command = [sys.executable, "-m", "finch_integrations", "index", str(tmp_path / "files")]
    command += ["--out", str(index), "--encoder", "none"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "files" / "b.txt").write_text("More and more. " * 100_000)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert "4711" in HybridRetriever.load(index).retrieve("door code")[0].text
    assert len([file for file in index.iterdir() if file.name.startswith("data-")]) == 1
    new = tmp_path / "new" / "index"
    command[command.index("--out") + 1] = str(new)
    assert subprocess.run(command, capture_output=True, preexec_fn=limit).returncode == 1
    assert not new.parent.exists()


def test_the_memory_of_many_calls_is_flat():
    psutil = pytest.importorskip("psutil")
    engine = FinchEngine(
        make_model(), make_tokenizer(), compression=CompressionConfig(target_size=40)
    )
    documents = [text_of(120, seed=seed) for seed in range(2)]
    process = psutil.Process(os.getpid())
    calls = amount(1000, 60)
    sizes = []
    for number in range(calls):
        context = engine.compress(documents, f"What about {number}?")
        engine.generate(context, max_tokens=2)
        if number >= calls // 2:
            sizes.append(process.memory_info().rss)
    assert max(sizes) <= sizes[0] * 1.02
