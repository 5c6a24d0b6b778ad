"""End to end against real servers: the embedded model chooses, theirs answers."""

import asyncio
import time
from pathlib import Path

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llama_index.core import SummaryIndex
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike

from finch_integrations import (
    ContextTooLongError,
    Document,
    FinchRAG,
    OpenAIServer,
    ServerRefusedError,
    ServerUnavailableError,
)
from finch_integrations.cli.app import app
from finch_integrations.engine.prompt import INSTRUCTION
from finch_integrations.langchain import ChatFinch, format_docs
from finch_integrations.llama_index import FinchLLM
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.rag import WholeSet
from tests.servers.conftest import KEY
from tests.servers.proxy import recording

pytestmark = [
    pytest.mark.server,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),
]

HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"
QUESTION = "What is the door code of the chemical store?"
BUDGET = {"target_size": 200}
SHORT = AskRequest(
    messages=({"role": "user", "content": "Name three colours."},),
    sampling={"max_tokens": 12, "temperature": 0.0},
)


@pytest.fixture(scope="module")
def documents():
    return [Document(p.read_text(), id=p.name) for p in sorted(HANDBOOK.glob("04*.md"))]


def test_answers_and_streams_come_with_a_proper_end(server):
    model = OpenAIServer(server, "smol")
    pieces = list(model.stream(SHORT))
    details = pieces[-1].details
    assert details.text == "".join(piece.text for piece in pieces)
    assert details.text.strip()
    assert details.finish_reason in ("stop", "length")
    assert 1 <= details.generation_tokens <= 12
    assert len(pieces) > 2


def test_what_the_server_receives_is_the_prompt_with_the_passages_of_extract(
    server, documents, embedded_engine
):
    with recording(server) as proxy:
        rag = FinchRAG(
            WholeSet(documents),
            OpenAIServer(proxy.url, "smol"),
            scorer=embedded_engine,
            compression=BUDGET,
            sampling={"max_tokens": 8, "temperature": 0.0},
        )
        answer = rag.answer(QUESTION)
    (body,) = proxy.received
    excerpts = embedded_engine.extract(documents, QUESTION, **BUDGET)
    assert answer.details.excerpts == excerpts
    content = body["messages"][-1]["content"]
    start, end = "<documents>\n", f"\n</documents>\n\n{INSTRUCTION} {QUESTION}"
    assert content.startswith(start)
    assert content.endswith(end)
    inside = content.removeprefix(start).removesuffix(end)
    for excerpt in excerpts:
        assert inside.count(excerpt.text) == 1
        inside = inside.replace(excerpt.text, "")
    tags = [f'<document id="{document.id}">' for document in documents]
    for tag in [*tags, "</document>", "[…]"]:
        inside = inside.replace(tag, "")
    assert not inside.strip()
    assert answer.details.prompt_tokens >= answer.details.compression.document_tokens


def test_a_langchain_model_of_the_server_is_wrapped_tools_included(server, embedded_engine):
    @tool
    def open_door(code: str) -> str:
        """Open a door."""
        return "open"

    text = (HANDBOOK / "04-laboratory.md").read_text()
    marked = format_docs([LangChainDocument(text)])
    with recording(server) as proxy:
        inner = ChatOpenAI(
            base_url=proxy.url,
            model="smol",
            api_key=KEY,
            max_tokens=48,
            max_retries=0,
            temperature=0,
        )
        chat = ChatFinch(llm=inner, scorer=embedded_engine, **BUDGET)
        answer = chat.invoke(f"{marked}\n\n{QUESTION}")
        streamed = "".join(chunk.text for chunk in chat.stream(f"{marked}\n\n{QUESTION}"))
        bound = chat.bind_tools([open_door], tool_choice="open_door")
        called = bound.invoke(f"{marked}\n\nOpen the chemical store with its door code.")
        plain = inner.bind_tools([open_door], tool_choice="open_door")
        plain.invoke(proxy.received[-1]["messages"][0]["content"])
    assert answer.text
    assert streamed
    facts = answer.response_metadata["finch"]
    assert facts["kept_tokens"] <= 200 < facts["document_tokens"]
    assert answer.usage_metadata is None or answer.usage_metadata["input_tokens"] < 700
    for body in proxy.received:
        assert len(body["messages"][0]["content"]) < len(marked) / 2
    assert proxy.received[-1]["tools"][0]["function"]["name"] == "open_door"
    # The server got what its own client sends; one as small as this may not end its call.
    assert proxy.received[-2] == proxy.received[-1]
    (call,) = called.tool_calls or called.invalid_tool_calls
    assert call["name"] == "open_door"


def test_a_llama_index_model_of_the_server_answers_a_query_engine_in_one_call(
    server, documents, embedded_engine
):
    with recording(server) as proxy:
        inner = OpenAILike(
            api_base=proxy.url,
            model="smol",
            api_key=KEY,
            is_chat_model=True,
            context_window=2048,
            max_tokens=8,
        )
        llm = FinchLLM(llm=inner, scorer=embedded_engine, **BUDGET)
        nodes = [TextNode(text=document.text) for document in documents]
        response = SummaryIndex(nodes=nodes).as_query_engine(llm=llm).query(QUESTION)
    assert str(response)
    assert len(proxy.received) == 1


def test_leaving_the_stream_is_seen_by_the_server(server):
    long = AskRequest(
        messages=({"role": "user", "content": "Count from one to a thousand in words."},),
        sampling={"max_tokens": 1500, "temperature": 1.0, "seed": 1},
    )

    async def leave(model):
        task = asyncio.create_task(anext(aiter(model.astream(long))))
        await task

    with recording(server) as proxy:
        model = OpenAIServer(proxy.url, "smol")
        pieces = model.stream(long)
        next(pieces)
        pieces.close()
        assert proxy.left.wait(20)
        # The server is free again at once: it does not go on for the 1,500 tokens.
        started = time.perf_counter()
        list(model.stream(SHORT))
        assert time.perf_counter() - started < 20


def test_a_wrong_key_is_refused_in_one_line_without_the_key(server, monkeypatch):
    monkeypatch.setenv("FINCH_API_KEY", "sk-wrong")
    with pytest.raises(ServerRefusedError, match="FINCH_API_KEY") as caught:
        list(OpenAIServer(server, "smol").stream(SHORT))
    assert "sk-wrong" not in str(caught.value)


def test_a_prompt_beyond_the_servers_window_is_an_error_that_says_so(server):
    request = AskRequest(messages=({"role": "user", "content": "word " * 4000},))
    with pytest.raises((ContextTooLongError, ServerUnavailableError), match=r"longer than"):
        list(OpenAIServer(server, "smol", max_retries=0).stream(request))


def test_the_command_line_asks_the_server(server):
    from typer.testing import CliRunner

    more = ["--base-url", server, "--model", "smol", "--target-size", "200", "--max-tokens", "8"]
    result = CliRunner().invoke(app, ["ask", QUESTION, str(HANDBOOK / "04-laboratory.md"), *more])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
