"""Tools and structured output with FinchLLM: the function-calling contract."""

from typing import Annotated, Literal

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.selectors import PydanticMultiSelector, PydanticSingleSelector
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.types import PydanticProgramMode

from finch_integrations import FinchError, InvalidInputError
from finch_integrations.llama_index import FinchLLM, FinchSynthesizer
from finch_integrations.llama_index.messages import to_turns
from tests import templates
from tests.llama_index.contract import collect
from tests.scripted import scripted_engine
from tests.tiny import CHATML

# LlamaIndex's own: its agents' attributes include pydantic's old ones, and a step asks for this.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

Q = "Which colour has the boat?"
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "boat"}}\n</tool_call>'
OTHER = CALL.replace("boat", "crew")
BOAT = '{"colour": "red", "crew": ["ann"]}'
WAYS = ["chat", "achat", "stream_chat", "astream_chat"]


class Boat(BaseModel):
    """A boat."""

    colour: Literal["red", "blue"]
    crew: list[Annotated[str, Field(max_length=9)]] = Field(max_length=2)


def search(query: str) -> str:
    """Search the handbook."""
    return f"The {query} is red."


SEARCH = FunctionTool.from_defaults(search)


def llm_of(*texts, template=CHATML, **options):
    engine = scripted_engine(*texts, chat_template=template)
    return FinchLLM(engine=engine, **{"max_tokens": 300, **options})


async def with_tools(llm, way, **kwargs):
    """Call any of the four methods; the last response."""
    return (await collect(llm, f"{way}_with_tools", [SEARCH], user_msg=Q, **kwargs))[-1]


def calls_of(llm, response):
    found = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    return [(call.tool_name, call.tool_kwargs) for call in found]


def test_it_is_a_function_calling_llm():
    llm = llm_of("x")
    assert isinstance(llm, FunctionCallingLLM)
    assert llm.metadata.is_function_calling_model


@pytest.mark.parametrize("template", [CHATML, templates.HERMES])
@pytest.mark.parametrize("way", WAYS)
async def test_calls_are_read_whatever_the_method(way, template):
    llm = llm_of(f"Let me see. {CALL}", template=template)
    response = await with_tools(llm, way)
    assert calls_of(llm, response) == [("search", {"query": "boat"})]
    assert response.message.content.strip() == "Let me see."
    assert response.message.additional_kwargs["tool_calls"][0]["function"]["name"] == "search"
    assert response.raw["usage"]["completion_tokens"] > 50


@pytest.mark.parametrize("way", WAYS)
async def test_a_required_call_is_made_whatever_the_model_would_say(way):
    llm = llm_of("No!", template=templates.HERMES, temperature=1, seed=2, max_tokens=4000)
    response = await with_tools(llm, way, tool_required=True)
    if response.raw["finish_reason"] == "stop":
        ((name, arguments),) = calls_of(llm, response)
        assert name == "search"
        assert isinstance(arguments["query"], str)


async def test_parallel_calls_are_made_only_if_they_are_allowed():
    llm = llm_of(f"{CALL}\n{OTHER}")
    assert len(calls_of(llm, await with_tools(llm, "chat"))) == 1
    both = await with_tools(llm_of(f"{CALL}\n{OTHER}"), "chat", allow_parallel_tool_calls=True)
    assert len(calls_of(llm, both)) == 2


async def test_an_answer_without_a_call_is_an_error_only_if_one_was_needed():
    llm = llm_of("Red.")
    response = await with_tools(llm, "chat")
    assert calls_of(llm, response) == []
    with pytest.raises(FinchError, match="called no tool"):
        llm.get_tool_calls_from_response(response)
    cut = await with_tools(llm_of("x", max_tokens=20), "chat", tool_required=True)
    assert cut.raw["invalid_tool_calls"]
    with pytest.raises(FinchError, match="cut at max_tokens"):
        llm.get_tool_calls_from_response(cut)


def test_predict_and_call_runs_the_tool():
    assert llm_of(CALL).predict_and_call([SEARCH], Q).response == "The boat is red."


def test_unusable_tools_are_named():
    with pytest.raises(InvalidInputError, match="cannot be converted"):
        llm_of("x").chat_with_tools([search], Q)
    with pytest.raises(FinchError, match="the tools are search"):
        llm_of("x").chat_with_tools([SEARCH], Q, tool_choice="missing")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("template", [CHATML, templates.HERMES, templates.MISTRAL])
async def test_a_function_agent_calls_a_tool_and_answers(streaming, template):
    said = CALL
    if template == templates.MISTRAL:
        said = (
            '[TOOL_CALLS] [{"name": "search", "arguments": {"query": "boat"}, "id": "abcdefghi"}]'
        )
    llm = llm_of(said, "It is red.", template=template)
    agent = FunctionAgent(tools=[SEARCH], llm=llm, streaming=streaming)
    handler = agent.run(Q)
    events = [event async for event in handler.stream_events()]
    assert str(await handler) == "It is red."
    results = [str(e.tool_output) for e in events if isinstance(e, ToolCallResult)]
    assert results == ["The boat is red."]


async def test_a_react_agent_runs():
    action = 'Thought: I look it up.\nAction: search\nAction Input: {"query": "boat"}'
    answer = "Thought: I can answer without using any more tools.\nAnswer: It is red."
    agent = ReActAgent(tools=[SEARCH], llm=llm_of(action, answer))
    assert str(await agent.run(Q)) == "It is red."


def test_thoughts_are_a_block_of_their_own():
    llm = llm_of("<think>Hm.</think>Red.", template=templates.THINKING)
    message = llm.chat([ChatMessage(content=Q)]).message
    assert message.content == "Red."
    assert [b.content for b in message.blocks if isinstance(b, ThinkingBlock)] == ["Hm."]


# Structured output


@pytest.mark.parametrize("said", [BOAT, "No!"])
async def test_predictions_follow_the_schema(said):
    llm = llm_of(said, temperature=0 if said == BOAT else 1, seed=4, max_tokens=6000)
    prompt = PromptTemplate("Describe: {what}")
    assert isinstance(llm.structured_predict(Boat, prompt, what="boat"), Boat)
    assert isinstance(await llm.astructured_predict(Boat, prompt, what="boat"), Boat)
    *_, last = llm.stream_structured_predict(Boat, prompt, what="boat")
    assert isinstance(last, Boat)
    stream = await llm.astream_structured_predict(Boat, prompt, what="boat")
    assert isinstance([one async for one in stream][-1], Boat)


@pytest.mark.parametrize("way", WAYS)
async def test_a_structured_llm_answers_with_objects(way):
    structured = llm_of(BOAT).as_structured_llm(Boat)
    response = (await collect(structured, way, [ChatMessage(content=Q)]))[-1]
    assert response.raw == Boat(colour="red", crew=["ann"])


def test_a_prediction_that_is_cut_is_an_error_that_says_so():
    with pytest.raises(FinchError, match="output class's schema"):
        llm_of("No!", max_tokens=12).structured_predict(Boat, PromptTemplate("Describe it."))
    with pytest.raises(FinchError, match="before the Boat was complete"):
        list(llm_of("No!", max_tokens=12).stream_structured_predict(Boat, PromptTemplate("It?")))


def test_programs_that_call_functions_work():
    said = f'<tool_call>\n{{"name": "Boat", "arguments": {BOAT}}}\n</tool_call>'
    llm = llm_of(said)
    program = FunctionCallingProgram.from_defaults(
        output_cls=Boat, prompt_template_str="Describe it.", llm=llm
    )
    assert program() == Boat(colour="red", crew=["ann"])
    by_function = llm_of(said, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    found = by_function.structured_predict(Boat, PromptTemplate("Describe it."))
    assert found == Boat(colour="red", crew=["ann"])


def test_programs_make_the_call_whatever_the_model_would_say():
    llm = llm_of("No!", temperature=1, seed=1, max_tokens=6000)
    program = FunctionCallingProgram.from_defaults(
        output_cls=Boat, prompt_template_str="Describe it.", llm=llm
    )
    assert isinstance(program(), Boat)


def test_a_selector_chooses():
    said = '<tool_call>\n{"name": "SingleSelection", "arguments": {"index": 2, "reason": "fits"}}'
    selector = PydanticSingleSelector.from_defaults(llm=llm_of(f"{said}\n</tool_call>"))
    choices = [ToolMetadata(description="Boats", name="a"), ToolMetadata("Crews", name="b")]
    assert selector.select(choices, Q).ind == 1


def test_a_selector_chooses_several():
    one = '{"index": 2, "reason": "fits"}'
    said = f'<tool_call>\n{{"name": "MultiSelection", "arguments": {{"selections": [{one}]}}}}'
    selector = PydanticMultiSelector.from_defaults(llm=llm_of(f"{said}\n</tool_call>"))
    choices = [ToolMetadata(description="Boats", name="a"), ToolMetadata("Crews", name="b")]
    assert selector.select(choices, Q).inds == [1]


@pytest.mark.parametrize("arguments", ["[1]", "no JSON", "3", [1], None])
def test_a_call_in_the_history_whose_arguments_are_no_object_is_named(arguments):
    call = ToolCallBlock.model_construct(
        block_type="tool_call", tool_call_id="1", tool_name="search", tool_kwargs=arguments
    )
    asked = ChatMessage(role="assistant", blocks=[TextBlock(text="Hm.")])
    asked.blocks.append(call)
    result = ChatMessage(role="tool", content="x")
    chat = [ChatMessage(content=Q), asked, result, ChatMessage(content=Q)]
    with pytest.raises(InvalidInputError, match="'search' whose arguments are no JSON object"):
        llm_of("Fine.").chat(chat)


def test_a_call_in_the_history_that_does_not_fit_its_tool_is_shown_as_it_was():
    """The schema may have changed since."""
    call = ToolCallBlock(tool_call_id="1", tool_name="gone", tool_kwargs='{"other": [1]}')
    asked = ChatMessage(role="assistant", blocks=[call])
    result = ChatMessage(role="tool", content="x", additional_kwargs={"tool_call_id": "1"})
    chat = [ChatMessage(content=Q), asked, result]
    (turn,) = [turn for turn in to_turns(chat) if turn.calls]
    assert turn.calls[0]["arguments"] == {"other": [1]}
    answered = llm_of("Fine.").chat_with_tools([SEARCH], Q, chat_history=chat)
    assert answered.message.content == "Fine."


def test_an_output_class_is_dropped_by_simple_summarize_itself(index):
    """LlamaIndex does not pass it on; docs/llama-index.md says so."""
    engine = index.as_query_engine(
        llm=llm_of(BOAT, target_size=60), response_mode="simple_summarize", output_cls=Boat
    )
    assert isinstance(engine.query(Q).response, str)


# LlamaIndex itself does not pass an output class on to `simple_summarize`.
MODES = [
    "compact",
    "refine",
    "tree_summarize",
    "accumulate",
    "compact_accumulate",
]


@pytest.mark.parametrize("mode", MODES)
def test_output_classes_work_in_every_response_mode(index, mode):
    llm = llm_of(BOAT, target_size=60)
    engine = index.as_query_engine(llm=llm, response_mode=mode, output_cls=Boat, similarity_top_k=3)
    response = engine.query(Q)
    assert "red" in str(response)
    if "accumulate" not in mode:  # these join texts
        assert response.response == Boat(colour="red", crew=["ann"])


def test_the_synthesizer_answers_with_an_object_whatever_the_model_would_say(retriever):
    llm = llm_of("No!", temperature=1, seed=1, max_tokens=6000, target_size=60)
    response = FinchSynthesizer(llm=llm, output_cls=Boat).synthesize(Q, retriever.retrieve(Q))
    assert isinstance(response.response, Boat)
