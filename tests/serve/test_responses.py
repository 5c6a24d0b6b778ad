"""`/v1/responses` and `/v1/embeddings`, as OpenAI's client calls them."""

import asyncio

import httpx
import numpy as np
import openai
import pytest

from tests.serve.conftest import serving
from tests.serve.test_chat import CITED, SAID, Saying
from tests.tiny import text_of

DOCUMENTS = [text_of(150, seed=1), text_of(90, seed=2)]
EXTRA = {"documents": DOCUMENTS, "target_size": 60}


def chat_text(server, messages):
    body = {"model": "tiny", "messages": messages, "max_tokens": 12, **EXTRA}
    return server.post(body).json()["choices"][0]["message"]["content"]


def test_a_response_is_the_chats_answer(server, client):
    response = client.responses.create(
        model="tiny",
        input="What is it?",
        instructions="Be brief.",
        max_output_tokens=12,
        extra_body=EXTRA,
    )
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
    ]
    assert response.output_text == chat_text(server, messages)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 12
    assert response.usage.total_tokens == response.usage.input_tokens + 12
    assert response.finch["kept_tokens"] == 60


def test_a_chat_goes_on_with_the_items_of_an_answer(server, client):
    first = client.responses.create(model="tiny", input="Hello", max_output_tokens=3)
    items = [{"role": "user", "content": "Hello"}, *first.output]
    question = {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}]}
    second = client.responses.create(
        model="tiny", input=[*items, question], max_output_tokens=12, extra_body=EXTRA
    )
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is it?"},
    ]
    assert second.output_text == chat_text(server, messages)


def test_a_streamed_response_has_every_event_once_and_in_order(client):
    options = {"model": "tiny", "input": "What is it?", "max_output_tokens": 12}
    whole = client.responses.create(**options, extra_body=EXTRA)
    events = list(client.responses.create(**options, extra_body=EXTRA, stream=True))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [kind for kind in kinds if kind != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in deltas) == whole.output_text
    assert events[-1].response.output_text == whole.output_text


async def test_responses_are_answered_at_the_same_time(server, client):
    options = {"model": "tiny", "input": "What is it?", "max_output_tokens": 12}
    alone = client.responses.create(**options, extra_body=EXTRA).output_text
    transport = httpx.AsyncHTTPTransport(uds=str(server.socket))
    async with openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="none",
        http_client=httpx.AsyncClient(transport=transport),
    ) as many:
        calls = (many.responses.create(**options, extra_body=EXTRA) for _ in range(6))
        assert {answer.output_text for answer in await asyncio.gather(*calls)} == {alone}


def test_responses_cite_and_mark_what_they_quote(tmp_path):
    with serving(tmp_path, model=Saying(SAID)) as running, running.openai() as client:
        options = {"model": "tiny", "input": "What?"}
        plain = client.responses.create(**options, extra_body={"documents": CITED})
        extra = {"documents": CITED, "citations": "inline"}
        events = list(client.responses.create(**options, extra_body=extra, stream=True))
        with client.responses.stream(**options, extra_body=extra) as stream:
            assert stream.get_final_response().output_text == events[-1].response.output_text
    cited = plain.output[0].content[0].annotations
    assert [one.url for one in cited] == ["https://example.org/a", "urn:document:doc-2"]
    assert SAID[cited[0].start_index : cited[0].end_index].lower().startswith("the door code")
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    whole = events[-1].response
    assert events[-1].type == "response.completed"
    assert "".join(texts) == whole.output_text
    assert whole.output_text.count(" [1]") == whole.output_text.count(" [2]") == 1
    added = [e.annotation for e in events if e.type == "response.output_text.annotation.added"]
    assert len(added) == len(whole.output[0].content[0].annotations) == 2


BAD = [
    {"input": ...},
    {"input": None},
    {"input": []},
    {"input": [{"role": "user"}]},
    {"input": [{"type": "item_reference", "id": "x"}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
    {"input": [{"type": "function_call_output", "call_id": "x"}]},
    {"instructions": 3},
    {"max_output_tokens": 0},
    {"max_output_tokens": 201},
    {"max_tokens": 3},
    {"previous_response_id": "resp_1"},
    {"conversation": "x"},
    {"background": True},
    {"store": True},
    {"truncation": "auto"},
    {"include": ["reasoning.encrypted_content"]},
    {"reasoning": {"effort": "high"}},
    {"text": {"verbosity": "low"}},
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"type": "function"}]},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "name": "f"}},
    {"text": {"format": {"type": "json_schema", "name": "x"}}},
    {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "person"}}}},
    {"input": [{"type": "reasoning", "encrypted_content": "x"}]},
    {"n": 2},
    {"top_logprobs": 2},
    {"unknown": 1},
]


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_what_a_response_cannot_have_is_refused(server, changes):
    body = {"model": "tiny", "input": "What?", "max_output_tokens": 4, **changes}
    body = {name: value for name, value in body.items() if value is not ...}
    response = server.post(body, path="/v1/responses")
    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


class Counting:
    """An encoder of two numbers."""

    name = "counting"

    def encode_documents(self, texts):
        return np.array([[len(text), text.count("a")] for text in texts], dtype=np.float32)


def test_embeddings_are_the_encoders(tmp_path):
    with serving(tmp_path, encoder=Counting()) as running, running.openai() as client:
        assert [model.id for model in client.models.list()] == ["tiny", "counting-encoder"]
        for form in ("float", openai.omit):  # the client's own choice is base64
            answer = client.embeddings.create(
                model="counting-encoder", input=["banana", "x"], encoding_format=form
            )
            assert [list(one.embedding) for one in answer.data] == [[6.0, 3.0], [1.0, 0.0]]
        one = client.embeddings.create(model="counting-encoder", input="aa")
        assert list(one.data[0].embedding) == [2.0, 2.0]
        for wrong in ([], "", ["a", " "], [[1, 2]], 3):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model="counting-encoder", input=wrong)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="tiny", input="x")


def test_without_an_encoder_there_are_no_embeddings(client):
    with pytest.raises(openai.NotFoundError, match="started without one"):
        client.embeddings.create(model="embedded-encoder", input="x")


def test_the_schema_describes_every_field_that_does_something(server):
    with server.client() as client:
        schema = client.get("/openapi.json").json()
    fields = schema["components"]["schemas"]["ChatRequest"]["properties"]
    for name in ("messages", "documents", "target_size", "citations", "stop", "max_tokens"):
        assert fields[name]["description"].strip()
    assert all(
        operation["summary"] and operation["description"]
        for path in schema["paths"].values()
        for operation in path.values()
    )
