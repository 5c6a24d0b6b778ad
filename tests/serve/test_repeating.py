"""Requests whose process is killed: sent again, or ended as the protocol ends them."""

import asyncio
import contextlib
import json
from functools import partial

import httpx
import openai
import pytest

from finch_integrations.serve.repeating import Repeating, middlewares
from tests.serve.conftest import serving, until_free
from tests.tiny import text_of

CHAT = "/v1/chat/completions"
LONG = [text_of(1200, seed=5)]
FOR_EVER = 10**9


def chat(**changes):
    messages = [{"role": "user", "content": "What is it?"}]
    body = {"model": "tiny", "messages": messages, "documents": LONG, "target_size": 60}
    return {**body, "max_tokens": 8, **changes}


class Killed(Exception):
    pass


class Proxy:
    """As Ray's: its application ends without a complete response when a process is killed.

    The processes in turn live for so many messages of their responses; later ones for ever.
    """

    def __init__(self, app, *lives):
        self.app, self.lives, self.asked = app, list(lives), 0
        self.when_killed = lambda: None

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.asked += 1
        scope["headers"].append((b"x-request-id", b"1"))
        left = self.lives.pop(0) if self.lives else FOR_EVER

        async def sending(message):
            nonlocal left
            if not left:
                self.when_killed()
                raise Killed
            left -= 1
            await send(message)

        with contextlib.suppress(Killed):
            await self.app(scope, receive, sending)


def killed(*lives, **options):
    """Makes an application with processes that are killed, and remembers the proxy."""

    def around(app):
        around.proxy = Proxy(app, *lives)
        return Repeating(around.proxy, **options)

    return around


def text_of_stream(response):
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    return "".join(delta.get("content", "") for delta in deltas)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("alone")) as running:
        return running.post(chat()).json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("lives", [(0,), (1,), (0, 1, 0, 1)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_sent_again_until_it_is_answered(tmp_path, alone, stream, lives):
    around = killed(*lives)
    with serving(tmp_path, around=around) as running:
        response = running.post(chat(stream=stream))
        assert response.status_code == 200
        whole = text_of_stream(response) if stream else response.json()["choices"][0]
        assert (whole if stream else whole["message"]["content"]) == alone
        assert around.proxy.asked == len(lives) + 1
        until_free(running.service)


def test_a_stream_that_only_said_how_far_the_reading_is_begins_again(tmp_path, alone):
    with serving(tmp_path, around=killed(2, 2)) as running:
        response = running.post(chat(stream=True))
        assert response.text.startswith(": read")
        assert text_of_stream(response) == alone


def test_where_all_are_killed_that_is_said(tmp_path):
    around = killed(0, 1, 0, 0, 1)
    with serving(tmp_path, around=around) as running:
        response = running.post(chat())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "front_lost")
        assert int(response.headers["retry-after"]) > 0
        assert around.proxy.asked == 5
        assert running.post(chat()).status_code == 200


def test_openais_client_has_an_error_instead_of_half_an_answer(tmp_path):
    with serving(tmp_path, around=killed(8, 8)) as running, running.openai() as client:
        texts = []
        body = chat(stream=True)
        extra = {name: body.pop(name) for name in ("documents", "target_size")}
        chunks = client.chat.completions.create(**body, extra_body=extra)
        with pytest.raises(openai.APIError, match="the process that answered is gone"):
            texts.extend(chunk.choices[0].delta.content for chunk in chunks)
        assert any(texts)
        kinds, errors = [], []
        for event in client.responses.create(
            model="tiny", input="What is it?", stream=True, extra_body=extra
        ):
            kinds.append(event.type)
            if event.type == "error":
                errors.append(event)
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "error"
        assert (errors[0].code, errors[0].sequence_number) == ("front_lost", len(kinds) - 1)


def test_a_stream_is_not_begun_again_by_one_that_refuses_it(tmp_path):
    around = killed(2)
    with serving(tmp_path, around=around) as running:

        def not_ready():
            running.service.problem = "the model is being loaded"

        around.proxy.when_killed = not_ready
        response = running.post(chat(stream=True))
    assert response.status_code == 200
    *read, error, end = response.text.split("\n\n")
    assert all(comment.startswith(": read") for comment in read)
    assert (json.loads(error[6:])["error"]["code"], end) == ("front_lost", "")


def test_what_is_too_large_to_keep_is_not_repeated(tmp_path):
    around = killed(0, room=100)
    with serving(tmp_path, around=around) as running:
        response = running.post(chat())
        assert (response.status_code, around.proxy.asked) == (503, 1)
        # What was kept is forgotten once it was answered.
        small = {"model": "tiny", "input": "x" * 40}
        for number in range(1, 4):
            around.proxy.lives = [0]
            assert running.post(small, path="/v1/embeddings").status_code == 404
            assert around.proxy.asked == 1 + 2 * number


def test_what_may_change_something_elsewhere_is_asked_once(tmp_path):
    async def other(scope, receive, send):
        """Another application of the cluster, whose process is killed."""
        other.asked.append((scope["method"], scope["path"]))

    other.asked = []
    around = partial(_beside, Repeating(other))
    with serving(tmp_path, around=around) as running, running.client() as client:
        assert client.post("/pay", json={}).status_code == 500
        assert other.asked == [("POST", "/pay")]
        assert client.get("/state").status_code == 503
        assert len(other.asked) == 6


def test_a_client_that_left_is_not_answered_again(tmp_path):
    around = killed()
    with serving(tmp_path, around=around) as running:
        with pytest.raises(httpx.ReadTimeout), running.client() as client:
            client.post(CHAT, json=chat(max_tokens=900), timeout=0.2)
        until_free(running.service)
    assert around.proxy.asked == 1


def test_rays_proxy_gets_it_by_its_name():
    (made,) = middlewares()
    assert made.cls is Repeating


def _beside(other, app):
    async def both(scope, receive, send):
        known = scope["type"] != "http" or scope["path"].startswith("/v1")
        await (app if known else other)(scope, receive, send)

    return both


def test_what_ends_because_the_client_left_is_not_sent_again():
    asked = []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        assert (await receive())["type"] == "http.disconnect"

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    asyncio.run(Repeating(app)(scope, receive, send))
    assert asked == [CHAT]
