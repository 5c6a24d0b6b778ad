"""What the package exports, and that importing it is cheap."""

import subprocess
import sys

import finch_integrations


def test_the_public_names_are_sorted_and_there():
    assert finch_integrations.__all__ == sorted(finch_integrations.__all__)
    for name in finch_integrations.__all__:
        assert getattr(finch_integrations, name).__name__ == name


def test_importing_the_package_and_the_cli_loads_no_heavy_library():
    code = (
        "import sys, finch_integrations, finch_integrations.cli.app as app\n"
        "heavy = {'torch', 'transformers', 'markitdown', 'langchain_core', 'llama_index'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")


def test_the_base_install_needs_no_pydantic():
    """Only the adapters do, and the frameworks bring it."""
    code = (
        "import sys\n"
        "sys.modules['pydantic'] = None\n"
        "import pkgutil, importlib, finch_integrations.pipeline as pipeline\n"
        "for module in pkgutil.iter_modules(pipeline.__path__, pipeline.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")


def test_importing_the_engine_registers_nothing_with_transformers():
    code = (
        "from transformers import AttentionInterface\n"
        "before = list(AttentionInterface().valid_keys())\n"
        "import finch_integrations.engine.engine\n"
        "print(before == list(AttentionInterface().valid_keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "True"
