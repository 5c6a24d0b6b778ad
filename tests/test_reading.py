"""Files and folders become documents; what cannot be read is named."""

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from finch_integrations import InvalidInputError
from finch_integrations.conversion import Converter
from finch_integrations.documents import prepare_documents
from finch_integrations.reading import read_documents
from finch_integrations.sentences import sentence_ends

DOCX = """<?xml version="1.0" encoding="UTF-8"?>
<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>
<w:p><w:r><w:t>Text from a word file.</w:t></w:r></w:p></w:body></w:document>"""
RELATIONS = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Target="word/document.xml" Type=
"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/>
</Relationships>"""
TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml" ContentType=
"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"""

# Standard security handler, with a user password that is not empty.
ENCRYPTED_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"3 0 obj<</Filter/Standard/V 1/R 2/P -4/O<"
    + b"41" * 32
    + b">/U<"
    + b"42" * 32
    + b">>>endobj\n"
    b"trailer<</Root 1 0 R/Encrypt 3 0 R/ID[<00><00>]>>\n%%EOF\n"
)


def write_docx(path, text="Text from a word file."):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr("_rels/.rels", RELATIONS)
        archive.writestr("word/document.xml", DOCX.replace("Text from a word file.", text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "files"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "secret.txt").write_text("secret")
    (root / "b.txt").write_text("Plain text, naïve.", encoding="utf-8")
    (root / "a.md").write_text("# Head\n\nMarkdown *text*.")
    (root / "c.txt").write_text("UTF-16 text: déjà vu", encoding="utf-16")
    (root / "d.txt").write_text("With a byte order mark", encoding="utf-8-sig")
    (root / "sub" / "page.html").write_text(
        "<html><head><title>The Page</title><style>p {}</style></head>"
        "<body><h1>Hi</h1><p>Web text.</p><script>var x;</script></body></html>"
    )
    write_docx(root / "sub" / "word.docx")
    return root


def test_a_folder_is_read_with_all_below_in_the_order_of_names(folder):
    result = read_documents(["files"])
    assert [document.id for document in result.documents] == [
        "files/a.md",
        "files/b.txt",
        "files/c.txt",
        "files/d.txt",
        "files/sub/page.html",
        "files/sub/word.docx",
    ]
    texts = [document.text for document in result.documents]
    assert texts[0] == "# Head\n\nMarkdown *text*."
    assert texts[1] == "Plain text, naïve."
    assert texts[2] == "UTF-16 text: déjà vu"
    assert texts[3] == "With a byte order mark"
    assert "Web text." in texts[4]
    assert "var x" not in texts[4]
    assert texts[5].strip() == "Text from a word file."
    assert [document.title for document in result.documents] == [None] * 4 + ["The Page", None]
    assert result.skipped == ()


def test_rows_of_a_table_in_a_pdf_stay_whole(tmp_path):
    page = Figure()
    axes = page.subplots()
    axes.axis("off")
    cells = [[f"Room {n}", f"code {n * 17}", f"{n}0 kg"] for n in range(1, 9)]
    axes.table(cellText=cells, colLabels=["Room", "Code", "Load"], loc="center")
    page.savefig(tmp_path / "table.pdf")
    (document,) = read_documents([tmp_path / "table.pdf"]).documents
    ends = [0, *sentence_ends(document.text)]
    rows = [document.text[start:end] for start, end in pairwise([*ends, len(document.text)])]
    for row in cells:
        assert sum(all(cell in text.replace("  ", " ") for cell in row) for text in rows) == 1


def test_the_example_pdf_is_read():
    (document,) = read_documents(["examples/station-handbook/09-annual-report.pdf"]).documents
    assert "Razorbill" in document.text


def test_a_file_named_twice_is_read_once(folder):
    result = read_documents(["files/b.txt", "files", folder / "b.txt"])
    assert [d.id for d in result.documents].count("files/b.txt") == 1
    assert len(result.documents) == 6


def test_unreadable_files_are_named_with_the_reason(folder):
    (folder / "empty.txt").write_text(" \n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (folder / "broken.docx").write_bytes(b"not a zip")
    (folder / "binary.txt").write_bytes(b"abc\x00def")
    (folder / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    (folder / "gone.txt").symlink_to("nowhere")
    result = read_documents(["files"])
    assert len(result.documents) == 6
    reasons = {file.path: file.reason for file in result.skipped}
    assert reasons.keys() == {
        f"files/{name}"
        for name in (
            "empty.txt",
            "picture.png",
            "broken.pdf",
            "broken.docx",
            "binary.txt",
            "latin.txt",
            "gone.txt",
        )
    }
    assert "no text" in reasons["files/empty.txt"]
    assert "type .png" in reasons["files/picture.png"]
    assert "cannot be read" in reasons["files/broken.docx"]
    assert "NUL" in reasons["files/binary.txt"]
    assert "not UTF-8 text" in reasons["files/latin.txt"]
    assert "No such file" in reasons["files/gone.txt"]


def test_linked_folders_are_named_and_not_entered(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "itself.txt").symlink_to("itself.txt")
    (folder / "other").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "far.txt").write_text("far")
    (folder / ".dots").symlink_to(folder.parent / "elsewhere")
    result = read_documents(["files"])
    assert len(result.documents) == 6
    reasons = {file.path: file.reason for file in result.skipped}
    assert reasons.keys() == {"files/itself.txt", "files/loop", "files/other"}
    assert "is a link to a folder, and these are not followed" in reasons["files/other"]
    assert [d.id for d in read_documents(["files/other"]).documents] == ["files/other/far.txt"]


def test_folders_that_cannot_be_opened_are_named(folder):
    """A path that is too long cannot be opened by anybody; a lack of rights stops all but root."""
    name = "d" * 200
    here = os.getcwd()
    os.chdir(folder)
    try:
        for _ in range(25):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(here)
    result = read_documents(["files"])
    shutil.rmtree(folder / name)
    assert len(result.documents) == 6
    (skipped,) = result.skipped
    assert skipped.path.startswith(f"files/{name}/{name}")
    assert skipped.reason == "cannot be opened (File name too long)"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_files_whose_names_are_not_text_are_named(folder):
    (folder / os.fsdecode(b"caf\xe9")).mkdir()
    for name in (b"n\xe4me.txt", b"caf\xe9/a.html"):
        (folder / os.fsdecode(name)).write_text("text")
    result = read_documents(["files"])
    assert len(prepare_documents(result.documents)) == 6
    assert {file.path: file.reason for file in result.skipped} == dict.fromkeys(
        [os.fsdecode(b"files/n\xe4me.txt"), os.fsdecode(b"files/caf\xe9/a.html")],
        "has a name that is not UTF-8. Rename file or folder",
    )


def test_pipes_sockets_and_devices_are_named_and_never_waited_for(folder, monkeypatch):
    os.mkfifo(folder / "pipe.txt")
    (folder / "zero.txt").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)
        listener.bind("socket.txt")
        result = read_documents([".", "zero.txt"])
        reasons = {file.path: file.reason for file in result.skipped}
        assert reasons["pipe.txt"] == "is not a regular file, but a device, pipe or socket"
        assert reasons["socket.txt"].startswith("cannot be opened")
        assert reasons["zero.txt"].startswith("is a link that leaves the folder")
        with pytest.raises(InvalidInputError, match="zero.txt: is not a regular file"):
            read_documents(["zero.txt"])


def test_links_that_leave_the_folder_are_read_only_when_asked_for(folder):
    (folder.parent / "secret.txt").write_text("secret")
    (folder.parent / "more").mkdir()
    (folder.parent / "more" / "far.txt").write_text("far")
    (folder.parent / "more" / "back").symlink_to(folder.parent)
    (folder / "out.txt").symlink_to("../secret.txt")
    (folder / "in.txt").symlink_to("sub/page.html")
    (folder / "more").symlink_to("../more")
    result = read_documents(["files"])
    assert {file.path for file in result.skipped} == {"files/out.txt", "files/more"}
    result = read_documents(["files"], follow_links=True)
    assert {"files/out.txt", "files/more/far.txt"} <= {d.id for d in result.documents}
    assert len(result.documents) == 8
    assert result.skipped == ()


def test_a_file_that_is_too_big_is_named(folder):
    result = read_documents(["files"], max_file_bytes=30)
    reasons = {file.path: file.reason for file in result.skipped}
    assert reasons["files/c.txt"].startswith("is bigger than 0 MB")
    assert [d.id for d in result.documents] == ["files/a.md", "files/b.txt", "files/d.txt"]


def test_bombs_and_damaged_and_encrypted_files_are_named_with_a_sentence(folder):
    write_docx(folder / "bomb.docx", text="a" * 300_000_000)
    assert (folder / "bomb.docx").stat().st_size < 2_000_000
    write_docx(folder / "half.docx")
    whole = (folder / "half.docx").read_bytes()
    (folder / "half.docx").write_bytes(whole[: len(whole) // 2])
    (folder / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000)
    (folder / "text.pdf").write_text("no PDF at all")
    (folder / "locked.pdf").write_bytes(ENCRYPTED_PDF)
    result = read_documents(["files"])
    assert {file.path: file.reason for file in result.skipped} == {
        "files/bomb.docx": "cannot be read (it unpacks to 300 MB)",
        "files/half.docx": "cannot be read (it is damaged: BadZipFile)",
        "files/old.docx": "cannot be read (it is encrypted, or an old .doc file. Save it as .docx "
        "without a password)",
        "files/text.pdf": "cannot be read (it is not a PDF file)",
        "files/locked.pdf": "cannot be read (it is encrypted. Save it without a password)",
    }
    assert len(result.documents) == 6


def test_a_reader_that_takes_too_long_or_too_much_memory_is_ended_and_the_next_file_is_read():
    converter = Converter(max_seconds=20)
    try:
        assert converter.convert(b"<p>one", ".html").text == "one"
        # Styles nested this deep take html readers minutes.
        with pytest.raises(InvalidInputError, match="takes longer than|damaged|memory"):
            Converter.convert(converter, b"<b>" * 5_000_000, ".html")
        assert converter.convert(b"<p>two", ".html").text == "two"
    finally:
        converter.close()
    slow = Converter(max_seconds=0.05)  # not even Python starts that fast
    with pytest.raises(InvalidInputError, match="takes longer than 0.05 s"):
        slow.convert(b"<p>one", ".html")
    assert slow._process is None


def test_the_process_that_reads_cannot_take_all_memory():
    script = (
        "from finch_integrations import conversion\n"
        "conversion._bound_memory()\n"
        "try:\n    bytearray(2 * 2**30)\n"
        "except MemoryError:\n    print('bounded')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "bounded\n"


def test_a_path_that_cannot_be_searched_is_an_error_in_words(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be opened \\(File name too long"):
        read_documents([tmp_path / ("x" * 300)])
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        read_documents([tmp_path / "a\0b"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="no file or folder"):
        read_documents([tmp_path / "file" / "below"])


def test_nothing_readable_is_an_error_that_lists_the_reasons(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InvalidInputError, match=r"found nothing(.|\n)*empty\.txt: holds no"):
        read_documents([tmp_path])
    with pytest.raises(InvalidInputError, match="found nothing to read in no path"):
        read_documents([])


def test_a_missing_path_is_an_error():
    with pytest.raises(InvalidInputError, match="no file or folder nowhere"):
        read_documents(["nowhere"])
