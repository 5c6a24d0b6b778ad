"""`finch serve`: it runs, answers and ends; wrong options are refused first."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from finch_integrations.cli.app import app
from tests.serve.conftest import until

RUNNER = CliRunner()


def test_an_open_host_without_a_key_is_refused(monkeypatch):
    monkeypatch.delenv("FINCH_SERVE_KEY", raising=False)
    result = RUNNER.invoke(app, ["serve", "--host", "0.0.0.0"])
    assert result.exit_code == 1
    assert "FINCH_SERVE_KEY" in result.stderr


def test_wrong_options_are_refused_before_anything_is_loaded():
    assert RUNNER.invoke(app, ["serve", "--method", "finch", "--scorer", "x"]).exit_code == 1
    assert RUNNER.invoke(app, ["serve", "--max-tokens", "0"]).exit_code == 1
    assert RUNNER.invoke(app, ["serve", "--port", "99999"]).exit_code == 2


@pytest.mark.enable_socket
def test_the_command_serves_a_model_until_it_is_told_to_stop(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "finch_integrations", "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--model", str(folder)], env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def ready():
                assert process.poll() is None, "the server ended"
                try:
                    return client.get("/ready").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready, seconds=60)
            body = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 3}
            answer = client.post("/v1/chat/completions", json={"model": str(folder), **body})
            assert answer.status_code == 200, answer.text
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(30)
    assert ended in (0, -signal.SIGTERM)
