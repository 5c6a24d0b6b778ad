"""What all commands have in common: options before or after the command, and how failures end.

Exit codes: 0 done, 1 failed, 2 a command line that cannot be understood, 130 interrupted.
"""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from finch_integrations.cli import console
from finch_integrations.errors import FinchError

# Options of `finch` itself, and whether a value follows.
_COMMON = {"--debug": False, "--quiet": False, "--offline": False, "--threads": True}


class Group(TyperGroup):
    """The commands; their common options may be anywhere on the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the common options to the front."""
        return super().parse_args(ctx, _common_first(args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a failure is one message and an exit code."""
        with _reporting_failures(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


def _common_first(args: list[str]) -> list[str]:
    common: list[str] = []
    rest: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--":
            rest += [arg, *left]
        elif arg.partition("=")[0] in _COMMON:
            common.append(arg)
            if _COMMON[arg.partition("=")[0]] and "=" not in arg:
                common += [value for value in [next(left, None)] if value is not None]
        else:
            rest.append(arg)
    return [*common, *rest]


@contextmanager
def _reporting_failures(*, debug: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.error("interrupted")
        raise typer.Exit(130) from None
    except Exception as error:
        if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
            raise  # typer's own
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # the reader of a pipe has gone, as `head` does: typer ends quietly
        if debug:
            traceback.print_exc()
        console.error(_sentence(error))
        _drop_output()
        raise typer.Exit(1) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, FinchError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = " -> ".join(places) or "reading or writing failed"
        return f"{where}: {reason}"
    if isinstance(error, MemoryError):
        return "there is not enough memory. Give fewer documents, or a smaller --target-size"
    return (
        f"something went wrong that this program does not know: {type(error).__name__}: {error}. "
        "With --debug it shows where; please report that"
    )


def _drop_output() -> None:
    """Drop what standard output could not take: Python would try it again at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
