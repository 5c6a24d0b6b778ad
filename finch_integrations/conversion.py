"""From the bytes of html, pdf and docx files to text, in a process with bounded memory and time.

A small file can unpack to gigabytes, and the readers of damaged files can run forever. The process
is started for the first file and serves the next ones, until one kills it.
"""

import io
import json
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, BinaryIO

from finch_integrations.errors import InvalidInputError, MissingExtraError, install_command

SUFFIXES = (".docx", ".htm", ".html", ".pdf")
# Of memory. Reading a PDF of a thousand pages takes about 300 MB.
_MAX_BYTES = 2**30
_MAX_UNPACKED_BYTES = 2**28
_MAX_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Converted:
    """What is in a file.

    Attributes:
        text: As Markdown.
        title: The file's title, if it has one.
    """

    text: str
    title: str | None


class Converter:
    """Converts files one after another; `close` it when done."""

    def __init__(self, max_seconds: float = _MAX_SECONDS) -> None:
        """Start nothing yet.

        Args:
            max_seconds: For each file.

        Raises:
            MissingExtraError: The file readers are not installed.
        """
        if find_spec("markitdown") is None:
            raise MissingExtraError(f"reading files needs an extra: {install_command('cli')}")
        self._max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def convert(self, content: bytes, suffix: str) -> Converted:
        """Convert a file.

        Args:
            content: Its bytes.
            suffix: One of `SUFFIXES`, the end of its name.

        Raises:
            InvalidInputError: It cannot be converted, or not within the bounds.
        """
        used = self._process is not None
        answer = self._ask(content, suffix)
        if answer is None and used:
            # What earlier files left in memory may be why: a new process has all of it.
            answer = self._ask(content, suffix)
        if answer is None:
            reason = "it takes too much memory, or its reader fails"
            raise InvalidInputError(f"cannot be read ({reason})")
        if "error" in answer:
            raise InvalidInputError(f"cannot be read ({answer['error']})")
        return Converted(answer["text"], answer["title"])

    def _ask(self, content: bytes, suffix: str) -> dict[str, Any] | None:
        """What the process says of a file; None if it ended instead, or has no memory left."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(self._max_seconds, process.kill)
        late.start()
        try:
            header = {"suffix": suffix, "size": len(content), "seconds": self._max_seconds}
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(header).encode() + b"\n" + content)
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            in_time = late.is_alive()
            late.cancel()
        if line.endswith(b"\n") and (answer := json.loads(line)) is not None:
            return dict(answer)
        self.close()
        if not in_time:
            raise InvalidInputError(
                f"cannot be read (reading it takes longer than {self._max_seconds:g} s)"
            )
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = subprocess.Popen(
            # -P: nothing in the current folder is imported.
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Convert what is asked for until there is nothing more: the process's main function."""
    converter = _load()
    _bound_memory()
    while header := requests.readline():
        facts = json.loads(header)
        content = requests.read(facts["size"])
        if len(content) < facts["size"]:
            return  # the other side is gone
        _bound_time(facts["seconds"])
        answer: dict[str, Any] | None
        try:
            answer = _convert(converter, content, facts["suffix"])
        except MemoryError:
            answer = None
        except Exception as error:  # the readers of damaged files fail in many ways
            answer = {"error": _reason(error, content, facts["suffix"])}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _convert(converter: Any, content: bytes, suffix: str) -> dict[str, Any]:
    from markitdown import StreamInfo

    if suffix == ".docx":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_UNPACKED_BYTES:
            return {"error": f"it unpacks to {size / 1e6:,.0f} MB"}
    stream = io.BytesIO(content)
    result = converter.convert_stream(stream, stream_info=StreamInfo(extension=suffix))
    return {"text": result.markdown, "title": (result.title or "").strip() or None}


def _load() -> Any:
    from markitdown import MarkItDown
    from markitdown.converters import DocxConverter, HtmlConverter, PdfConverter

    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    # Only these: the built-in plain-text converter would take a damaged PDF's bytes for text.
    for reader in (DocxConverter, HtmlConverter, PdfConverter):
        converter.register_converter(reader())
    return converter


def _bound_memory() -> None:
    """Where the system can; a program that wants more gets a MemoryError."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))


def _bound_time(seconds: float) -> None:
    """End by itself, should the other side be killed before it can do that."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _reason(error: Exception, content: bytes, suffix: str) -> str:
    """Say in one line why a file cannot be read."""
    text = str(error).strip()
    if "PDFPasswordIncorrect" in text or "PDFEncryption" in text:
        return "it is encrypted. Save it without a password"
    if suffix == ".docx" and content.startswith(b"\xd0\xcf\x11\xe0"):
        return "it is encrypted, or an old .doc file. Save it as .docx without a password"
    if suffix == ".docx" and not content.startswith(b"PK"):
        return "it is not a docx file"
    if suffix == ".pdf" and b"%PDF-" not in content[:1024]:
        return "it is not a PDF file"
    if isinstance(error, zipfile.BadZipFile | KeyError | RecursionError) or not text:
        return f"it is damaged: {type(error).__name__}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"it is damaged: {lines[-1][:200]}"


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
