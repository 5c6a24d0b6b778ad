"""The package's names, and what importing it costs."""

import subprocess
import sys

import pytest

import finch_integrations.llama_index as package
from finch_integrations.errors import install_command


def test_the_public_names_are_sorted_and_there():
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'FlinchLLM'"):
        _ = package.FlinchLLM


@pytest.mark.parametrize("name", package.__all__)
def test_the_missing_extra_is_named_with_its_command(name):
    code = (
        "import sys\n"
        "sys.modules['llama_index'] = None\n"
        "import finch_integrations.llama_index\n"
        f"from finch_integrations.llama_index import {name}\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"MissingExtraError: {name} needs the package llama_index" in output.stderr
    assert output.stderr.strip().endswith(install_command("llama-index"))


def test_constructing_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from finch_integrations.llama_index import FinchLLM\n"
        "FinchLLM(target_size=2048).metadata\n"
        "print(sorted({'torch', 'transformers', 'langchain_core'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")
