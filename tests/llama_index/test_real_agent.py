"""The function-calling contract and agents on the embedded model's real weights."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document
from llama_index.core.selectors import PydanticMultiSelector, PydanticSingleSelector
from llama_index.core.tools import FunctionTool, ToolMetadata

from finch_integrations.llama_index import FinchLLM
from finch_integrations.reading import read_documents
from tests.llama_index.contract import collect
from tests.llama_index.test_tools import MODES, WAYS

# LlamaIndex's own: its agents' attributes include pydantic's old ones, and a step asks for this.
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"
Q = "What is the door code of the chemical store?"


class Door(BaseModel):
    """A door and its code."""

    where: Literal["store", "boat house"]
    code: Annotated[str, Field(pattern="^[0-9]{4}$")]


@pytest.fixture
def llm(embedded_engine):
    return FinchLLM(
        engine=embedded_engine, target_size=200, max_tokens=100, temperature=0.7, seed=1
    )


def handbook(query: str) -> str:
    """Search the station handbook."""
    return read_documents([HANDBOOK / "04-laboratory.md"]).documents[0].text[:3000]


class Query(BaseModel):
    query: str = Field(max_length=60)


SEARCH = FunctionTool.from_defaults(handbook, fn_schema=Query)


@pytest.mark.parametrize("way", WAYS)
async def test_a_required_call_is_made(llm, way):
    found = await collect(llm, f"{way}_with_tools", [SEARCH], user_msg=Q, tool_required=True)
    (call,) = llm.get_tool_calls_from_response(found[-1])
    assert call.tool_name == "handbook"
    assert len(call.tool_kwargs["query"]) <= 60


async def test_objects_are_predicted_whole_and_streamed(llm):
    prompt = PromptTemplate("The code of the store is 7316. {question}")
    assert isinstance(llm.structured_predict(Door, prompt, question=Q), Door)
    stream = await llm.astream_structured_predict(Door, prompt, question=Q)
    assert isinstance([one async for one in stream][-1], Door)
    assert isinstance(llm.as_structured_llm(Door).complete(Q).raw, Door)


@pytest.mark.parametrize("mode", MODES)
def test_output_classes_work_in_every_response_mode(llm, mode):
    index = SummaryIndex([Document(text=handbook("")[:1500])])
    engine = index.as_query_engine(llm=llm, response_mode=mode, output_cls=Door)
    response = engine.query(Q)
    if "accumulate" not in mode:  # these join texts
        assert isinstance(response.response, Door)


BOTH = [
    ToolMetadata(name="handbook", description="Doors, codes and rooms of the station."),
    ToolMetadata(name="boats", description="Timetables of boats."),
]


def test_selectors_get_what_they_need(llm):
    """Numbers and reasons; their classes say no bounds."""
    llm.max_tokens = 300
    (one,) = PydanticSingleSelector.from_defaults(llm=llm).select(BOTH, Q).selections
    many = PydanticMultiSelector.from_defaults(llm=llm, max_outputs=2).select(BOTH, Q).selections
    assert all(isinstance(choice.index, int) and choice.reason for choice in [one, *many])


async def test_a_react_agent_comes_to_an_end(llm):
    """Its steps are free text; a model this small answers at once."""
    agent = ReActAgent(tools=[SEARCH], llm=llm, streaming=False)
    assert str(await asyncio.wait_for(agent.run(Q, max_iterations=3), timeout=300)).strip()


def make_agent(llm):
    return FunctionAgent(tools=[SEARCH], llm=llm, initial_tool_choice="handbook")


async def test_a_function_agent_calls_the_tool_and_answers(llm):
    handler = make_agent(llm).run(Q)
    results = [e async for e in handler.stream_events() if isinstance(e, ToolCallResult)]
    answer = str(await handler)
    assert [result.tool_name for result in results] == ["handbook"]
    assert answer.strip()


async def test_nothing_hangs_when_an_agent_is_cancelled_in_a_call(llm):
    handler = make_agent(llm).run(Q)
    await asyncio.sleep(0.5)
    await handler.cancel_run()
    with pytest.raises(Exception, match=".*"):
        await asyncio.wait_for(handler, timeout=60)
    assert await asyncio.wait_for(llm.acomplete("Hello", max_tokens=2), timeout=60)
