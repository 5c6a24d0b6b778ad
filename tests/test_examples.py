"""The example scripts run on the embedded models, and find and cite the right passage."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.model
def test_rag_answers_from_an_index_and_cites_the_file(
    embedded_engine, embedded_encoder, tmp_path, monkeypatch, capsys
):
    """The fixtures make sure that the models have been fetched."""
    monkeypatch.chdir(tmp_path)
    handbook = EXAMPLES / "station-handbook"
    question = "What is the door code of the chemical store?"
    monkeypatch.setattr("sys.argv", ["rag.py", question, str(handbook)])
    runpy.run_path(str(EXAMPLES / "rag.py"), run_name="__main__")
    answer, _, report = capsys.readouterr().out.partition("\n\nCited:\n")
    assert "7316" in answer
    citation = report.splitlines()[0]
    assert f"{handbook}/04-laboratory.md, characters " in citation
    assert "under 'Doors and keys': the door code of the chemical store is 7316" in citation
    assert (tmp_path / "handbook.index" / "index.json").is_file()
