"""Wheel and sdist: what is in them, and that the wheel works without the repository."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from finch_integrations import __version__

ROOT = Path(__file__).parent.parent

URL = "https://example.org/finch"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both without network: hatchling is installed, no isolated environment is made."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    place = {**os.environ, "FINCH_PROJECT_URL": URL}
    subprocess.run(command, check=True, capture_output=True, env=place)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_the_whole_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    package = {name for name in names if name.startswith("finch_integrations/")}
    assert package == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "finch_integrations").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"finch_integrations/py.typed", "finch_integrations/report/report.html.jinja"} <= package
    metadata = {name.partition(".dist-info/")[2] for name in names - package}
    assert metadata == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_sdist_has_what_building_testing_and_documenting_takes(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for name in (
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "README.md",
        "benchmarks/results/prefill.json",
        "constraints.txt",
        "docs/hooks.py",
        "docs/page_parts/reference.py",
        "docs/diagrams/flow.svg",
        "examples/station-handbook/04-laboratory.md",
        "finch_integrations/py.typed",
        "hatch_build.py",
        "mkdocs.yml",
        "pyproject.toml",
        "tests/reference.py",
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith((".venv", "site/"))]


def test_the_metadata_links_to_the_repository_that_one_variable_names(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        metadata = wheel.read(name).decode("utf-8")
    assert f"Project-URL: Issues, {URL}/issues\n" in metadata
    assert "Description-Content-Type: text/markdown\n" in metadata
    readme = metadata.partition("\n\n")[2]
    assert f"]({URL}/blob/main/docs/limits.md)" in readme
    links = re.findall(r"""(?:\]\(|src="|srcset=")([^)"]+)""", readme)
    assert all(link.startswith(("https://", "#")) for link in links), links


def test_what_is_to_be_cited_is_this_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == __version__


@pytest.mark.model
def test_the_installed_wheel_answers_a_question_elsewhere(built, embedded_engine, tmp_path):
    """In a new environment that sees this one's packages, but not its own copy of this one."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    ours = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # Other .pth files, such as that of an editable install, do not count in a folder named so.
    (ours / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*install, "--no-index", str(built[0])], check=True, capture_output=True)

    (tmp_path / "lab.md").write_text("The door code of the store is 7316.\n")

    def run(*command):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    code = "import finch_integrations; print(finch_integrations.__file__)"
    assert run(python, "-c", code).startswith(str(ours))
    question = ("ask", "What is the door code of the store?", "lab.md")
    answer = run(home / "bin" / "finch", *question, "--max-tokens", "20", "--report", "page.html")
    assert "7316" in answer
    assert "lab.md" in (tmp_path / "page.html").read_text(encoding="utf-8")
