"""OpenAIServer against a server on loopback that answers, fails, dawdles and refuses."""

import asyncio
import copy
import json
import pickle
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finch_integrations import (
    ConfigurationError,
    Constraint,
    ContextTooLongError,
    Document,
    FinchError,
    InvalidInputError,
    OpenAIServer,
    ServerRefusedError,
    ServerUnavailableError,
)
from finch_integrations.pipeline.answer_options import AnswerOptions
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.server_replies import ServerAnswer, ServerErrors
from tests.peer import USAGE, Reply, serving

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

KEY = "sk-not-to-be-seen"
REQUEST = AskRequest(
    messages=(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the code? \u2028 \x85 “é”"},
    ),
    sampling={"max_tokens": 7, "temperature": 0.5, "stop": ("END",)},
)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("FINCH_API_KEY", raising=False)


def ask(peer, request=REQUEST, **options):
    return list(OpenAIServer(peer.url, "m", **options).stream(request))


async def collect(pieces):
    return [piece async for piece in pieces]


def test_the_answer_comes_in_pieces_with_the_servers_own_counts():
    with serving(Reply(finish="length")) as peer:
        pieces = ask(peer)
        later = asyncio.run(collect(OpenAIServer(peer.url, "m").astream(REQUEST)))
    for found in (pieces, later):
        assert [piece.text for piece in found] == ["The ", "code ", "is ", "7316.", ""]
        assert [piece.details for piece in found[:-1]] == [None] * 4
        details = found[-1].details
        assert details.text == "The code is 7316."
        assert details.finish_reason == "length"
        assert details.prompt_tokens == USAGE["prompt_tokens"]
        assert details.generation_tokens == USAGE["completion_tokens"]


def test_the_server_gets_messages_and_options_as_they_are_and_no_key_unless_there_is_one():
    with serving() as peer:
        ask(peer)
    (request,) = peer.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["body"] == {
        "model": "m",
        "messages": list(REQUEST.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["END"],
    }
    assert "authorization" not in request["headers"]


def test_options_without_a_value_are_left_to_the_server():
    with serving() as peer:
        ask(peer, replace(REQUEST, sampling={"seed": None, "temperature": 0.0, "max_tokens": 3}))
    body = peer.requests[0]["body"]
    assert "seed" not in body
    assert (body["temperature"], body["max_tokens"]) == (0.0, 3)


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    refusal = Reply(status=401, content={"error": {"message": f"Incorrect API key: {KEY}"}})
    with serving(Reply(), refusal) as peer:
        server = OpenAIServer(peer.url, "m", api_key_env="MY_KEY")
        list(server.stream(REQUEST))
        with pytest.raises(ServerRefusedError, match="MY_KEY") as caught:
            list(server.stream(REQUEST))
    assert peer.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"
    error = caught.value
    assert KEY not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    for shown in (repr(server), server.identity, str(vars(server)), pickle.dumps(server)):
        assert KEY not in str(shown)
    assert pickle.loads(pickle.dumps(server)) == server == copy.deepcopy(server)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_an_overloaded_server_is_asked_again(status):
    failure = Reply(status=status, content={"error": "busy"}, headers={"Retry-After": "0"})
    with serving(failure, failure, Reply()) as peer:
        assert ask(peer)[-1].details.text == "The code is 7316."
        assert len(peer.requests) == 3
    with serving(failure, failure, Reply()) as peer:
        assert asyncio.run(collect(OpenAIServer(peer.url, "m").astream(REQUEST)))
    with (
        serving(failure) as peer,
        pytest.raises((ServerUnavailableError, ServerRefusedError), match=rf"HTTP {status}.*busy"),
    ):
        ask(peer, max_retries=1)
    assert len(peer.requests) == 2


def test_retries_wait_as_long_as_the_server_asks_and_no_longer_than_a_minute():
    wait = Reply(status=429, content="", headers={"Retry-After": "0.4"})
    started = time.perf_counter()
    with serving(wait, Reply()) as peer:
        ask(peer)
    assert time.perf_counter() - started >= 0.4
    long = Reply(status=429, content="come back tomorrow", headers={"Retry-After": "86400"})
    with serving(long) as peer, pytest.raises(ServerUnavailableError, match="tomorrow"):
        ask(peer)
    assert len(peer.requests) == 1


def test_after_the_first_piece_nothing_is_asked_again():
    broken = Reply(finish=None, usage=None)
    with serving(broken) as peer:
        pieces = OpenAIServer(peer.url, "m").stream(REQUEST)
        assert next(pieces).text == "The "
        with pytest.raises(ServerUnavailableError, match="ended the answer in the middle"):
            list(pieces)
    assert len(peer.requests) == 1


def test_a_server_that_is_down_or_hangs_up_is_an_error_in_one_line():
    with serving() as peer:
        url = peer.url
    with pytest.raises(ServerUnavailableError, match=f"no server at {url}") as caught:
        list(OpenAIServer(url, "m", max_retries=0).stream(REQUEST))
    assert "\n" not in str(caught.value)
    with serving(Reply(hang_up=True), Reply()) as peer:
        assert ask(peer)[-1].details.text == "The code is 7316."
    with serving(Reply(hang_up=True)) as peer, pytest.raises(ServerUnavailableError, match="broke"):
        ask(peer, max_retries=0)


def test_a_slow_server_is_an_error_and_not_asked_again():
    with serving(Reply(pause=5)) as peer:
        with pytest.raises(ServerUnavailableError, match=r"nothing for 0\.3 seconds"):
            ask(peer, timeout=0.3)
        assert peer.left.wait(5)
        assert len(peer.requests) == 1
    with serving(Reply(silent=5)) as peer:
        with pytest.raises(ServerUnavailableError, match=r"nothing for 0\.3 seconds"):
            ask(peer, timeout=0.3)
        assert len(peer.requests) == 1, "asked again, it would begin once more"
    with serving(Reply(between=5)) as peer, pytest.raises(ServerUnavailableError, match="nothing"):
        asyncio.run(collect(OpenAIServer(peer.url, "m", timeout=0.3).astream(REQUEST)))


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too big"}}),
        (400, {"error": {"message": "This model's maximum context length is 4096 tokens."}}),
        (400, {"object": "error", "message": "the prompt exceeds the model's context length"}),
        (500, {"error": "prompt is larger than the context size"}),
    ],
)
def test_a_prompt_that_is_too_long_for_the_server_is_named_so(status, content):
    with (
        serving(Reply(status=status, content=content)) as peer,
        pytest.raises(ContextTooLongError, match="target_size"),
    ):
        ask(peer)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (Reply(status=404, content={"error": "model 'm' not found"}), ServerRefusedError, "'m'"),
        (Reply(status=403, content="<p>no</p>"), ServerRefusedError, "FINCH_API_KEY"),
        (Reply(status=422, content={"detail": [{"loc": ["a"]}]}), ServerRefusedError, "loc"),
        (Reply(status=302, content="", headers={"Location": "/"}), ServerRefusedError, "302"),
        (Reply(content={"choices": []}), ServerUnavailableError, "/v1"),
        (Reply(raw=b'data: {"error": {"message": "lost"}}\n\n'), ServerUnavailableError, "lost"),
        (Reply(raw=b"data: nonsense\n\n"), ServerUnavailableError, "nonsense"),
        (Reply(raw=b"data: 7\n\n"), ServerUnavailableError, "'7'"),
        (Reply(raw=b'data: {"choices": [1]}\n\n'), ServerUnavailableError, "choices"),
        (Reply(raw=b"data: [DONE]\n\n"), ServerUnavailableError, "in the middle"),
        (Reply(finish="content_filter"), ServerUnavailableError, "content_filter"),
    ],
)
def test_every_other_failure_is_one_line_that_says_what(reply, error, message):
    with serving(reply) as peer:
        with pytest.raises(error) as caught:
            ask(peer, max_retries=0)
        with pytest.raises(error):
            asyncio.run(collect(OpenAIServer(peer.url, "m", max_retries=0).astream(REQUEST)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_leaving_the_stream_closes_the_connection():
    with serving(Reply(pieces=("a",) * 100, between=0.2)) as peer:
        pieces = OpenAIServer(peer.url, "m").stream(REQUEST)
        assert next(pieces).text == "a"
        pieces.close()
        assert peer.left.wait(5)


@pytest.mark.parametrize("pause", [0, 30])
def test_cancelling_the_task_closes_the_connection_also_while_the_server_is_still_reading(pause):
    async def leave(peer):
        server = OpenAIServer(peer.url, "m")
        task = asyncio.create_task(collect(server.astream(REQUEST)))
        while not peer.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(Reply(pieces=("a",) * 100, pause=pause, between=0.2)) as peer:
        asyncio.run(leave(peer))
        assert peer.left.wait(5)


def test_text_with_unusual_line_ends_and_reasoning_arrive_apart():
    pieces = ({"reasoning_content": "Hm."}, "a\u2028b", "c\x85d", "“é”\n", {"content": None})
    with serving(Reply(pieces=pieces, usage=None)) as peer:
        answer = ask(peer)
    details = answer[-1].details
    assert details.text == "a\u2028bc\x85d“é”\n"
    assert answer[0].reasoning == details.reasoning == "Hm."
    assert details.generation_tokens == 3  # without the server's count: the pieces


def test_a_request_with_documents_or_unknown_options_is_refused_before_the_server_is_asked():
    server = OpenAIServer("http://127.0.0.1:9", "m")
    with pytest.raises(InvalidInputError, match="Choose passages"):
        next(server.stream(AskRequest(messages=(), documents=(Document("a"),))))
    for answer, reason in (
        (AnswerOptions(constraint=Constraint.regex("a")), "follow a regular expression, only"),
        (AnswerOptions(reasoning=False), "chat_template_kwargs"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            next(server.stream(AskRequest(messages=(), answer=answer)))
    with pytest.raises(ConfigurationError, match="cannot be asked for beams"):
        next(server.stream(AskRequest(messages=(), sampling={"beams": 2})))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:8080", "m"), "http://localhost"),
        (("ftp://a/v1", "m"), "http://localhost"),
        ((7, "m"), "http://localhost"),
        (("http://", "m"), "http://localhost"),
        (("ftp://me:secret@host/v1", "m"), "not shown"),
        (("me:secret@host:8080", "m"), "not shown"),
        (("host:8080/v1?key=secret", "m"), "not shown"),
        (("http://me:secret@host/v1", "m"), "no password"),
        (("http://host/v1?key=secret", "m"), "no password"),
        (("http://host", ""), "model must be"),
        (("http://host", None), "model must be"),
    ],
)
def test_unusable_addresses_and_names_are_refused_without_showing_a_password(arguments, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        OpenAIServer(*arguments)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "1"}, {"max_retries": -1}])
def test_unusable_numbers_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        OpenAIServer("http://host", "m", **options)


def test_an_address_without_a_path_means_v1():
    assert OpenAIServer("http://host:1234", "m").base_url == "http://host:1234/v1"
    assert OpenAIServer("http://host:1234/", "m").base_url == "http://host:1234/v1"
    assert OpenAIServer("https://host/api/v1/", "m").base_url == "https://host/api/v1"


def test_tool_calls_of_the_history_are_written_as_the_api_takes_them():
    call = {"id": "c1", "name": "search", "arguments": {"q": "é"}}
    history = (
        {"role": "assistant", "content": "", "tool_calls": (call,)},
        {"role": "tool", "content": "found", "tool_call_id": "c1", "name": "search"},
    )
    with serving() as peer:
        ask(peer, AskRequest(messages=history))
    sent = peer.requests[0]["body"]["messages"]
    function = {"name": "search", "arguments": '{"q": "é"}'}
    assert sent[0]["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert sent[1] == history[1]


ARGUMENTS = {"arguments": {"q": "é"}}
SEARCH = {"name": "search", "description": "", "parameters": {"type": "object"}}


def call_part(index, **function):
    return {"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]}


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_tools_go_to_the_server_and_its_calls_come_back_whole(way):
    pieces = (
        "Let me see.",
        call_part(0, name="search", arguments='{"q": '),
        {"tool_calls": [{"index": 0, "function": {"arguments": '"é"}'}}]},
        call_part(1, name="search", arguments='{"q": '),  # cut
        call_part(2, name="other", arguments="{}"),
    )
    request = replace(REQUEST, answer=AnswerOptions(tools=(SEARCH,), tool_choice="any"))
    with serving(Reply(pieces=pieces, finish="tool_calls")) as peer:
        server = OpenAIServer(peer.url, "m")
        if way == "stream":
            found = list(server.stream(request))
        else:
            found = asyncio.run(collect(server.astream(request)))
    body = peer.requests[0]["body"]
    assert body["tools"] == [{"type": "function", "function": SEARCH}]
    assert body["tool_choice"] == "required"
    details = found[-1].details
    assert found[-1].calls == details.calls == ({"id": "c0", "name": "search"} | ARGUMENTS,)
    assert [(call.name, call.text) for call in details.invalid_calls] == [
        ("search", '{"q": '),
        ("other", "{}"),
    ]
    assert (details.text, details.finish_reason) == ("Let me see.", "stop")


def test_calls_without_numbers_and_with_arguments_that_are_no_text_are_read():
    parts = [{"function": {"name": "search", "arguments": {"q": "é"}}} for _ in range(2)]
    request = replace(REQUEST, answer=AnswerOptions(tools=(SEARCH,)))
    with serving(Reply(pieces=({"tool_calls": parts},), finish="stop")) as peer:
        calls = ask(peer, request)[-1].calls
    assert [call["arguments"] for call in calls] == [{"q": "é"}] * 2
    assert len({call["id"] for call in calls}) == 2


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (AnswerOptions(), {}),
        (
            AnswerOptions(tools=(SEARCH,), tool_choice="search", parallel_calls=False),
            {
                "tool_choice": {"type": "function", "function": {"name": "search"}},
                "parallel_tool_calls": False,
            },
        ),
        (AnswerOptions(tools=(SEARCH,)), {"tool_choice": "auto"}),
        (
            AnswerOptions(constraint=Constraint.json_schema({"type": "object"})),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_choices_and_schemas_go_to_the_server(answer, sent):
    with serving() as peer:
        ask(peer, replace(REQUEST, answer=answer))
    body = peer.requests[0]["body"]
    names = {"tool_choice", "parallel_tool_calls", "response_format"}
    assert {name: body[name] for name in names & body.keys()} == sent


def test_chat_template_variables_go_to_the_server():
    with serving() as peer:
        ask(peer, AskRequest(messages=(), chat_template_kwargs={"enable_thinking": False}))
    body = peer.requests[0]["body"]
    assert json.loads(json.dumps(body))["chat_template_kwargs"] == {"enable_thinking": False}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def some(**fields):
    """An object with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields) | ANYTHING


CALL = some(
    index=ANYTHING, id=ANYTHING, function=some(name=ANYTHING, arguments=ANYTHING | st.just("{}"))
)
DELTA = some(content=ANYTHING, reasoning=ANYTHING, tool_calls=st.lists(CALL, max_size=3))
EVENT = some(
    choices=st.lists(some(delta=DELTA, finish_reason=ANYTHING | st.just("stop")), max_size=2),
    usage=some(prompt_tokens=ANYTHING, completion_tokens=ANYTHING),
    error=ANYTHING,
)
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


@settings(max_examples=300)
@given(st.lists(EVENT, max_size=3))
def test_whatever_a_server_streams_is_an_answer_or_an_error_of_this_package(events):
    answer = ServerAnswer(ServerErrors("http://host/v1", "m", 1.0, "FINCH_API_KEY", ""), ["a"])
    with suppress(FinchError):
        for event in [*events, END]:
            answer.read(json.dumps(event))
        details = answer.last().details
        assert isinstance(details.text, str)
        assert isinstance(details.prompt_tokens + details.generation_tokens, int)
        assert all(isinstance(call.id, str) for call in details.calls)


def test_an_event_that_is_nested_without_end_is_an_error():
    answer = ServerAnswer(ServerErrors("http://host/v1", "m", 1.0, "FINCH_API_KEY", ""))
    with pytest.raises(ServerUnavailableError, match="its stream has"):
        answer.read("[" * 100_000)
