"""The README's Python examples run, one after the other, and its commands exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.model
def test_the_python_examples_run(embedded_engine, tmp_path, monkeypatch, capsys):
    """`embedded_engine` makes sure that the model has been fetched."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == README.count("```python") >= 3
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    names["engine"].close()
    output = capsys.readouterr().out
    assert output.count("7316") >= 3
    assert "lab.md: 100% kept" in output


def test_its_make_targets_and_files_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"make ([a-z-]+)", README)) - {"demo", "test"} <= targets
    assert {"demo", "test"} <= targets
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
    tree = README.split("## Files")[1]
    for name in re.findall(r"^  ([a-z_]+)/", tree, re.M):
        assert (ROOT / "finch_integrations" / name).is_dir(), name
    for name in re.findall(r"\b([a-z_]+\.py)\b", tree):
        assert list((ROOT / "finch_integrations").rglob(name)), name
