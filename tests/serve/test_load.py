"""Many clients, all kinds of requests: every answer is the one given alone, and nothing stays."""

import contextlib
import ctypes
import gc
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.serve.conftest import serving, until, until_free
from tests.serve.test_chat import events_of
from tests.tiny import text_of

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS, LEAVING = 16, 500, 60
SECONDS = 400
PATHS = {
    "chat": "/v1/chat/completions",
    "text": "/v1/completions",
    "response": "/v1/responses",
}


def make_kinds():
    """Different requests, without saying whether the answer is streamed."""
    kinds = []
    for seed in range(4):
        question = f"What is it, {seed}?"
        sets = ([], [text_of(200, seed=seed)], [text_of(150, seed=9), text_of(90, seed=seed)])
        for documents in sets:
            extra = {"documents": documents, "target_size": 60} if documents else {}
            messages = [{"role": "user", "content": question}]
            kinds += [
                ("chat", {"messages": messages, "max_tokens": 6 + seed, **extra}),
                ("text", {"prompt": question, "max_tokens": 5 + seed, **extra}),
                ("response", {"input": question, "max_output_tokens": 4 + seed, **extra}),
            ]
    return [(form, {"model": "tiny", **body}) for form, body in kinds]


def ask(client, form, body, *, stream):
    """The text of an answer."""
    response = client.post(PATHS[form], json={**body, "stream": stream})
    assert response.status_code == 200, response.text
    if not stream:
        whole = response.json()
        if form == "response":
            return whole["output"][0]["content"][0]["text"]
        choice = whole["choices"][0]
        return choice["text"] if form == "text" else choice["message"]["content"]
    if form == "response":
        lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        events = [json.loads(line) for line in lines]
        return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    choices = [event["choices"][0] for event in events_of(response)]
    if form == "text":
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content", "") for choice in choices)


def send_only(running, form, body):
    """Send a request on a connection that nobody reads."""
    content = json.dumps({**body, "stream": True}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(running.socket))
    connection.sendall(
        f"POST {PATHS[form]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def used():
    """Bytes in use, and Python's objects; what the allocator keeps for later is not in use."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not of this C library
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss, len(gc.get_objects())


def test_mixed_requests_of_many_clients_are_answered_as_alone(tmp_path):
    kinds, dice = make_kinds(), random.Random(0)
    with serving(tmp_path, max_tokens=2000, max_requests=64) as running:
        with running.client() as client:
            alone = [ask(client, form, body, stream=False) for form, body in kinds]
        assert len(set(alone)) > len(kinds) // 3, "the answers are too much alike to tell apart"

        def load(count, seed):
            order = [
                (number % len(kinds), random.Random(seed + number).random() < 0.5)
                for number in range(count)
            ]
            dice.shuffle(order)
            local, clients = threading.local(), []

            def one(task):
                number, stream = task
                if not hasattr(local, "client"):
                    local.client = running.client()
                    clients.append(local.client)
                return number, ask(local.client, *kinds[number], stream=stream)

            with ThreadPoolExecutor(CLIENTS) as pool:
                answers = list(pool.map(one, order))
            for client in clients:
                client.close()
            return answers

        load(REQUESTS, seed=1000)  # threads, caches and the allocator's arenas are there afterwards
        (before, objects), started = used(), time.monotonic()
        silent = send_only(running, *kinds[1])  # reads nothing until the end
        leavers = ThreadPoolExecutor(2)

        def leave(number):
            form, body = kinds[number % len(kinds)]
            limit = "max_output_tokens" if form == "response" else "max_tokens"
            with send_only(running, form, {**body, limit: 500}):
                time.sleep(random.Random(number).random() * 0.3)

        leaving = [leavers.submit(leave, number) for number in range(LEAVING)]
        answers = load(REQUESTS, seed=0)
        while leaving:
            leaving.pop().result()  # kept, they would count as objects
        leavers.shutdown()
        assert time.monotonic() - started < SECONDS
        assert len(answers) == REQUESTS
        wrong = [(kinds[number], text) for number, text in answers if text != alone[number]]
        assert wrong == []
        silent.close()
        # Whoever has left frees the place within a second.
        until_free(running.service)
        assert running.service.room.free == running.service.room.total
        until(lambda: not running.server.server_state.connections)
        after, objects_after = used()
        assert after <= before * 1.02
        # Not even one for each request.
        assert objects_after - objects < REQUESTS
