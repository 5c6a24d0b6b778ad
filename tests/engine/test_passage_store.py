"""The store of read passages: bounded, exact, and unharmed by kills, damage and full disks."""

import contextlib
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from finch_integrations import ConfigurationError, InvalidInputError
from finch_integrations.engine import passage_folder
from finch_integrations.engine.passage_files import draft
from finch_integrations.engine.passage_folder import PassageFolder, clear, summarize
from finch_integrations.engine.passage_format import measure_read_speed
from finch_integrations.engine.passage_store import PassageStore


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def passage(number, *, size=64, dtype=torch.float32):
    """Tensors that only this number has."""
    generator = torch.Generator().manual_seed(number)
    return {
        name: torch.randn(2, 3, size, 4, generator=generator).to(dtype)
        for name in ("keys", "values")
    }


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def entry(folder, number):
    return folder / key(number)[:2] / f"{key(number)}.safetensors"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def drafts(folder):
    return [path for path in files(folder) if path.suffix == ".draft"]


def size_on_disk(folder):
    return sum(path.stat().st_size for path in files(folder) if path.suffix == ".safetensors")


def kept(store, numbers):
    """Which of them are there, without using any."""
    keys = set(store._memory) | (set(store._folder.keys()) if store._folder else set())
    return [number for number in numbers if key(number) in keys]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "passages"


@pytest.fixture(params=["memory", "disk", "both"])
def make_store(request, folder):
    """Stores with one tier or both, in which so many passages of 64 tokens fit."""

    def make(fitting=10):
        tiers = {"memory_bytes": fitting * 12_288, "folder": folder, "disk_bytes": fitting * 13_000}
        if request.param == "memory":
            tiers["folder"] = None
        if request.param == "disk":
            tiers["memory_bytes"] = 0
        return PassageStore(**tiers)

    return make


# What is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_a_passage_comes_back_to_the_bit(make_store, dtype):
    store = make_store()
    tensors = passage(1, dtype=dtype)
    store.put(key(1), tensors)
    found = store.get(key(1))
    assert equal(found, tensors)
    assert all(tensor.device.type == "cpu" for tensor in found.values())


def test_tensors_of_all_shapes_come_back(make_store):
    tensors = {
        "empty": torch.zeros(0, 4),
        "number": torch.tensor(7),
        "odd": torch.arange(3, dtype=torch.uint8),
        "nan": torch.tensor([float("nan"), -0.0]),
    }
    store = make_store()
    store.put(key(1), tensors)
    store.put(key(2), {})
    found = store.get(key(1))
    assert [tensor.shape for tensor in found.values()] == [tensors[name].shape for name in found]
    assert found["nan"].view(torch.int32).equal(tensors["nan"].view(torch.int32))
    assert (found["number"].item(), found["odd"].tolist()) == (7, [0, 1, 2])
    assert store.get(key(2)) == {}


def test_what_is_kept_is_a_copy_without_the_rest_of_its_batch(make_store):
    store = make_store()
    batch = torch.randn(8, 2, 3, 64, 4)
    part = batch[3, :, :, :32].transpose(2, 3)
    expected = part.clone()
    store.put(key(1), {"keys": part})
    batch.zero_()
    found = store.get(key(1))["keys"]
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    assert found.untyped_storage().nbytes() == found.nbytes


def test_taking_a_tensor_out_of_what_was_found_leaves_the_store_as_it_was(make_store):
    store = make_store()
    store.put(key(1), passage(1))
    del store.get(key(1))["keys"]
    assert equal(store.get(key(1)), passage(1))


def test_a_passage_is_replaced_by_another_of_the_same_key(make_store):
    store = make_store()
    store.put(key(1), passage(1))
    store.put(key(1), passage(2, size=8))
    assert equal(store.get(key(1)), passage(2, size=8))
    assert len(store) == 1


def test_hits_and_misses_are_counted(folder):
    store = PassageStore(memory_bytes=15_000, folder=folder)
    for number in (1, 2):
        store.put(key(number), passage(number))
    for number in (2, 1, 1, 3):
        store.get(key(number))
    statistics = store.statistics
    assert (statistics.memory_hits, statistics.disk_hits, statistics.misses) == (2, 1, 1)
    assert (statistics.memory_entries, statistics.disk_entries, len(store)) == (1, 2, 2)
    assert statistics.memory_bytes == store.nbytes == 12_288
    assert statistics.disk_bytes == size_on_disk(folder)


def test_a_new_process_finds_what_is_on_disk(folder):
    PassageStore(folder=folder).put(key(1), passage(1))
    store = PassageStore(folder=folder)
    assert equal(store.get(key(1)), passage(1))
    assert equal(store.get(key(1)), passage(1))
    assert (store.statistics.disk_hits, store.statistics.memory_hits) == (1, 1)


def test_a_limit_of_nothing_turns_a_tier_off(folder):
    store = PassageStore(memory_bytes=0, folder=folder, disk_bytes=0)
    store.put(key(1), passage(1))
    assert store.get(key(1)) is None
    assert not store.on_disk
    assert store.read_speed() is None
    assert not folder.exists()


def test_wrong_limits_and_keys_are_refused(folder):
    with pytest.raises(ConfigurationError, match="memory_bytes must be at least 0, got -1"):
        PassageStore(memory_bytes=-1)
    with pytest.raises(ConfigurationError, match="disk_bytes"):
        PassageStore(folder=folder, disk_bytes=-1)
    store = PassageStore(folder=folder)
    for wrong in ("", "../" + "a" * 61, "A" * 64, key(1) + "\n"):
        with pytest.raises(InvalidInputError, match="64 hexadecimal digits"):
            store.get(wrong)
        with pytest.raises(InvalidInputError, match="64 hexadecimal digits"):
            store.put(wrong, passage(1))


def test_files_are_safetensors_that_only_the_user_may_read(folder):
    previous = os.umask(0)
    try:
        PassageStore(folder=folder).put(key(1), passage(1))
    finally:
        os.umask(previous)
    with safe_open(entry(folder, 1), framework="pt") as file:
        assert file.metadata()["key"] == key(1)
        assert set(file.keys()) == {"keys", "values"}
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Limits


def test_the_least_recently_used_go_first(make_store):
    store = make_store(fitting=3)
    for number in (1, 2, 3):
        store.put(key(number), passage(number))
    store.get(key(1))
    store.put(key(4), passage(4))
    assert kept(store, range(5)) == [1, 3, 4]
    store.put(key(3), passage(3))
    store.put(key(5), passage(5))
    store.put(key(6), passage(6))
    assert kept(store, range(7)) == [3, 5, 6]


def test_a_passage_that_is_larger_than_the_limit_is_not_kept_and_costs_no_other(make_store):
    store = make_store(fitting=3)
    for number in (1, 2):
        store.put(key(number), passage(number))
    store.put(key(2), passage(3, size=1000))
    assert store.get(key(2)) is None
    assert equal(store.get(key(1)), passage(1))


def test_uses_count_on_disk_wherever_they_were_answered_and_after_a_restart(folder, monkeypatch):
    monkeypatch.setattr(passage_folder, "_MARK_SECONDS", 0.0)
    store = PassageStore(folder=folder)
    for number in (1, 2, 3):
        store.put(key(number), passage(number))
    store.get(key(1))  # from memory
    PassageStore(memory_bytes=0, folder=folder).get(key(2))  # from disk
    store = PassageStore(memory_bytes=0, folder=folder, disk_bytes=3 * 13_000)
    store.put(key(4), passage(4))
    assert kept(store, range(5)) == [1, 2, 4]


def test_uses_are_not_written_to_the_disk_every_time(folder):
    store = PassageStore(folder=folder)
    store.put(key(1), passage(1))
    before = entry(folder, 1).stat().st_mtime_ns
    store.get(key(1))
    assert entry(folder, 1).stat().st_mtime_ns == before
    os.utime(entry(folder, 1), ns=(0, 0))
    store = PassageStore(folder=folder)
    store.get(key(1))
    assert entry(folder, 1).stat().st_mtime_ns > before


def test_the_limit_holds_while_a_passage_is_written_too(folder, monkeypatch):
    store = PassageStore(folder=folder, disk_bytes=3 * 13_000)
    sizes = []
    replace = os.replace

    def watch(draft, target):
        sizes.append(size_on_disk(folder) + draft.stat().st_size)
        replace(draft, target)

    monkeypatch.setattr(os, "replace", watch)
    for number in range(5):
        store.put(key(number), passage(number))
    assert len(sizes) == 5
    assert max(sizes) <= 3 * 13_000


def test_a_smaller_limit_holds_from_the_next_passage_on(folder):
    store = PassageStore(folder=folder)
    for number in range(6):
        store.put(key(number), passage(number))
    store = PassageStore(folder=folder, disk_bytes=2 * 13_000)
    store.put(key(6), passage(6))
    assert kept(PassageStore(folder=folder), range(7)) == [5, 6]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "get"]), st.integers(0, 5), st.sampled_from([1, 16, 40, 90])),
    min_size=15,
    max_size=40,
)


class Model:
    """What a tier must do, as simple as can be."""

    def __init__(self, limit):
        self.limit = limit
        self.items = OrderedDict()

    def put(self, number, size, nbytes):
        self.items.pop(number, None)
        if nbytes <= self.limit:
            self.items[number] = size, nbytes
            while sum(nbytes for _, nbytes in self.items.values()) > self.limit:
                self.items.popitem(last=False)

    def get(self, number):
        if number in self.items:
            self.items.move_to_end(number)
            return self.items[number][0]
        return None


@given(steps=STEPS, relist=st.booleans())
@settings(deadline=None, max_examples=60)
def test_each_tier_keeps_what_a_simple_model_keeps(steps, relist):
    """With the folder looked up before every write, too, as if other processes wrote to it."""
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(passage_folder, "_LIST_SECONDS", 0.0 if relist else 1e9)
        whole = PassageStore(memory_bytes=0, folder=Path(root) / "whole")
        folder = Path(root) / "passages"
        memory = PassageStore(memory_bytes=30_000)
        disk = PassageStore(memory_bytes=0, folder=folder, disk_bytes=30_000)
        models = Model(30_000), Model(30_000)
        for step, number, size in steps:
            tensors = passage(number, size=size)
            whole.put(key(number), tensors)
            file_size = entry(Path(root) / "whole", number).stat().st_size
            sizes = sum(tensor.nbytes for tensor in tensors.values()), file_size
            for store, model, nbytes in zip((memory, disk), models, sizes, strict=True):
                if step == "put":
                    store.put(key(number), tensors)
                    model.put(number, size, nbytes)
                else:
                    found, expected = store.get(key(number)), model.get(number)
                    assert (found is None) == (expected is None)
                    assert found is None or equal(found, passage(number, size=expected))
            assert memory.nbytes <= 30_000
            assert size_on_disk(folder) == disk.statistics.disk_bytes <= 30_000
            assert list(memory._memory) == [key(n) for n in models[0].items]
            assert disk._folder.keys() == [key(n) for n in models[1].items]
            assert {path.stem for path in files(folder)[:-1]} == set(disk._folder.keys())


# Damage


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_byte_never_gives_a_wrong_tensor(folder, seed):
    PassageStore(folder=folder).put(key(1), passage(1))
    path = entry(folder, 1)
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    # Half of them in the header, which is short.
    place = chance.randrange(400 if seed % 2 else len(content))
    content[place] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    store = PassageStore(folder=folder)
    assert store.get(key(1)) is None
    assert store.statistics.damaged == 1
    assert not path.exists()
    store.put(key(1), passage(1))
    assert equal(PassageStore(folder=folder).get(key(1)), passage(1))


def forged_header(content):
    return (1 << 62).to_bytes(8, "little") + content[8:]


def forged_shape(content):
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["keys"]["shape"] = [1 << 40, 1 << 20]
    header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: len(content[8:]).to_bytes(8, "little") + b"[" * len(content[8:]),
        lambda content: content.replace(b"[2,3,64,4]", b"[3,2,64,4]", 1),
        lambda content: content.replace(b'"F32"', b'"I32"', 1),
        lambda content: content.replace(b'"keys"', b'"kays"', 1),
        lambda content: content.replace(b"finch-passage-1", b"finch-passage-0", 1),
        forged_header,
        forged_shape,
    ],
)
def test_a_file_that_is_no_passage_is_deleted(folder, damage):
    PassageStore(folder=folder).put(key(1), passage(1))
    content = entry(folder, 1).read_bytes()
    assert damage(content) != content
    entry(folder, 1).write_bytes(damage(content))
    assert PassageStore(folder=folder).get(key(1)) is None
    assert not entry(folder, 1).exists()


def test_a_file_of_another_key_or_program_is_refused(folder):
    PassageStore(folder=folder).put(key(1), passage(1))
    for number in (2, 3):
        entry(folder, number).parent.mkdir(exist_ok=True)
    os.replace(entry(folder, 1), entry(folder, 2))
    save_file(passage(3), entry(folder, 3), metadata={"key": key(3)})
    store = PassageStore(folder=folder)
    assert [store.get(key(number)) for number in (1, 2, 3)] == [None] * 3
    assert store.statistics.damaged == 2


def test_a_file_that_is_larger_than_the_limit_is_not_even_read(folder, monkeypatch):
    PassageStore(folder=folder).put(key(1), passage(1))
    with entry(folder, 1).open("ab") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    store = PassageStore(folder=folder, disk_bytes=1 << 30)
    assert store.get(key(1)) is None
    store.put(key(2), passage(2))
    assert not entry(folder, 1).exists()


# Other files


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"other files than passages, such as notes\.txt"):
        PassageStore(folder=tmp_path)
    for use in (clear, summarize):
        with pytest.raises(ConfigurationError, match=r"notes\.txt"):
            use(tmp_path)
    with pytest.raises(ConfigurationError, match="is a file"):
        PassageStore(folder=tmp_path / "notes.txt")
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]


def test_an_empty_folder_becomes_the_users_own(folder):
    folder.mkdir(mode=0o755)
    PassageStore(folder=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_only_passages_are_deleted(folder):
    store = PassageStore(folder=folder, disk_bytes=2 * 13_000)
    for number in range(5):
        store.put(key(number), passage(number))
    name = f"{key(9)}.safetensors"
    foreign = [
        folder / "notes.txt",
        folder / name,
        folder / "zz" / name,
        folder / "00" / name,  # of another subfolder
        folder / key(4)[:2] / "readme",
        folder / key(4)[:2] / f"{key(4)}.safetensors.bak",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (folder / key(9)[:2]).mkdir(exist_ok=True)
    (folder / key(9)[:2] / name).symlink_to(folder / "notes.txt")
    (folder / "empty").mkdir()
    store.put(key(5), passage(5))
    store.clear()
    assert (folder / "empty").is_dir()
    left = set(files(folder)) - {folder / "finch-passages.json"}
    assert left == {*foreign, folder / key(9)[:2] / name}
    assert len(store) == store.nbytes == 0


def test_clearing_leaves_a_folder_that_can_be_used_again(folder):
    store = PassageStore(folder=folder)
    store.put(key(1), passage(1))
    store.clear()
    assert [path.name for path in folder.iterdir()] == ["finch-passages.json"]
    assert store.get(key(1)) is None
    store.put(key(1), passage(1))
    assert equal(PassageStore(folder=folder).get(key(1)), passage(1))


def test_a_folder_that_is_deleted_meanwhile_is_made_again(folder, caplog):
    store = PassageStore(memory_bytes=0, folder=folder)
    store.put(key(1), passage(1))
    shutil.rmtree(folder)
    assert store.get(key(1)) is None
    store.put(key(2), passage(2))
    assert equal(PassageStore(folder=folder).get(key(2)), passage(2))
    assert not caplog.records


def test_damaged_settings_are_written_again(folder):
    PassageStore(folder=folder, disk_bytes=1000)
    for content in ("", "[]", '{"max_bytes": Infinity, "read_speed": null}', "\0"):
        (folder / "finch-passages.json").write_text(content)
        assert summarize(folder).max_bytes is None
        PassageStore(folder=folder, disk_bytes=1000)
        assert summarize(folder).max_bytes == 1000


# Disks that fail


def as_another_user(code, *arguments):
    """Run code for which permissions count: root may do everything."""
    prelude = (
        "import logging, os, sys, torch\n"
        "from pathlib import Path\n"
        "from tests.engine.test_passage_store import *\n"
        "logging.basicConfig(format='WARNED %(message)s', stream=sys.stdout)\n"
        "with tempfile.TemporaryDirectory() as warm:\n"  # imports, which the other may not
        "    PassageStore(folder=warm, memory_bytes=0).put(key(1), passage(1))\n"
        "    PassageStore(folder=warm).get(key(1))\n"
        "if os.getuid() == 0: os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def public_folder():
    """A folder that another user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        yield Path(root)


def test_a_folder_that_cannot_be_made_is_said_once_and_memory_goes_on(public_folder):
    os.chmod(public_folder, 0o555)
    warned, *rest = as_another_user(
        "store = PassageStore(folder=Path(sys.argv[1]) / 'passages')\n"
        "store.put(key(1), passage(1))\n"
        "print(equal(store.get(key(1)), passage(1)), store.on_disk)",
        public_folder,
    )
    assert warned.startswith("WARNED Passages are not kept on disk: cannot use ")
    assert "Permission denied" in warned
    assert rest == ["True False"]


def test_a_folder_that_is_only_for_reading_is_read(public_folder):
    folder = public_folder / "passages"
    PassageStore(folder=folder).put(key(1), passage(1))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    warned, *rest = as_another_user(
        "store = PassageStore(folder=sys.argv[1], memory_bytes=0, disk_bytes=1 << 20)\n"
        "for number in (2, 3): store.put(key(number), passage(number))\n"
        "print(equal(store.get(key(1)), passage(1)), store.get(key(2)), store.read_speed())",
        folder,
    )
    assert warned.startswith("WARNED No more passages are kept on disk: cannot write to ")
    assert rest == ["True None None"]
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700)


def test_a_file_that_may_not_be_read_is_said_once(public_folder):
    folder = public_folder / "passages"
    PassageStore(folder=folder).put(key(1), passage(1))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o600)
    if os.getuid():
        entry(folder, 1).chmod(0)
    warned, *rest = as_another_user(
        "store = PassageStore(folder=sys.argv[1])\n"
        "print(store.get(key(1)), store.get(key(1)), store.on_disk)",
        folder,
    )
    assert warned.startswith("WARNED Passages on disk are left alone: cannot use ")
    assert rest == ["None None False"]


def test_a_full_disk_is_said_once_and_what_is_there_is_read(folder):
    """A limit of the size of files stands for a full disk: writing fails half-way."""
    PassageStore(folder=folder).put(key(1), passage(1))
    code = (
        "import logging, resource, sys\n"
        "from tests.engine.test_passage_store import *\n"
        "logging.basicConfig(format='WARNED %(message)s', stream=sys.stdout)\n"
        "store = PassageStore(folder=sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for number in (2, 3): store.put(key(number), passage(number, size=5000))\n"
        "print(equal(store.get(key(1)), passage(1)))\n"
        "print(equal(store.get(key(2)), passage(2, size=5000)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True
    )
    warned, *rest = result.stdout.splitlines()
    assert warned.startswith("WARNED No more passages are kept on disk"), result.stderr
    assert rest == ["True", "True"]
    assert len(files(folder)) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_an_error_when_the_file_is_put_in_its_place_leaves_nothing(
    folder, monkeypatch, caplog, number
):
    store = PassageStore(folder=folder)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    for other in (1, 2):
        store.put(key(other), passage(other))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert os.strerror(number) in caplog.text
    assert equal(store.get(key(1)), passage(1))
    assert [path.name for path in files(folder)] == ["finch-passages.json"]


def test_a_folder_that_cannot_be_emptied_is_an_error(folder, monkeypatch):
    store = PassageStore(folder=folder)
    store.put(key(1), passage(1))

    def fail(*_, **__):
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(InvalidInputError, match="cannot delete the passages in .*not yours"):
        store.clear()


# Several threads and processes


def work(store, seed, steps=150):
    """Put and get passages of 20 keys; what is found is right."""
    chance = random.Random(seed)
    for _ in range(steps):
        number = chance.randrange(20)
        if chance.random() < 0.5:
            store.put(key(number), passage(number))
        else:
            found = store.get(key(number))
            assert found is None or equal(found, passage(number))


def test_threads_share_a_store(make_store, caplog):
    store = make_store(fitting=6)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # races are rare otherwise
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: work(store, seed, steps=400), range(8)))
    finally:
        sys.setswitchinterval(interval)
    statistics = store.statistics
    assert statistics.memory_bytes <= 6 * 12_288
    assert statistics.disk_bytes <= 6 * 13_000
    if store.on_disk:
        assert statistics.disk_bytes == size_on_disk(store._folder.path)
        assert not drafts(store._folder.path)
    assert not caplog.records
    assert statistics.damaged == 0


def test_a_passage_that_is_deleted_while_it_is_read_is_not_counted(folder, monkeypatch):
    store = PassageStore(memory_bytes=0, folder=folder)
    store.put(key(1), passage(1))
    fstat = os.fstat

    def delete_first(file):
        monkeypatch.setattr(os, "fstat", fstat)
        store._folder.remove(key(1))
        return fstat(file)

    monkeypatch.setattr(os, "fstat", delete_first)
    assert equal(store.get(key(1)), passage(1))
    assert store.statistics.disk_entries == store.statistics.disk_bytes == 0


def work_in_process(folder, seed, ends):
    passage_folder._LIST_SECONDS = 0.01
    for round_ in range(4):  # every start deletes what dead processes left
        store = PassageStore(memory_bytes=3 * 12_288, folder=folder, disk_bytes=8 * 13_000)
        work(store, seed + round_, steps=100)
    ends.put((store.statistics.damaged, store._reads, store._writes))


def large(number):
    """Most of the time goes into writing it."""
    return {"keys": torch.full((250_000,), float(number))}


def write_for_ever(folder, first, connection):
    store = PassageStore(memory_bytes=0, folder=folder)
    for number in itertools.count(first):
        store.put(key(number), large(number))
        connection.send(number)


@pytest.fixture(scope="module")
def processes():
    """New processes that need not import torch each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.test_passage_store"])
    return context


def test_processes_share_a_folder(folder, processes):
    ends = processes.Queue()
    running = [
        processes.Process(target=work_in_process, args=(folder, seed, ends)) for seed in (0, 100)
    ]
    for process in running:
        process.start()
    assert [ends.get(timeout=120) for _ in running] == [(0, True, True)] * 2
    for process in running:
        process.join()
    store = PassageStore(folder=folder, disk_bytes=8 * 13_000)
    store.put(key(99), passage(99))
    assert size_on_disk(folder) <= 8 * 13_000
    assert not drafts(folder)


def test_a_killed_process_loses_at_most_the_passage_it_was_writing(folder, processes):
    chance = random.Random(0)
    done = -1
    left = 0
    for _ in range(20):
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=write_for_ever, args=(folder, done + 1, theirs))
        process.start()
        theirs.close()
        done = ours.recv()
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                done = ours.recv()
        ours.close()
        left += len(drafts(folder))
        store = PassageStore(memory_bytes=0, folder=folder)
        assert not drafts(folder)
        for number in range(done + 1):
            assert equal(store.get(key(number)), large(number)), number
        assert len(store) <= done + 2
        if done > 60:  # reading all of them takes its time
            clear(folder)
            done = -1
    assert left, "a kill came while a file was being written"


def test_a_file_that_another_process_is_writing_is_left_alone(folder):
    other = PassageFolder(folder, 10_000)

    def save(path):
        path.write_text("half of it")
        PassageStore(folder=folder)
        clear(folder)
        assert drafts(folder) == [path]

    with draft(other.path, save):
        pass
    (folder / ".0123456789abcdef.draft").write_text("left by a killed process")
    PassageStore(folder=folder)
    assert not drafts(folder)


def test_a_start_that_was_killed_does_not_make_the_folder_foreign(folder):
    folder.mkdir()
    (folder / ".0123456789abcdef.draft").write_text("settings that were just being written")
    PassageStore(folder=folder)
    assert [path.name for path in files(folder)] == ["finch-passages.json"]


def test_what_another_process_wrote_and_deleted_is_seen(folder, monkeypatch):
    one, other = (PassageStore(memory_bytes=0, folder=folder) for _ in range(2))
    one.put(key(1), passage(1))
    assert equal(other.get(key(1)), passage(1))
    assert len(other) == 1
    one.clear()
    assert other.get(key(1)) is None
    assert len(other) == 0


def test_a_limit_holds_for_what_another_process_wrote(folder, monkeypatch):
    monkeypatch.setattr(passage_folder, "_LIST_SECONDS", 0.0)
    one, other = (
        PassageStore(memory_bytes=0, folder=folder, disk_bytes=3 * 13_000) for _ in range(2)
    )
    for number in range(3):
        one.put(key(number), passage(number))
        other.put(key(10 + number), passage(10 + number))
    assert size_on_disk(folder) <= 3 * 13_000
    assert kept(other, range(20)) == [2, 11, 12]


# How fast the folder is read


def test_the_reading_speed_is_measured_once(folder, monkeypatch):
    state = torch.get_rng_state()
    store = PassageStore(folder=folder)
    speed = store.read_speed()
    assert speed.bytes_per_second > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert len(files(folder)) == 1, "the files for measuring are gone"
    assert PassageStore(folder=folder, disk_bytes=1 << 20).read_speed() == speed
    summary = summarize(folder)
    assert (summary.read_speed, summary.max_bytes, summary.entries) == (speed, 1 << 20, 0)
    assert store.statistics.misses == 0


def test_the_measured_speed_is_that_of_reading(folder, monkeypatch):
    """Slower by what is put into the reading of 2 MiB."""
    read = Path.read_bytes

    def slow(path):
        time.sleep(0.05)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", slow)
    PassageFolder(folder, 1000)
    speed = measure_read_speed(folder)
    assert 1e6 < speed.bytes_per_second < (2 << 20) / 0.05


def test_the_disk_can_be_left(folder):
    store = PassageStore(memory_bytes=0, folder=folder)
    store.put(key(1), passage(1))
    store.leave_disk()
    store.put(key(2), passage(2))
    assert store.get(key(1)) is None
    assert not store.on_disk
    assert entry(folder, 1).exists()
    assert not entry(folder, 2).exists()
    store.clear()
    assert not entry(folder, 1).exists()
