"""Real clients, as their users call them."""

import asyncio
import json
import shutil
import subprocess

import httpx
import openai
import pytest

from tests.tiny import text_of

DOCUMENTS = [text_of(150, seed=1), text_of(90, seed=2)]
MESSAGES = [{"role": "user", "content": "What is it?"}]
EXTRA = {"documents": DOCUMENTS, "target_size": 60}


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
        create(client, n=9)
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


def test_answers_can_be_sent_back_in_all_the_ways_of_clients(server, client):
    """As objects, dumped with all that is null in them, with thoughts, and as streams join them."""
    message = create(client).choices[0].message
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "x"}]}
    for turns in (
        [message],
        [message.model_dump()],
        [{**message.model_dump(), "reasoning_content": "Hm."}],
        [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}, result],
        [{"role": "assistant", "content": "", "tool_calls": [call], "audio": None}, result],
    ):
        messages = [*MESSAGES, *turns, *MESSAGES]
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=4)
        assert answer.choices[0].finish_reason in ("length", "stop")


def test_langchains_openai_client_answers_whole_streamed_and_batched(server, client):
    from langchain_openai import ChatOpenAI

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))) as connection:
        llm = ChatOpenAI(
            base_url="http://localhost/v1",
            api_key="none",
            model="tiny",
            max_completion_tokens=12,
            http_client=connection,
            extra_body=EXTRA,
            stream_usage=True,
        )
        expected = create(client).choices[0].message.content
        whole = llm.invoke("What is it?")
        assert whole.content == expected
        assert whole.usage_metadata["output_tokens"] == 12
        assert "".join(chunk.content for chunk in llm.stream("What is it?")) == expected
        assert [answer.content for answer in llm.batch(["What is it?"] * 3)] == [expected] * 3


def test_langchains_client_of_responses_is_answered(server):
    from langchain_openai import ChatOpenAI

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))) as connection:
        llm = ChatOpenAI(
            base_url="http://localhost/v1",
            api_key="none",
            model="tiny",
            http_client=connection,
            use_responses_api=True,
            extra_body={**EXTRA, "max_output_tokens": 12},
        )
        whole = llm.invoke("What is it?")
        streamed = "".join(chunk.text for chunk in llm.stream("What is it?"))
        assert whole.text == streamed != ""


def test_llamaindexs_openai_client_answers_chats_and_prompts(server, client):
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))) as connection:
        llm = OpenAILike(
            model="tiny",
            api_base="http://localhost/v1",
            api_key="none",
            is_chat_model=True,
            max_tokens=12,
            temperature=0.0,  # theirs is 0.1
            http_client=connection,
            additional_kwargs={"extra_body": EXTRA},
        )
        expected = create(client).choices[0].message.content
        question = [ChatMessage(role="user", content="What is it?")]
        assert llm.chat(question).message.content == expected
        assert [*llm.stream_chat(question)][-1].message.content == expected
        assert llm.complete("What is it?").text == expected
        prompts = llm.model_copy(update={"is_chat_model": False})
        assert prompts.complete("What is it?").text == expected


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_answers_as_the_documentation_shows(server):
    def curl(path, body):
        command = ["curl", "-sS", "-N", "--unix-socket", str(server.socket)]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = subprocess.run(
            [*command, f"http://localhost{path}"], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, **EXTRA}
    text = json.loads(curl("/v1/chat/completions", body))["choices"][0]["message"]["content"]
    assert text
    assert curl("/v1/chat/completions", {**body, "stream": True}).rstrip().endswith("[DONE]")
    assert json.loads(curl("/v1/chat/completions", {**body, "n": 0}))["error"]["param"] == "n"
