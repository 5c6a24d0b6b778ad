"""The container's files: what they start, copy and check is there."""

import re
import shlex
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from finch_integrations.cli.app import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "container"


@pytest.fixture(scope="module")
def steps():
    """The Dockerfile's instructions, with their arguments."""
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]["finch"]


def argument(steps, name):
    return next(value for step, value in steps if step == name)


def test_the_server_starts_with_options_that_there_are(steps, service):
    command = yaml.safe_load(argument(steps, "ENTRYPOINT"))
    assert command[:2] == ["finch", "serve"]
    shown = CliRunner().invoke(app, ["serve", "--help"], terminal_width=200).output
    for given in (command[2:], yaml.safe_load(argument(steps, "CMD")), service["command"]):
        assert all(option in shown for option in given if option.startswith("--"))
    # It listens on all addresses: it must not start without a key.
    assert "FINCH_SERVE_KEY:?" in service["environment"]["FINCH_SERVE_KEY"]


def test_it_does_not_run_as_root(steps, service):
    names = [step for step, _ in steps]
    # By number, so that a cluster can see that it is not 0.
    assert argument(steps, "USER") == "1000"
    assert any(
        step == "RUN" and "useradd" in value and "--uid 1000" in value for step, value in steps
    )
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert service["cap_drop"] == ["ALL"]


def test_a_linter_has_nothing_to_say_of_the_dockerfile():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_other_commands_of_finch_exist(steps):
    lines = " && ".join(value for step, value in steps if step == "RUN").split(" && ")
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("finch ")]
    assert commands == [["fetch", "all"]]
    shown = CliRunner().invoke(app, ["fetch", "--help"], terminal_width=200).output
    assert "all" in shown


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_check_says_whether_the_server_can_answer(reachable, service):
    address, answering = reachable
    code = service["healthcheck"]["test"][-1].replace("http://127.0.0.1:8080/", address)
    exec(compile(code, "check", "exec"), {})
    answering.problem = "the model is being loaded"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        exec(compile(code, "check", "exec"), {})
    answering.problem = None


def test_both_check_that_it_can_answer(steps, service):
    built = yaml.safe_load(argument(steps, "HEALTHCHECK").partition("CMD ")[2])
    assert service["healthcheck"]["test"] == ["CMD", *built]
    compile(built[-1], "check", "exec")
    assert "127.0.0.1:8080/ready" in built[-1]
    assert argument(steps, "EXPOSE") == "8080"


def test_what_the_package_is_built_of_is_copied():
    kept = {
        line[1:]
        for line in (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    assert all((ROOT / name).exists() for name in kept)
    assert {"finch_integrations", "pyproject.toml", "hatch_build.py", "LICENSE"} <= kept
    # What the hook reads while the package is built.
    hook = (ROOT / "hatch_build.py").read_text("utf-8")
    assert {
        name for name in re.findall(r'"([\w-]+\.\w+)"', hook) if (ROOT / name).is_file()
    } <= kept


def test_its_extras_exist_and_its_commands_are_shell(steps):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    run = [value for step, value in steps if step == "RUN"]
    extras = re.search(r"\.\[([\w,]+)\]", " ".join(run))[1].split(",")
    assert all(f"\n{extra} = [" in project for extra in extras)
    for command in run:
        shlex.split(command)
        assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0
