"""A newcomer's walk: clone, the README's commands and its example, each notebook as it asks for.

What the pages say is taken from them and run as it stands, in an environment that knows nothing of
the one that this Python is in. The walk takes what is committed; it needs git, make, the package
index, 4 GB and about ten minutes. tests/test_walk.py goes it too; by hand: python -m tests.walk
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from traitlets.config import Config

from tests.documentation import ROOT, blocks

DOOR_CODE = "7316"
# `make test` is run inside of `make test`: these show that it gets as far as running tests.
SOME_TESTS = "tests/test_public_api.py"
# What a developer's shell, make and pytest tell their children, and a newcomer's does not.
_TOLD = r"PYTHON|PYTEST|VIRTUAL_ENV|CONDA|JUPYTER|IPYTHON|MAKE|MFLAGS|GIT_|HF_|LANGSMITH"


class Walk:
    """What a newcomer does, in an empty folder.

    Attributes:
        root: The clone.
        environment: The variables of a shell in which nothing is activated.
    """

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "finch-integrations"
        self.environment = {n: v for n, v in os.environ.items() if not re.match(_TOLD, n)}
        self.environment["IPYTHONDIR"] = str(folder / "ipython")
        # As in the Makefile.
        self.environment["PIP_COMPILE"] = "0"
        # The same Python, but that of the system, not of a virtual environment.
        path = self.environment["PATH"].split(os.pathsep)
        path = [f"{sys.base_prefix}/bin", *(part for part in path if part != f"{sys.prefix}/bin")]
        self.environment["PATH"] = os.pathsep.join(path)
        self.run(f"git clone --quiet {shlex.quote(str(ROOT))} {self.root}", cwd=folder)

    def run(self, command, cwd=None, **variables):
        """Run a command; what it wrote to standard output is the result."""
        start = time.perf_counter()
        result = subprocess.run(
            command,
            shell=True,
            cwd=cwd or self.root,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        print(f"{time.perf_counter() - start:6.1f} s  {command}", flush=True)
        assert result.returncode == 0, (
            f"{command!r} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
        )
        return result.stdout

    def commands(self, program):
        """The lines of the README's block that begins with this program's name."""
        found = [b.code for b in blocks(self.root / "README.md") if b.code.startswith(program)]
        assert found, f"the README has no block of commands that begins with {program}"
        return found[0].splitlines()

    def try_it(self):
        """What each of the two commands of "Try it" printed."""
        return [self.run(line, PYTEST_ADDOPTS=SOME_TESTS) for line in self.commands("make ")]

    @cached_property
    def project(self):
        """The variables of a shell in which a project's own, new environment is activated."""
        home = self.folder / "project"
        self.run(f"python3 -m venv {home}")
        path = f"{home}/bin{os.pathsep}{self.environment['PATH']}"
        return {"VIRTUAL_ENV": str(home), "PATH": path}

    @cached_property
    def installed(self):
        """What the commands for a project of one's own printed, the last one an answer."""
        return [self.run(line, **self.project) for line in self.commands("pip ")]

    def example(self):
        """What the README's first example in Python prints."""
        code = next(b.code for b in blocks(self.root / "README.md") if b.language == "python")
        (self.folder / "example.py").write_text(code, encoding="utf-8")
        return self.run("python ../example.py", **self.project)

    def notebook(self, name, folder):
        """Install what a notebook asks for, and run it in this folder of the clone."""
        path = self.root / "notebooks" / f"{name}.ipynb"
        text = "\n".join(c.source for c in _read(path).cells if c.cell_type == "markdown")
        (command,) = re.findall(r"`(pip install [^`]+)`", text)
        self.run(" ".join(command.split()), **self.project)
        python = f"{self.project['VIRTUAL_ENV']}/bin/python"
        start = time.perf_counter()
        ran = run_notebook(path, self.root / folder, python, self.environment | self.project)
        print(f"{time.perf_counter() - start:6.1f} s  {path.name}", flush=True)
        return ran


def run_notebook(path, folder, python, environment):
    """Run a notebook in `folder` with another Python; an exception in a cell is one here."""

    class Manager(AsyncKernelManager):
        kernel_spec = KernelSpec(
            argv=[python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        )

    notebook = _read(path)
    # Sockets of the file system: the tests have no others. Their paths must be short.
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            timeout=900,
            startup_timeout=180,
            kernel_manager_class=Manager,
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=environment)
    return notebook


def _read(path):
    return nbformat.read(path, as_version=4)


@cache
def obstacle():
    """Why this walk cannot be gone here, if so."""
    if not (ROOT / ".git").exists():
        return "this is no git checkout, there is nothing to clone"
    if missing := [program for program in ("git", "make") if not shutil.which(program)]:
        return f"{' and '.join(missing)} cannot be found"
    with tempfile.TemporaryDirectory() as folder:
        asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, "filelock"]
        result = subprocess.run(asked, capture_output=True, text=True)
    return result.stderr.strip() if result.returncode else None


@contextmanager
def walking():
    """A walk in a new folder, of whose gigabytes nothing stays."""
    folder = tempfile.mkdtemp()
    try:
        yield Walk(Path(folder))
    finally:
        # Not waited for: removing a hundred thousand files takes minutes on some disks.
        removal = f"rm -rf {shlex.quote(folder)} < /dev/null > /dev/null 2>&1 &"
        subprocess.run(removal, shell=True, start_new_session=True)


def main():
    if reason := obstacle():
        sys.exit(reason)
    start = time.perf_counter()
    with walking() as walk:
        demo, tests = walk.try_it()
        print(demo, tests, *walk.installed, walk.example(), sep="\n")
        for path in sorted((walk.root / "notebooks").glob("*.ipynb")):
            walk.notebook(path.stem, "notebooks")
    print(f"{time.perf_counter() - start:6.1f} s")


if __name__ == "__main__":
    main()
