"""More than a hundred bad requests, each with its status, in OpenAI's error format."""

import json
import socket

import pytest

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "What?"}


def chat(**changes):
    body = {"model": "tiny", "messages": [USER], "max_tokens": 4, **changes}
    return {name: value for name, value in body.items() if value is not ...}


BODIES = [
    b"",
    b"{",
    b"nonsense",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"\xff\xfe{}",
    b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}',
    b'{"model": "tiny" "messages": []}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"model": "tiny", "messages": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
    b'{"model": "tiny", "max_tokens": ' + b"9" * 5000 + b"}",
    b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"model": "tiny", "messages": [{"role": "user", "content": "What?"}], "temperature": NaN}',
    b'{"model": "tiny", "messages": [{"role": "user", "content": "What?"}], "top_p": Infinity}',
    b'{"model": "tiny", "messages": [{"role": "user", "content": "What?"}], "\\ud800": 1}',
    b"\x00" * 100,
]

FIELDS = [
    {"model": ...},
    {"model": None},
    {"model": 3},
    {"messages": ...},
    {"messages": None},
    {"messages": []},
    {"messages": {}},
    {"messages": "What?"},
    {"messages": [None]},
    {"messages": ["What?"]},
    {"messages": [{}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"content": "What?"}]},
    {"messages": [{"role": "robot", "content": "What?"}]},
    {"messages": [{"role": None, "content": "What?"}]},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [{"role": "user", "content": "   "}]},
    {"messages": [{"role": "user", "content": 3}]},
    {"messages": [{"role": "user", "content": {}}]},
    {"messages": [{"role": "user", "content": []}]},
    {"messages": [{"role": "user", "content": [{}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
    {"messages": [{**USER, "extra": 1}]},
    {"messages": [{"role": "user", "content": "a\x00b"}]},
    {"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": [{}]}, USER]},
    {
        "messages": [
            USER,
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "["}}
                ],
            },
            USER,
        ]
    },
    {"max_tokens": 0},
    {"max_tokens": -1},
    {"max_tokens": 201},
    {"max_tokens": 10**9},
    {"max_tokens": 1.5},
    {"max_tokens": "4"},
    {"max_tokens": True},
    {"max_tokens": [4]},
    {"max_tokens": 4, "max_completion_tokens": 4},
    {"max_tokens": ..., "max_completion_tokens": 201},
    {"max_tokens": ..., "max_completion_tokens": "4"},
    {"temperature": -1},
    {"temperature": "hot"},
    {"temperature": []},
    {"top_p": 0},
    {"top_p": 1.5},
    {"top_p": "x"},
    {"top_k": -1},
    {"top_k": 1.5},
    {"seed": -1},
    {"seed": "x"},
    {"stop": 3},
    {"stop": [3]},
    {"stop": [""]},
    {"stop": {"a": 1}},
    {"stream": "yes"},
    {"stream": 1},
    {"stream_options": 1},
    {"stream_options": {"include_usage": "yes"}},
    {"stream_options": {"other": True}},
    {"n": 9},
    {"n": 0},
    {"n": "2"},
    {"logprobs": 1},
    {"top_logprobs": 3},
    {"logprobs": False, "top_logprobs": 3},
    {"logprobs": True, "top_logprobs": 21},
    {"logprobs": True, "top_logprobs": True},
    {"logit_bias": {"3": 100}},
    {"frequency_penalty": 3},
    {"frequency_penalty": "x"},
    {"presence_penalty": "x"},
    {"response_format": {"type": "other"}},
    {"response_format": "json"},
    {"tools": "f"},
    {"tools": [{"type": "other"}]},
    {"tool_choice": "sometimes"},
    {"store": True},
    {"modalities": ["audio"]},
    {"audio": {"voice": "x"}},
    {"prediction": {"type": "content", "content": "x"}},
    {"web_search_options": {}},
    {"functions": [{"name": "f"}]},
    {"unknown": 1},
    {"documents": []},
    {"documents": "text"},
    {"documents": {"text": "x"}},
    {"documents": [""]},
    {"documents": ["  "]},
    {"documents": [3]},
    {"documents": [None]},
    {"documents": [["x"]]},
    {"documents": [{}]},
    {"documents": [{"title": "x"}]},
    {"documents": [{"text": None}]},
    {"documents": [{"text": 3}]},
    {"documents": [{"text": "x", "content": "y"}]},
    {"documents": [{"text": "x", "id": 3}]},
    {"documents": [{"text": "x", "id": ""}]},
    {"documents": [{"text": "x", "title": 3}]},
    {"documents": [{"text": "x", "metadata": "y"}]},
    {"documents": [{"text": "a\x00b"}]},
    {"documents": [{"id": "x", "data": None}]},
    {"documents": [{"id": "x", "data": {}}]},
    {"documents": [{"id": "x", "data": "y", "more": 1}]},
    {"documents": ["x"] * 51},
    {"documents": ["x"] * 10_000},
    {"documents": ["x"], "messages": [{"role": "assistant", "content": "y"}]},
    {"documents": ["x" * 50], "target_size": 0},
    {"documents": ["x" * 50], "target_size": -5},
    {"documents": ["x" * 50], "target_size": "5"},
    {"documents": ["x" * 5000], "target_size": 4000},
    {"documents": ["x" * 50], "target_size": 5, "compression_ratio": 0.5},
    {"documents": ["x" * 50], "compression_ratio": 1},
    {"documents": ["x" * 50], "compression_ratio": "x"},
    {"documents": ["x" * 50], "method": "magic"},
    {"documents": ["x" * 50], "method": 3},
    {"documents": ["x" * 50], "read_size": -1},
    {"documents": ["x" * 50], "read_size": 3, "method": "contrast"},
    {"documents": ["x" * 50], "chunk_length": 1},
    {"documents": ["x" * 50], "max_kv_bytes": 1},
    {"context_detection": "maybe"},
    {"strict": True},
    {"strict": "x"},
    {"retrieval_top_k": 0},
    {"retrieval_top_k": 10_000},
    {"citations": "some"},
    {"instruction": 3},
    {"instruction": "a\x00b", "documents": ["x" * 50]},
    {"chat_template_kwargs": {"messages": []}},
    {"messages": [{"role": "user", "content": "x" * 5000}]},
]


def check_error(response, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].strip()
    assert error["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    assert "Traceback" not in response.text


@pytest.fixture(autouse=True)
def still_answers(server):
    yield
    assert server.service.active == 0


def test_the_list_is_long_enough():
    assert len(BODIES) + len(FIELDS) >= 140


def test_bodies_that_are_no_request_are_refused(server):
    with server.client() as client:
        for body in BODIES:
            headers = {"Content-Type": "application/json"}
            check_error(client.post(CHAT, content=body, headers=headers))


@pytest.mark.parametrize("start", range(0, len(FIELDS), 20))
def test_fields_with_wrong_values_are_refused_by_name(server, start):
    with server.client() as client:
        for changes in FIELDS[start : start + 20]:
            body = json.dumps(chat(**changes)).encode()
            headers = {"Content-Type": "application/json"}
            check_error(client.post(CHAT, content=body, headers=headers))


def test_a_stream_that_cannot_start_is_an_error_with_its_status(server):
    body = chat(documents=["x" * 5000], target_size=4000, stream=True)
    response = server.post(body)
    check_error(response)
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_errors_name_the_field(server):
    error = server.post(chat(temperature="hot")).json()["error"]
    assert (error["param"], error["code"]) == ("temperature", "invalid_value")
    error = server.post(chat(colour="red")).json()["error"]
    assert (error["param"], error["code"]) == ("colour", "unknown_parameter")
    parts = [{"type": "text", "text": "x", "cache_control": {}}]
    error = server.post(chat(messages=[{"role": "user", "content": parts}])).json()["error"]
    assert (error["param"], error["code"]) == (
        "messages.0.content.0.cache_control",
        "unknown_parameter",
    )
    parts = [{"type": "image_url", "image_url": {"url": "x"}}]
    error = server.post(chat(messages=[{"role": "user", "content": parts}])).json()["error"]
    assert error["param"] == "messages.0.content.0.type"
    check_error(server.post(chat(model="gpt-4")), 404)


def test_errors_do_not_repeat_all_that_was_sent(server):
    long = "x" * 100_000
    for body, status, said in (
        (chat(model=long), 404, "tiny"),
        (chat(**{long: 1}), 400, "is not known"),
        (chat(documents=["x"], method=long), 400, "method"),
        (chat(documents=["x"], instruction=long + "\0"), 400, "NUL"),
        (chat(messages=[{"role": long, "content": "x"}]), 400, "role"),
    ):
        response = server.post(body)
        check_error(response, status)
        assert len(response.text) < 6000
        assert said in response.json()["error"]["message"]


def test_other_paths_methods_and_kinds_have_their_status(server):
    with server.client() as client:
        check_error(client.get("/v1/nothing"), 404)
        check_error(client.get("/../../etc/passwd"), 404)
        check_error(client.get(CHAT), 405)
        check_error(client.delete(CHAT), 405)
        check_error(client.post("/health", json={}), 405)
        check_error(client.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
        check_error(client.post(CHAT, data={"a": "b"}), 415)
        check_error(client.post(CHAT, content=b"{}"), 415)
        check_error(client.post(CHAT, json=chat(), headers={"Host": "evil.example"}), 421)
        check_error(client.get("/v1/models", headers={"Host": "127.0.0.1.evil.example"}), 421)


def raw(server, request, wait=5):
    """What the server says to bytes, until it closes or falls silent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(wait)
        connection.connect(str(server.socket))
        connection.sendall(request)
        reply = b""
        try:
            while part := connection.recv(65536):
                reply += part
                if b"\r\n\r\n" in reply and b'"error"' in reply:
                    break
        except TimeoutError:
            pass
        return reply


RAW = [
    (b"NONSENSE\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\x00\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nBad Header: 1\r\n\r\n", b"400"),
    (b"GET /he\r\nalth HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n" % CHAT.encode(), b"400"),
    (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n" % CHAT.encode(), b"400"),
    (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999\r\n\r\n" % CHAT.encode(),
        b"413",
    ),
    (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" % CHAT.encode(),
        b"400",
    ),
]


@pytest.mark.parametrize("number", range(len(RAW)))
def test_bytes_that_are_no_http_are_refused(server, number):
    request, status = RAW[number]
    reply = raw(server, request)
    assert reply.startswith(b"HTTP/1.1 " + status), reply[:200]
