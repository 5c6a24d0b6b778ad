"""Real clients, as their users call them."""

import asyncio

import httpx
import openai
import pytest

from tests.tiny import text_of

DOCUMENTS = [text_of(150, seed=1), text_of(90, seed=2)]
MESSAGES = [{"role": "user", "content": "What is it?"}]
EXTRA = {"documents": DOCUMENTS, "target_size": 60}


@pytest.fixture
def client(server):
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    ) as client:
        yield client


def create(client, **options):
    return client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, extra_body=EXTRA, **options
    )


def test_openai_answers_whole_and_streamed(client):
    whole = create(client)
    assert len(whole.choices[0].message.content) > 0
    assert whole.usage.prompt_tokens_details.cached_tokens >= 0
    assert whole.finch["kept_tokens"] == 60
    chunks = list(create(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 12


def test_openai_gets_typed_errors(client):
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, n=2)
    assert caught.value.param == "n"


def test_openai_lists_models_and_completes(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    answer = client.completions.create(model="tiny", prompt="What is it?", max_tokens=5)
    assert answer.choices[0].finish_reason in ("length", "stop")


async def test_openai_asks_many_at_once(server, client):
    transport = httpx.AsyncHTTPTransport(uds=str(server.socket))
    expected = create(client).choices[0].message.content
    async with openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="none",
        http_client=httpx.AsyncClient(transport=transport),
    ) as many:
        answers = await asyncio.gather(*(create(many) for _ in range(8)))
        streams = await asyncio.gather(*(create(many, stream=True) for _ in range(4)))
        texts = [
            "".join([c.choices[0].delta.content or "" async for c in stream]) for stream in streams
        ]
    assert {answer.choices[0].message.content for answer in answers} == {expected}
    assert set(texts) == {expected}


def test_open_webuis_requests_are_answered(server):
    """As its documentation and source show them: a system text, parts, options that say nothing."""
    body = {
        "model": "tiny",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
        ],
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
        "temperature": 0,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "seed": 0,
        "stop": None,
    }
    response = server.post(body)
    assert response.status_code == 200, response.text
    assert response.text.rstrip().endswith("data: [DONE]")
