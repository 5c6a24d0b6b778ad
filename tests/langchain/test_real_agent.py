"""An agent over the example handbook: the embedded model, constrained, calls and then answers."""

import asyncio
from pathlib import Path
from typing import Annotated

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import Field

from finch_integrations.langchain import ChatFinch, FinchRetriever
from finch_integrations.reading import read_documents

pytestmark = [pytest.mark.model, pytest.mark.slow]

HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"
QUESTION = HumanMessage("What is the door code of the chemical store?")


@wrap_model_call
async def first_a_call(request, handler):
    """Require a call until there is a result, as docs/tools.md shows it."""
    if any(isinstance(message, ToolMessage) for message in request.messages):
        return await handler(request.override(tools=[]))
    return await handler(request.override(tool_choice="any"))


@pytest.fixture
def agent(embedded_engine):
    texts = [Document(d.text) for d in read_documents([HANDBOOK]).documents]
    retriever = FinchRetriever.from_documents(texts, k=8)

    @tool(response_format="content_and_artifact")
    def search_handbook(query: Annotated[str, Field(max_length=60)]):
        """Search the station handbook."""
        found = retriever.invoke(query)
        return "\n\n".join(document.page_content for document in found), found

    model = ChatFinch(
        engine=embedded_engine, target_size=300, max_tokens=150, temperature=0.3, seed=1
    )
    return create_agent(model, tools=[search_handbook], middleware=[first_a_call])


async def test_it_calls_the_retriever_and_answers_from_what_was_compressed(agent):
    messages = (await agent.ainvoke({"messages": [QUESTION]}))["messages"]
    _, call, result, answer = messages
    assert call.tool_calls[0]["name"] == "search_handbook"
    assert len(call.tool_calls[0]["args"]["query"]) <= 60
    assert isinstance(result, ToolMessage)
    assert answer.text.strip()
    assert not answer.tool_calls
    finch = answer.response_metadata["finch"]
    assert finch["documents_from"] == "artifact"
    assert finch["kept_tokens"] == 300 < finch["document_tokens"]


async def test_nothing_hangs_when_it_is_cancelled_in_a_call(agent, embedded_engine):
    running = asyncio.create_task(agent.ainvoke({"messages": [QUESTION]}))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    model = ChatFinch(engine=embedded_engine, max_tokens=2)
    assert await asyncio.wait_for(model.ainvoke("Hello"), timeout=60)
