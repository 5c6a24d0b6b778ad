"""The package's names, what importing it costs, and processes that end while a model works."""

import subprocess
import sys

import pytest

import finch_integrations.langchain as langchain_package
from finch_integrations.errors import install_command
from finch_integrations.langchain import ChatFinch


def test_the_public_names_are_sorted_and_there():
    assert langchain_package.__all__ == sorted(langchain_package.__all__)
    for name in langchain_package.__all__:
        assert getattr(langchain_package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'ChatFlinch'"):
        _ = langchain_package.ChatFlinch


@pytest.mark.parametrize(
    ("missing", "name", "install"),
    [
        ("langchain_core", "ChatFinch", install_command("langchain")),
        ("langchain", "FinchDocumentsMiddleware", "pip install langchain"),
    ],
)
def test_a_missing_package_is_named_with_its_command(missing, name, install):
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import finch_integrations.langchain\n"
        f"from finch_integrations.langchain import {name}\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"MissingExtraError: {name} needs the package {missing}" in output.stderr
    assert output.stderr.strip().endswith(install)


def test_the_dtype_is_chosen_by_the_device_unless_given():
    assert ChatFinch().dtype == "auto"


def test_constructing_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from finch_integrations.langchain import ChatFinch\n"
        "ChatFinch(target_size=2048)\n"
        "print(sorted({'torch', 'transformers', 'langchain'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")


def test_an_interrupt_reaches_a_waiting_caller(folder):
    code = (
        "import _thread, signal, threading\n"
        # Of a shell's background job interrupts are ignored, and its children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from finch_integrations.langchain import ChatFinch\n"
        f"chat = ChatFinch(model={str(folder)!r}, max_tokens=100_000).warm_up()\n"
        "threading.Timer(0.3, _thread.interrupt_main).start()\n"
        "try:\n"
        "    while True:\n"
        "        chat.invoke('Hi')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (output.returncode, output.stdout.strip()) == (0, "interrupted"), output.stderr


def test_the_worker_ends_with_the_process(folder):
    code = (
        "from finch_integrations.langchain import ChatFinch\n"
        f"stream = ChatFinch(model={str(folder)!r}, max_tokens=100_000).stream('Hi')\n"
        "print(len([next(stream) for _ in range(3)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (output.returncode, output.stdout.strip()) == (0, "3"), output.stderr
