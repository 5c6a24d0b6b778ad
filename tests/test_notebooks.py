"""Every notebook runs from top to bottom, says what it promises, and is kept with pictures only."""

import ast
import importlib
import os
import re
import sys

import nbformat
import pytest

from benchmarks.plots import notebooks as stored
from tests.documentation import ROOT
from tests.walk import obstacle, run_notebook

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Of any Python: with a kernel's name Jupyter opens it at once, without a version it stays the same.
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(path):
    """The code of a notebook, without IPython's own commands."""
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    return re.sub(r"^%.*$", "", "\n".join(cells), flags=re.M)


class Ran:
    """What a notebook showed.

    Attributes:
        text: Everything printed, and every value shown.
        images: Pictures shown.
        html: Pages shown.
    """

    def __init__(self, notebook):
        self.text, self.images, self.html = "", 0, ""
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                warned = output.get("name") == "stderr"
                assert not warned, f"on standard error:\n{output.text}\nfrom:\n{cell.source}"
                self.text += output.get("text", "") + data.get("text/plain", "")
                self.images += "image/png" in data
                self.html += data.get("text/html", "")


@pytest.fixture
def run(request, monkeypatch, tmp_path):
    """Run a notebook in the new environment when this session walks, or else in this one."""
    # Whatever the user has set up, and nothing that stays.
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    walks = any(item.path.name == "test_walk.py" for item in request.session.items)
    if walks and not obstacle():
        walk = request.getfixturevalue("walk")
        assert walk.installed
        return lambda name, folder: Ran(walk.notebook(name, folder))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    return lambda name, folder: Ran(
        run_notebook(
            ROOT / "notebooks" / f"{name}.ipynb", ROOT / folder, sys.executable, environment
        )
    )


def test_the_notebooks_are_found():
    names = [path.stem for path in NOTEBOOKS]
    assert names[0] == "01_quickstart"
    assert [name[:2] for name in names] == [f"{n:02}" for n in range(1, len(names) + 1)]


@each_notebook
def test_outputs_other_than_pictures_are_stripped(path):
    """`make fix` does that."""
    notebook = read(path)
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        assert [set(output.get("data", ())) for output in outputs] == [{"image/png"}] * len(outputs)
        assert cell.get("execution_count") is None
        assert cell.metadata == ({"keep_output": True} if outputs else {})
    made_from = notebook.metadata.pop("pictures_made_from", None)
    assert (made_from is not None) == (path in stored.SHOWN)
    assert notebook.metadata == METADATA


@pytest.mark.parametrize("path", stored.SHOWN, ids=lambda path: path.stem)
def test_stored_pictures_are_those_of_the_code_and_the_results(path):
    """If not: make pictures."""
    assert read(path).metadata.pictures_made_from == stored.digest(path)
    shown = sum(len(cell.get("outputs", [])) for cell in read(path).cells)
    assert shown >= 3
    assert path.stat().st_size < 600_000


@each_notebook
def test_it_has_a_title_and_its_imports_work(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source)
    imports = [n for n in ast.walk(ast.parse(code(path))) if isinstance(n, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module)
        for name in (alias.name for alias in node.names):
            # A name of the module, or a module of the package.
            assert hasattr(module, name) or importlib.import_module(f"{node.module}.{name}")


@each_notebook
def test_names_of_files_in_the_text_exist(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for name in re.findall(r"`(\d\d_\w+\.ipynb)`", text):
        assert (ROOT / "notebooks" / name).exists(), name
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8"), target


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"], ids=["root", "notebooks"])
def test_the_examples_are_found_from_both_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for path in NOTEBOOKS:
        finders = [cell.source for cell in read(path).cells if "\nROOT = next(" in cell.source]
        assert len(finders) == 1, path
        names = {}
        tree = ast.parse(re.sub(r"^%.*$", "", finders[0], flags=re.M))
        wanted = [
            node
            for node in tree.body
            if (isinstance(node, ast.ImportFrom) and node.module == "pathlib")
            or (isinstance(node, ast.Assign) and node.targets[0].id == "ROOT")
        ]
        exec(compile(ast.Module(wanted, []), str(path), "exec"), names)
        assert names["ROOT"] == ROOT


@pytest.mark.slow
@pytest.mark.model
def test_quickstart(run, embedded_engine):
    ran = run("01_quickstart", "notebooks")
    assert re.search(r"3,\d{3} document tokens, 512 kept", ran.text)
    assert re.search(r"04-laboratory.md: [1-9]\d?% of 1,\d{3} tokens kept", ran.text)
    # The right passage, then in every answer: streamed, loaded, of a single note.
    assert "the door code of the chemical store is 7316" in ran.text
    assert ran.text.count("7316") >= 4
    for budget, kept in (("'target_size': 300", 300), ("'compression_ratio': 0.75", 403)):
        assert f"{{{budget}}}: {kept} of 1," in ran.text
    megabytes = float(re.search(r"'max_kv_bytes'.*?tokens, ([\d.]+) MB", ran.text)[1])
    assert megabytes <= 25
    assert "100% kept" in ran.text
    assert (
        "ConfigurationError: unknown option 'target_sise'; did you mean 'target_size'?" in ran.text
    )
    assert "layers: 30 with 300 tokens each" in ran.text


@pytest.mark.slow
@pytest.mark.model
def test_langchain(run, embedded_engine):
    ran = run("02_langchain", "notebooks")
    assert ran.text.count("7316") >= 3
    assert "documents found in: argument" in ran.text
    assert re.search(r"3,\d{3} document tokens, 512 kept", ran.text)
    assert "4 documents in the agent's state" in ran.text
    assert "Old Gudrun" in ran.text
    assert re.search(r"04-laboratory.md: [1-9]\d?% of 1,\d{3} tokens kept", ran.text)
    assert "'the door code of the chemical store is 7316'" in ran.text  # a citation
    assert "[04-laboratory.md] " in ran.text


@pytest.mark.slow
@pytest.mark.model
def test_llama_index(run, embedded_engine):
    ran = run("03_llama_index", "notebooks")
    assert ran.text.count("7316") >= 3
    assert "2 documents" in ran.text
    assert re.search(r"document tokens, 512 kept", ran.text)
    assert re.search(r"04-laboratory.md [56],\d{3} characters", ran.text)
    assert "Old Gudrun" in ran.text
    assert "user: What is the door code" in ran.text
    assert ran.text.rstrip().splitlines()[-1].startswith("assistant: ")


@pytest.mark.slow
@pytest.mark.model
def test_what_finch_keeps(run, embedded_engine):
    ran = run("04_what_finch_keeps", "notebooks")
    assert ran.images == 3
    assert "&lt;mark" in ran.html
    assert re.search(r"30 layers, 3\d{3} document tokens", ran.text)
    _, best, best_of_the_other = ran.text.split("best passage: ")
    assert "7316" in best
    assert "Old Gudrun" in best_of_the_other
    both = int(re.search(r"kept under both questions: (\d+)", ran.text)[1])
    assert both < 256


@pytest.mark.slow
def test_paper_figures(run):
    """From the root, as the other half of those who open notebooks do it."""
    ran = run("05_paper_figures", ".")
    assert ran.images >= 5
    assert re.search(r"documents of \d+k", ran.text)
