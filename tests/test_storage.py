"""Files are written whole or not at all."""

import os
import stat

import pytest

from finch_integrations.storage import replaced, sync


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")
    with replaced(file) as draft:
        draft.write_text("new")
        assert draft.parent == tmp_path
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [True, False])
def test_a_failed_block_leaves_the_old_file_and_no_draft(tmp_path, error, written):
    file = tmp_path / "page.html"
    file.write_text("old")

    def fail():
        with replaced(file) as draft:
            if written:
                draft.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "page.html")
    with replaced(tmp_path / "link") as draft:
        draft.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "page.html").read_text() == "new"


def test_the_draft_may_be_in_another_folder(tmp_path):
    (tmp_path / "work").mkdir()
    with replaced(tmp_path / "page", draft=tmp_path / "work" / "draft") as draft:
        draft.write_text("new")
    assert (tmp_path / "page").read_text() == "new"
    assert list((tmp_path / "work").iterdir()) == []


def test_the_longest_name_can_be_replaced(tmp_path):
    with replaced(tmp_path / ("a" * 255)) as draft:
        draft.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["a" * 255]


def test_missing_folders_and_files_are_the_systems_errors(tmp_path):
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "no" / "page") as draft:
        draft.write_text("new")
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "page"):
        pass  # nothing was written
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "page")


def test_file_and_folder_are_on_the_disk_before_and_after_the_switch(tmp_path, monkeypatch):
    steps = []

    def fsync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replace(source, target):
        steps.append("replace")
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with replaced(tmp_path / "page") as draft:
        draft.write_text("new")
    assert steps == ["file", "replace", "folder"]
