"""Keys, limits, slow and leaving clients, a full queue, shutting down."""

import contextlib
import fcntl
import json
import socket
import struct
import termios
import threading
import time

import pytest

from finch_integrations import ConfigurationError, ModelLoadError
from finch_integrations.pipeline.ask import AnswerPiece
from finch_integrations.serve import ServerSettings
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.service import Service
from tests.serve.conftest import serving, until, until_free
from tests.serve.test_chat import Saying
from tests.tiny import text_of

CHAT = "/v1/chat/completions"
LONG = [text_of(1200, seed=5)]


def chat(**changes):
    messages = [{"role": "user", "content": "What is it?"}]
    return {"model": "tiny", "messages": messages, "max_tokens": 4, **changes}


def test_a_server_for_other_machines_needs_a_key():
    with pytest.raises(ConfigurationError, match="FINCH_SERVE_KEY"):
        ServerSettings(host="0.0.0.0")
    settings = ServerSettings(host="0.0.0.0", api_key="secret")
    assert "secret" not in repr(settings)


def test_without_the_key_nothing_but_the_state_is_shown(tmp_path):
    with serving(tmp_path, api_key="s3cret") as running, running.client() as client:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
            assert client.get(path).status_code == 401
        for given in ("Bearer wrong", "Bearer", "Basic s3cret", "s3cret", "Bearer s3cret2", "é"):
            headers = {"Authorization": given.encode()}
            assert client.post(CHAT, json=chat(), headers=headers).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        assert client.post(CHAT, json=chat(), headers=headers).status_code == 200
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_bodies_are_limited_also_without_a_length(tmp_path):
    with serving(tmp_path, max_body_bytes=1000) as running, running.client() as client:
        assert client.post(CHAT, json=chat(documents=["x" * 2000])).status_code == 413

        def parts():
            for _ in range(30):
                yield b" " * 100

        headers = {"Content-Type": "application/json"}
        assert client.post(CHAT, content=parts(), headers=headers).status_code == 413
        assert client.post(CHAT, json=chat()).status_code == 200


def test_a_request_that_trickles_in_is_ended(tmp_path):
    with serving(tmp_path, body_timeout=0.3) as running:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(running.socket))
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert running.post(chat()).status_code == 200


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_connection_whose_headers_trickle_in_is_closed(tmp_path, before):
    with (
        serving(tmp_path, body_timeout=0.5) as running,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.settimeout(10)
        connection.connect(str(running.socket))
        if before:
            connection.sendall(before)
            assert b"200" in connection.recv(1000)
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for letter in b"GET /health HTTP/1.1\r\nHost: localhost\r\n" * 2:
                connection.sendall(bytes([letter]))
                time.sleep(0.05)
                if time.monotonic() - started > 3:
                    pytest.fail("the connection is still open")
        assert time.monotonic() - started < 3
        assert running.post(chat()).status_code == 200


def test_an_answer_may_take_longer_than_headers(tmp_path):
    with serving(tmp_path, body_timeout=0.1, max_tokens=2000) as running:
        started = time.monotonic()
        assert running.post(chat(max_tokens=300)).status_code == 200
        assert time.monotonic() - started > 0.1


def test_a_request_that_takes_too_long_is_ended_and_frees_its_place(tmp_path):
    with serving(tmp_path, timeout=0.05, max_tokens=2000) as running:
        response = running.post(chat(max_tokens=1500))
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "timeout"
        until(lambda: running.service.active == 0)


def leave(running, body, moment):
    """Send a request and close the connection when something is so."""
    content = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(running.socket))
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content
        )
        until(moment)


def slow_down(engine):
    """Make a model take so long that no answer is complete before anybody leaves; what it fed."""
    fed = []

    def note(_, args, kwargs):
        fed.append(kwargs["input_ids"].shape[1])
        time.sleep(0.01)

    engine.backbone.model.register_forward_pre_hook(note, with_kwargs=True)
    return fed


MOMENTS = {
    "sent": lambda fed: True,
    "reading": lambda fed: len(fed) > 0,
    "answering": lambda fed: fed.count(1) > 2,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_leaves_frees_its_place(tmp_path, stream, moment):
    with serving(tmp_path, max_tokens=2000) as running:
        fed = slow_down(running.engine)
        body = chat(documents=LONG, target_size=200, max_tokens=1500, stream=stream)
        leave(running, body, lambda: MOMENTS[moment](fed))
        until_free(running.service)
        assert fed.count(1) < 1000
        with running.client() as client:
            assert "finch_answer_seconds_count 0.0" in client.get("/metrics").text
        assert running.post(chat()).status_code == 200


def test_a_full_queue_refuses_with_a_time_to_come_back(tmp_path):
    with serving(tmp_path, max_requests=2, max_tokens=2000) as running:
        answers = []
        busy = [
            threading.Thread(target=lambda: answers.append(running.post(chat(max_tokens=400))))
            for _ in range(2)
        ]
        for thread in busy:
            thread.start()
        until(lambda: running.service.active == 2)
        refused = running.post(chat())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["type"] == "rate_limit_error"
        for thread in busy:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert running.post(chat()).status_code == 200


def is_full(connection):
    """Whether nothing more comes to a connection that nobody reads."""

    def unread():
        return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]

    before = unread()
    time.sleep(0.3)
    return unread() == before > 100_000


def test_a_reader_that_does_not_read_stops_nobody(tmp_path):
    class Talking(Saying):
        async def astream(self, request, *, progress=None):
            if request.sampling["max_tokens"] > 100:
                for _ in range(500):
                    yield AnswerPiece(text="word " * 1000)
            async for piece in super().astream(request, progress=progress):
                yield piece

    with serving(tmp_path, model=Talking("So it is.")) as running:
        content = json.dumps(chat(max_tokens=800, stream=True)).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(running.socket))
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % len(content)
                + content
            )
            until(lambda: is_full(connection), seconds=60)
            assert running.service.active == 1
            for _ in range(3):
                assert running.post(chat()).status_code == 200
        until_free(running.service)


def test_before_the_model_is_there_nothing_is_answered_and_that_is_said(tmp_path):
    with serving(tmp_path) as running, running.client() as client:
        running.service.problem = "the model is being loaded"
        for response in (
            client.get("/ready"),
            client.post(CHAT, json=chat()),
            client.post(CHAT, json=chat(stream=True)),
            client.post("/v1/responses", json={"model": "tiny", "input": "What?"}),
            client.post("/page/kept", json={"question": "What?", "documents": LONG}),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["error"]["code"] == "not_ready"
        assert client.get("/health").status_code == 200
        running.service.problem = None
        assert client.post(CHAT, json=chat()).status_code == 200


async def test_a_model_that_cannot_be_loaded_is_a_problem_that_is_said():
    class Missing(Saying):
        def count_tokens(self, text):
            raise ModelLoadError("there is no such folder")

    service = Service(Missing("x"), ServerSettings())
    await service.load()
    with pytest.raises(ApiError, match="cannot be loaded: there is no such folder"):
        service.check_ready()


def test_shutting_down_finishes_what_runs(tmp_path):
    with serving(tmp_path, max_tokens=2000) as running:
        answers = []
        body = chat(max_tokens=300, stream=True)
        thread = threading.Thread(target=lambda: answers.append(running.post(body)))
        thread.start()
        until(lambda: running.service.active == 1)
        running.server.should_exit = True
        thread.join(20)
    assert answers[0].status_code == 200
    assert answers[0].text.rstrip().endswith("[DONE]")


def test_what_a_model_cannot_do_is_not_in_the_log(tmp_path, caplog):
    class Broken:
        name = "tiny"

        def count_tokens(self, text):
            return 1

        def bytes_needed(self, request):
            return 0

        def free_bytes(self):
            return 1

        def close(self):
            pass

        async def astream(self, request, *, progress=None):
            raise ZeroDivisionError("secret words")
            yield

    with serving(tmp_path, model=Broken()) as running:
        response = running.post(chat())
        assert response.status_code == 500
        assert "secret words" not in response.text
        streamed = running.post(chat(stream=True))
        assert streamed.status_code == 500
