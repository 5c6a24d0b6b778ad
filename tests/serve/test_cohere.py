"""Cohere's own client, as its users call it."""

import json
from contextlib import contextmanager
from itertools import groupby

import cohere
import httpx
import jsonschema
import pytest
from cohere.core.api_error import ApiError

from finch_integrations.pipeline.shared_engine import SharedEngine
from tests import templates
from tests.scripted import scripted_engine
from tests.serve.conftest import serving
from tests.serve.test_chat import Saying
from tests.serve.test_tools import CALL, PARAMETERS, tool
from tests.tiny import text_of

PATH = "/v2/chat"
ASK = [{"role": "user", "content": "Which colour has the boat?"}]
DOCUMENTS = [
    {"id": "rules", "data": {"text": "The door code is 4711 until noon.", "title": "Rules"}},
    {"id": "menu", "data": {"snippet": "Soup is served at one o'clock sharp."}},
]
SAID = "Note: the door code is 4711 until noon, and soup is served at one o'clock sharp."


@contextmanager
def talking_to(running):
    """Cohere's client of a server."""
    transport = httpx.HTTPTransport(uds=str(running.socket))
    with httpx.Client(transport=transport) as http:
        yield cohere.ClientV2(api_key="none", base_url="http://localhost", httpx_client=http)


@contextmanager
def saying(folder, *texts, template=templates.HERMES):
    """Cohere's client of a server whose model wants to say these texts."""
    shared = SharedEngine(scripted_engine(*texts, chat_template=template))
    shared.name = "tiny"
    with serving(folder, model=shared, max_tokens=2000) as running, talking_to(running) as client:
        yield client


def chat(**changes):
    return {"model": "tiny", "messages": ASK, "max_tokens": 12, **changes}


def kinds(events):
    return [kind for kind, _ in groupby(event.type for event in events)]


def text_in(events):
    deltas = [event.delta.message.content for event in events if event.type == "content-delta"]
    return "".join(delta.text or "" for delta in deltas)


def test_an_answer_comes_whole_and_streamed_from_whole_documents(server):
    documents = [text_of(150, seed=1), {"id": "b", "data": {"text": text_of(90, seed=2)}}]
    extra = {"additional_body_parameters": {"target_size": 60}}
    asked = chat(documents=documents, request_options=extra)
    with talking_to(server) as client:
        whole = client.chat(**asked)
        events = list(client.chat_stream(**asked))
        plain = server.post({**chat(documents=documents), "target_size": 60}).json()
    (part,) = whole.message.content
    assert part.text == text_in(events) == plain["choices"][0]["message"]["content"]
    assert whole.finish_reason == "MAX_TOKENS"
    assert whole.usage.tokens.output_tokens == 12
    assert whole.usage.tokens.input_tokens == plain["usage"]["prompt_tokens"]
    assert whole.finch["kept_tokens"] == 60
    assert kinds(events) == [
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        "message-end",
    ]
    end = events[-1].delta
    assert (end.finish_reason, end.usage.tokens) == (whole.finish_reason, whole.usage.tokens)


def test_what_is_quoted_is_cited(tmp_path):
    with serving(tmp_path, model=Saying(SAID)) as running, talking_to(running) as client:
        whole = client.chat(**chat(documents=DOCUMENTS))
        first, second = whole.message.citations
        assert first.text == SAID[first.start : first.end] == "the door code is 4711 until noon"
        assert (first.type, first.content_index) == ("TEXT_CONTENT", 0)
        (source,) = first.sources
        assert (source.type, source.id) == ("document", "rules")
        assert source.document["snippet"] == "The door code is 4711 until noon"
        assert second.sources[0].id == "menu"
        events = list(client.chat_stream(**chat(documents=DOCUMENTS)))
        cited = [e.delta.message.citations for e in events if e.type == "citation-start"]
        assert cited == [first, second]
        assert kinds(events)[-2] == "citation-end"
        off = chat(documents=DOCUMENTS, citation_options={"mode": "OFF"})
        assert client.chat(**off).message.citations is None
        assert "citation-start" not in kinds(client.chat_stream(**off))


def test_a_tool_is_called_and_its_result_is_answered(tmp_path):
    with saying(tmp_path, f"Let me see.\n{CALL}", "It is red.") as client:
        first = client.chat(**chat(tools=[tool()], strict_tools=True, max_tokens=200))
        assert first.finish_reason == "TOOL_CALL"
        (call,) = first.message.tool_calls
        assert json.loads(call.function.arguments) == {"query": "boat"}
        result = {"type": "document", "document": {"id": "1", "data": {"colour": "red"}}}
        history = [
            *ASK,
            {"role": "assistant", "tool_calls": first.message.tool_calls, "tool_plan": "I search."},
            {"role": "tool", "tool_call_id": call.id, "content": [result]},
        ]
        second = client.chat(**chat(tools=[tool()], messages=history, max_tokens=200))
        assert (second.message.content[0].text, second.finish_reason) == ("It is red.", "COMPLETE")


def test_calls_stream_as_events(tmp_path):
    with saying(tmp_path, f"Let me see.\n{CALL}\n{CALL}") as client:
        events = list(client.chat_stream(**chat(tools=[tool()], max_tokens=300)))
    assert kinds(events) == [
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        *["tool-call-start", "tool-call-delta", "tool-call-end"] * 2,
        "message-end",
    ]
    starts = [event for event in events if event.type == "tool-call-start"]
    assert [event.index for event in starts] == [0, 1]
    called = [event.delta.message.tool_calls for event in starts]
    assert [call.function.name for call in called] == ["search", "search"]
    rest = [event.delta.message.tool_calls for event in events if event.type == "tool-call-delta"]
    assert all(json.loads(one.function.arguments) == {"query": "boat"} for one in rest)
    assert events[-1].delta.finish_reason == "TOOL_CALL"


def test_a_call_can_be_demanded_or_forbidden(tmp_path):
    with saying(tmp_path, "It is red.") as client:
        options = chat(tools=[tool()], max_tokens=200)
        demanded = client.chat(**options, tool_choice="REQUIRED")
        (call,) = demanded.message.tool_calls
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
        assert demanded.message.content is None
        forbidden = client.chat(**options, tool_choice="NONE")
        assert (forbidden.message.tool_calls, forbidden.message.content[0].text) == (
            None,
            "It is red.",
        )


def test_thoughts_have_a_part_of_their_own(tmp_path):
    with saying(tmp_path, "<think>\nHm.\n</think>\n\nRed.", template=templates.THINKING) as client:
        whole = client.chat(**chat(max_tokens=100)).message
        events = list(client.chat_stream(**chat(max_tokens=100)))
    assert [part.type for part in whole.content] == ["thinking", "text"]
    assert (whole.content[0].thinking, whole.content[1].text) == ("Hm.", "Red.")
    deltas = [event for event in events if event.type == "content-delta"]
    thoughts = [e.delta.message.content.thinking for e in deltas if e.index == 0]
    assert ("".join(thoughts), text_in(events)) == ("Hm.", "Red.")
    assert [e.index for e in events if e.type == "content-start"] == [0, 1]
    assert [e.index for e in events if e.type == "content-end"] == [0, 1]


def test_an_answer_follows_a_schema(tmp_path):
    schema = {
        "type": "object",
        "properties": {"length": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["length"],
        "additionalProperties": False,
    }
    with saying(tmp_path, "It is red.") as client:
        form = {"type": "json_object", "json_schema": schema}
        answer = client.chat(**chat(response_format=form, max_tokens=200))
        jsonschema.validate(json.loads(answer.message.content[0].text), schema)


def test_sampling_stops_and_likelihoods_go_where_they_go_elsewhere(server):
    with talking_to(server) as client:
        sampled = {"temperature": 0.9, "seed": 5, "frequency_penalty": 0.5, "presence_penalty": 0.2}
        whole = client.chat(**chat(k=40, p=0.9, logprobs=True, **sampled))
        same = server.post({**chat(top_k=40, top_p=0.9, logprobs=True), **sampled}).json()
        choice = same["choices"][0]
        assert whole.message.content[0].text == choice["message"]["content"]
        likely = [value for one in whole.logprobs for value in one.logprobs]
        assert likely == [one["logprob"] for one in choice["logprobs"]["content"]]
        events = list(client.chat_stream(**chat(k=40, p=0.9, logprobs=True, **sampled)))
        streamed = [e.logprobs for e in events if e.type == "content-delta"]
        assert [value for one in streamed for value in one.logprobs] == likely
        text = client.chat(**chat(max_tokens=40)).message.content[0].text
        stopped = client.chat(**chat(max_tokens=40, stop_sequences=[text[4:7]]))
        assert stopped.message.content[0].text == text[: text.index(text[4:7])]
        assert stopped.finish_reason == "COMPLETE"
        assert client.chat(**chat(k=0)).finish_reason


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (404, {"model": "command-a"}),
        (400, {"messages": []}),
        (400, {"messages": [{"role": "user", "content": ""}]}),
        (400, {"messages": [{"role": "chatbot", "content": "x"}]}),
        (400, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (400, {"documents": []}),
        (400, {"documents": [3]}),
        (400, {"documents": [{"id": "a", "data": {}}]}),
        (400, {"safety_mode": "STRICT"}),
        (400, {"safety_mode": "CONTEXTUAL"}),
        (400, {"thinking": {"type": "enabled"}}),
        (400, {"priority": 3}),
        (400, {"citation_options": {"mode": "SOME"}}),
        (400, {"response_format": {"type": "xml"}}),
        (400, {"response_format": {"type": "text", "json_schema": {"type": "object"}}}),
        (400, {"response_format": {"type": "json_object", "json_schema": {"type": 3}}}),
        (400, {"tool_choice": "REQUIRED"}),
        (400, {"tool_choice": "auto"}),
        (400, {"temperature": "hot"}),
        (400, {"k": -1}),
        (400, {"p": 3}),
        (400, {"seed": -1}),
        (400, {"max_tokens": 0}),
        (400, {"max_tokens": 10**9}),
        (400, {"stop_sequences": "x"}),
        (400, {"connectors": []}),
        (400, {"retrieval_top_k": 0}),
        (400, {"n": 2}),
        (400, {"target_size": 10**9, "compression_ratio": 0.5, "documents": ["x" * 50]}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_supported_is_refused_in_coheres_form(server, status, changes, stream):
    response = server.post(chat(stream=stream, **changes), path=PATH)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"message"}
    assert response.json()["message"].strip()
    assert server.service.active == 0


def test_bodies_keys_and_paths_are_refused_in_coheres_form(server, tmp_path):
    with server.client() as client:
        headers = {"Content-Type": "application/json"}
        for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
            response = client.post(PATH, content=body, headers=headers)
            assert (response.status_code, set(response.json())) == (400, {"message"})
        for response, status in (
            (client.post("/v2/embed", json={}), 404),
            (client.get(PATH), 405),
            (client.post(PATH, content=b"{}"), 415),
        ):
            assert (response.status_code, set(response.json())) == (status, {"message"})
    with serving(tmp_path, api_key="s3cret") as running, talking_to(running) as client:
        with pytest.raises(cohere.UnauthorizedError) as refused:
            client.chat(**chat())
        assert "Bearer" in refused.value.body["message"]


def test_coheres_client_says_what_is_wrong(server):
    with talking_to(server) as client:
        with pytest.raises(cohere.BadRequestError, match="safety_mode") as refused:
            client.chat(**chat(safety_mode="STRICT"))
        assert refused.value.body["message"].startswith("safety_mode: ")
        with pytest.raises(ApiError):
            list(client.chat_stream(**chat(model="command-a")))


def test_a_stream_that_fails_says_so_in_its_end(tmp_path):
    class Failing(Saying):
        async def astream(self, request, *, progress=None):
            async for piece in super().astream(request, progress=progress):
                yield type(piece)(text=piece.text)
            raise ZeroDivisionError("secret words")

    with serving(tmp_path, model=Failing("So it is.")) as running, talking_to(running) as client:
        *_, end = client.chat_stream(**chat())
        assert (end.type, end.delta.finish_reason) == ("message-end", "ERROR")
        assert end.delta.error
        assert "secret" not in end.delta.error
