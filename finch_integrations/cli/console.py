"""What every command writes to standard error: notes, warnings and progress."""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from finch_integrations.types import CompressionProgress

if TYPE_CHECKING:
    from finch_integrations.retrieval.build import IndexProgress

_console = Console(stderr=True, highlight=False, soft_wrap=True)
_quiet = False
# Seconds between lines of progress where there is no terminal.
_PAUSE = 5.0
# Control characters but line feed and tab, and what turns the direction of text around: on a
# terminal they would change what is seen, or do worse.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def set_quiet(quiet: bool) -> None:
    """Show no progress from now on."""
    global _quiet
    _quiet = quiet


def visible(text: str) -> str:
    """Show control characters as they are written in JSON instead of sending them."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def error(message: str) -> None:
    """Write an error."""
    _console.print(Text("error: ", style="bold red") + Text(visible(message)))


def warn(message: str) -> None:
    """Write a warning about what was left out."""
    _console.print(Text("warning: ", style="yellow") + Text(visible(message)))


def note(message: str, style: str = "") -> None:
    """Write a note."""
    _console.print(Text(visible(message), style=style))


def quote(text: str, *, indent: int) -> None:
    """Show the beginning of a text on one line of the terminal."""
    line = Text(" " * indent + visible(" ".join(text.split())), style="dim")
    line.truncate(_console.width, overflow="ellipsis")
    _console.print(line)


@contextmanager
def busy(message: str) -> Iterator[None]:
    """Show a spinner while something of unknown length runs; without a terminal, late, a line."""
    if _quiet:
        yield
    elif _console.is_terminal:
        with _console.status(message):
            yield
    else:
        late = threading.Timer(_PAUSE, note, [f"{message} …"])
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()


class _Lines:
    """Progress where there is no terminal: a line every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PAUSE

    def show(self, message: str) -> None:
        if not _quiet and not _console.is_terminal and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            note(message)


class CompressionBar:
    """A progress bar for a compression; use as a context manager and as `progress` callback."""

    def __init__(self) -> None:
        self._bar = _make_bar("Compressing", "{task.fields[state]}")
        self._lines = _Lines()
        self._task: TaskID | None = None

    def __enter__(self) -> "CompressionBar":
        self._bar.start()
        self._task = self._bar.add_task("", total=None, state="reading")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: CompressionProgress) -> None:
        """Show how far the compression is."""
        assert self._task is not None, "the bar has been entered"
        speed = progress.tokens / progress.seconds if progress.seconds else 0.0
        state = f"{progress.tokens:,}/{progress.total_tokens:,} tokens, {speed:,.0f}/s"
        self._bar.update(
            self._task, total=progress.total_tokens, completed=progress.tokens, state=state
        )
        self._lines.show(f"Compressing: {state}")


class IndexBar:
    """Progress bars for an index build; use as a context manager and as `progress` callback."""

    _STEPS: ClassVar = {
        "read": ("Reading", "files"),
        "words": ("Indexing words", "chunks"),
        "encode": ("Encoding", "chunks"),
    }

    def __init__(self) -> None:
        self._bar = _make_bar(
            "{task.description:<14}", "{task.completed:,}/{task.total:,} {task.fields[unit]}"
        )
        self._lines = _Lines()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "IndexBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: "IndexProgress") -> None:
        """Show how far the build is."""
        if progress.step not in self._tasks:
            name, unit = self._STEPS[progress.step]
            self._tasks[progress.step] = self._bar.add_task(name, total=progress.total, unit=unit)
        self._bar.update(self._tasks[progress.step], completed=progress.done)
        name, unit = self._STEPS[progress.step]
        self._lines.show(f"{name}: {progress.done:,}/{progress.total:,} {unit}")


def write(text: str, *, end: str = "\n") -> None:
    """Write a result to standard output at once; on a terminal without control characters."""
    if sys.stdout.isatty():
        text = visible(text)
    # A file's name may contain bytes that are not text; written like this, JSON can read them back.
    # Not typer.echo: it leaves control sequences out where there is no terminal.
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + end)
    sys.stdout.flush()


def _make_bar(before: str, after: str) -> Progress:
    """Make a bar that is shown on a terminal only, and is gone when it is done."""
    return Progress(
        TextColumn(before),
        BarColumn(bar_width=20),
        TextColumn(after),
        TimeRemainingColumn(compact=True),
        console=_console,
        transient=True,
        disable=_quiet or not _console.is_terminal,
    )
