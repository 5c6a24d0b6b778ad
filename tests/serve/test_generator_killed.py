"""The server that writes the answers is killed while many wait for it, and comes back."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from socket import socket

import pytest

from finch_integrations import ChooseThenGenerate, FinchEngine, OpenAIServer
from tests.serve.conftest import serving, until
from tests.tiny import make_model, make_tokenizer, text_of

pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"])]

DOCUMENTS = [text_of(200, seed=1), text_of(120, seed=2)]


@contextmanager
def generating(model, port):
    """`finch serve` in a process of its own."""
    command = [sys.executable, "-m", "finch_integrations", "serve", "--model", str(model)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def ready():
        assert process.poll() is None, "it ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        until(ready, seconds=120)
        yield process
    finally:
        process.kill()
        process.wait()


def ask(running, number, stream):
    """What came: the answer, or the error, and the status."""
    body = {
        "model": running.service.model.name,
        "messages": [{"role": "user", "content": f"What is it, {number % 4}?"}],
        "documents": DOCUMENTS,
        "target_size": 60,
        "max_tokens": 60,
        "stream": stream,
    }
    response = running.post(body)
    if not stream or response.status_code != 200:
        whole = response.json()
        if response.status_code == 200:
            return whole["choices"][0]["message"]["content"], 200
        return whole["error"], response.status_code
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    if lines[-1] != "[DONE]":
        return json.loads(lines[-1])["error"], None
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    return "".join(delta.get("content", "") for delta in deltas), 200


def test_whoever_waits_for_a_generator_that_is_killed_hears_of_it_and_the_next_one_is_asked(
    folder, tmp_path
):
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scorer = FinchEngine(make_model(), make_tokenizer())
    far = OpenAIServer(f"http://127.0.0.1:{port}/v1", str(folder))
    with serving(tmp_path, model=ChooseThenGenerate(far, scorer)) as running:
        with generating(folder, port) as generator:
            alone = [ask(running, number, stream=False) for number in range(4)]
            assert [status for _, status in alone] == [200] * 4
            with ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(ask, running, n, n % 2 == 0) for n in range(40)]
                until(lambda: sum(one.done() for one in asked) >= 5, seconds=60)
                generator.send_signal(signal.SIGKILL)
                killed = time.monotonic()
                answers = [one.result(timeout=120) for one in asked]
            assert time.monotonic() - killed < 60
        failed = [(said, status) for said, status in answers if status != 200]
        assert failed, "it was killed too late"
        for error, status in failed:
            assert status in (502, None)  # None: in the middle of a stream
            assert (error["type"], error["code"]) == ("server_error", "generator_failed")
        for number, (said, status) in enumerate(answers):
            if status == 200:
                assert (said, status) == alone[number % 4]
        assert running.service.active == 0
        assert running.service.room.free == running.service.room.total
        with generating(folder, port):
            assert [ask(running, n, stream=n % 2 == 0) for n in range(4)] == alone
