"""The example of docs/retrieval.md that needs no model runs."""

import re
from pathlib import Path

DOCS = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")


def test_the_first_example_finds_the_door_code(capsys):
    example = re.search(r"```python\n(.*?)```", DOCS, re.S)[1]
    exec(compile(example, "docs/retrieval.md", "exec"), {})
    name, section, score = capsys.readouterr().out.split()
    assert (name, section) == ("lab.md#1", "Doors")
    assert float(score) > 0


def test_the_documented_defaults_are_the_real_ones():
    from finch_integrations.retrieval import RetrievalConfig

    defaults = RetrievalConfig()
    rows = re.findall(r"^\| (`.*?`) \|.*\| *(.*?) *\|$", DOCS, re.M)
    for names, values in rows:
        for name, value in zip(
            re.findall(r"`(\w+)`", names), values.strip("` ").split(", "), strict=False
        ):
            if name != "filter":
                expected = {"": None, "off": False}.get(value, value)
                assert str(getattr(defaults, name)).removesuffix(".0") == str(expected), name
    assert len(rows) == 9
