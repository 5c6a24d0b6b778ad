"""Every failure of the command line is a sentence and an exit code; a terminal gets text only."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from finch_integrations.cli import console
from finch_integrations.cli import index as index_module
from finch_integrations.cli.app import app
from finch_integrations.cli.group import _common_first
from finch_integrations.types import CompressionProgress

run = CliRunner().invoke
FINCH = [sys.executable, "-m", "finch_integrations"]


@pytest.fixture
def index(tmp_path):
    (tmp_path / "a.txt").write_text("The door code is 4711.")
    path = tmp_path / "made.index"
    result = run(app, ["index", str(tmp_path / "a.txt"), "--out", str(path), "--encoder", "none"])
    assert result.exit_code == 0, result.output
    return path


def build(source, out):
    return run(app, ["index", str(source), "--out", str(out), "--encoder", "none"])


def test_no_space_left_is_one_sentence(index):
    for command in (
        ["search", "door", "-i", str(index)],
        ["search", "door", "-i", str(index), "--json"],
    ):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [*FINCH, *command], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
        assert "No space left on device" in result.stderr


def test_a_reader_that_goes_away_is_no_error(index):
    command = subprocess.Popen(
        [*FINCH, "search", "door", "-i", str(index)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert b"Traceback" not in command.stderr.read()
    command.stderr.close()
    command.wait()


def test_places_that_cannot_be_are_named_with_the_cause(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    result = build(tmp_path / "a.txt", tmp_path / "a.txt" / "below")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "a.txt") in result.stderr
    assert "Not a directory" in result.stderr
    result = build(tmp_path / "a.txt", tmp_path / ("x" * 300))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "File name too long" in result.stderr
    result = build(tmp_path / ("y" * 300), tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path / "file" / "cache"))
    result = run(app, ["fetch"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path / 'file'}" in result.stderr
    assert "Not a directory" in result.stderr
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    "error", [OSError(30, "Read-only file system", "/here"), ValueError("odd")]
)
def test_what_nobody_foresaw_is_a_sentence_and_debug_shows_where(index, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(index_module, "_headline", fail)
    result = run(app, ["search", "door", "-i", str(index)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    expected = "/here: Read-only file system" if isinstance(error, OSError) else "ValueError: odd"
    assert expected in result.stderr
    assert "Traceback" in run(app, ["search", "door", "-i", str(index), "--debug"]).stderr


def test_exit_codes_are_those_of_the_docs(index, monkeypatch):
    assert run(app, ["search", "door", "-i", str(index)]).exit_code == 0
    assert run(app, ["search", "door", "-i", "nowhere"]).exit_code == 1
    assert run(app, ["search", "door", "--nonsense"]).exit_code == 2
    assert run(app, ["search"]).exit_code == 2

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_module, "_headline", interrupt)
    result = run(app, ["search", "door", "-i", str(index)])
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize("after", [0.15, 0.4])
def test_ctrl_c_while_the_program_starts_shows_no_traceback_of_ours(after):
    command = subprocess.Popen([*FINCH, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(after)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode in (0, 130, -signal.SIGINT)
    assert b"cli/" not in errors


def test_an_empty_path_is_not_the_current_folder():
    result = run(app, ["ask", "What?", ""])
    assert result.exit_code == 1
    assert "a path is empty" in result.stderr


def test_common_options_may_be_anywhere():
    args = ["ask", "Q", "--quiet", "p", "--threads", "2", "--threads=3", "--", "--debug"]
    assert _common_first(args) == [
        *("--quiet", "--threads", "2", "--threads=3", "ask", "Q", "p", "--", "--debug")
    ]
    assert _common_first(["ask", "--threads"]) == ["--threads", "ask"]
    assert run(app, ["models", "--threads", "none"]).exit_code == 2


def test_control_characters_are_shown_on_a_terminal_and_left_alone_in_a_pipe(tmp_path):
    attack = "code \x1b]0;owned\x07\x1b[2J\x9b1m\u202e 4711"
    (tmp_path / "a\x1b[31m.txt").write_text(attack)
    path = tmp_path / "made.index"
    assert build(tmp_path, path).exit_code == 0
    command = [*FINCH, "search", "code", "-i", str(path)]
    ours, theirs = pty.openpty()
    subprocess.run(
        command, stdout=theirs, stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    text = shown.decode()
    assert "\\u001b]0;owned\\u0007\\u001b[2J\\u009b1m\\u202e" in text
    assert "a\\u001b[31m.txt" in text
    for bad in ("\x1b]0", "\x07", "\x1b[31m.txt", "\x1b[2J", "\x9b", "\u202e"):
        assert bad not in text
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "a\x1b[31m.txt" in piped
    rows = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(rows)[0]["text"] == attack
    assert "\x1b" not in rows


def test_progress_without_a_terminal_is_a_line_every_few_seconds(monkeypatch, capsys):
    times = iter([0.0, 1.0, 6.0, 6.0, 7.0, 12.0, 12.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with console.CompressionBar() as bar:
        for tokens in (100, 200, 300, 400):
            bar(CompressionProgress(tokens=tokens, total_tokens=400, seconds=1.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"Compressing: {n}/400 tokens, {n}/s" for n in (200, 400)]
    monkeypatch.setattr(console, "_quiet", True)
    times = iter([0.0, 10.0])
    console.CompressionBar()._lines.show("never")
    assert capsys.readouterr().err == ""
