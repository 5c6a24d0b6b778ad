"""Tools and structured output with ChatFinch: what a scripted model says, and what comes of it."""

import asyncio
import json
from typing import Annotated, Literal, TypedDict

import jsonschema
import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import create_retriever_tool, tool
from pydantic import BaseModel, Field

from finch_integrations import Constraint, InvalidInputError
from finch_integrations.errors import ConfigurationError
from finch_integrations.langchain import ChatFinch
from finch_integrations.langchain.messages import to_turns
from tests import templates
from tests.scripted import scripted_engine
from tests.tiny import CHATML, text_of

Q = "Which colour has the boat?"
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "boat"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return f"All about the {query}."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Boat(BaseModel):
    """A boat."""

    colour: Literal["red", "blue"]
    length: float = Field(gt=0, le=100)
    crew: list[str] = Field(max_length=2)


class Colour(TypedDict):
    """A colour."""

    colour: Annotated[str, ..., "Its name"]


BOAT = '{"colour": "red", "length": 7.5, "crew": ["ann"]}'


def chat(*texts, template=CHATML, **options):
    engine = scripted_engine(*texts, chat_template=template)
    return ChatFinch(engine=engine, **{"max_tokens": 200, **options})


def calls_of(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


@pytest.mark.parametrize("template", [CHATML, templates.HERMES])
async def test_free_text_and_calls_are_told_apart_streamed_or_not(template):
    model = chat(f"Let me see.\n{CALL}\n{OTHER}", template=template).bind_tools([search, add])
    expected = [("search", {"query": "boat"}), ("add", {"a": 1, "b": 2})]
    streamed = [chunk async for chunk in model.astream(Q)]
    whole = streamed[0]
    for chunk in streamed[1:]:
        whole += chunk
    for message in (model.invoke(Q), await model.ainvoke(Q), whole):
        assert message.text.strip() == "Let me see."
        assert calls_of(message) == expected
        assert len({call["id"] for call in message.tool_calls}) == 2
        assert message.usage_metadata["output_tokens"] > 100
        assert message.response_metadata["finish_reason"] == "stop"
        kinds = [block["type"] for block in message.content_blocks]
        assert kinds == ["text", "tool_call", "tool_call"]
    assert len([chunk for chunk in streamed if chunk.tool_call_chunks]) == 2


def test_an_answer_without_calls_is_the_plain_one():
    model = chat("It is red.", template=templates.HERMES)
    assert model.bind_tools([search]).invoke(Q).text == "It is red."
    assert model.bind_tools([search]).invoke(Q).tool_calls == []


@pytest.mark.parametrize("template", [CHATML, templates.HERMES, templates.LLAMA, templates.TEKKEN])
@pytest.mark.parametrize(
    ("choice", "names"),
    [("any", {"search", "add"}), ("required", {"search", "add"}), ("add", {"add"}), (True, None)],
)
def test_a_choice_is_obeyed_whatever_the_model_would_say(template, choice, names):
    model = chat("No!", template=template, max_tokens=2000, temperature=1, seed=1)
    message = model.bind_tools([search, add], tool_choice=choice).invoke(Q)
    if message.response_metadata["finish_reason"] == "stop":
        ((name, arguments),) = calls_of(message)
        assert name in (names or {"search", "add"})
        schema = {"search": search, "add": add}[name].args_schema.model_json_schema()
        jsonschema.validate(arguments, schema)
    else:
        assert message.invalid_tool_calls
    assert not message.text.strip()


def test_no_call_is_made_with_the_choice_none():
    message = chat(CALL).bind_tools([search], tool_choice="none").invoke(Q)
    assert (message.text, message.tool_calls) == (CALL, [])


def test_one_call_only_where_parallel_calls_are_off():
    model = chat(f"{CALL}\n{OTHER}").bind_tools([search, add], parallel_tool_calls=False)
    assert calls_of(model.invoke(Q)) == [("search", {"query": "boat"})]


@pytest.mark.parametrize("template", [CHATML, templates.LLAMA])
def test_half_a_call_is_never_a_call(template):
    model = chat("x", template=template, max_tokens=25).bind_tools([add], tool_choice="any")
    message = model.invoke(Q)
    assert message.tool_calls == []
    assert len(message.invalid_tool_calls) == 1
    assert message.response_metadata["finish_reason"] == "length"


def test_calls_and_results_reach_the_model_again():
    model = chat("Red.", template=templates.HERMES).bind_tools([search])
    call = {"name": "search", "args": {"query": "boat"}, "id": "1", "type": "tool_call"}
    steps = [HumanMessage(Q), AIMessage("", tool_calls=[call])]
    short = model.invoke([*steps, ToolMessage("Red.", tool_call_id="1")])
    long = model.invoke([*steps, ToolMessage("Red. " * 11, tool_call_id="1")])
    assert long.usage_metadata["input_tokens"] - short.usage_metadata["input_tokens"] == 50


# Errors


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        (lambda m: m.bind_tools([search], tool_choice="missing"), "the tools are search"),
        (lambda m: m.bind_tools([], tool_choice="any"), "the tools are none"),
        (lambda m: m.bind_tools([{"nonsense": 1}]), "tool 1 cannot be converted"),
        (lambda m: m.bind_tools(["search"]), "tool 1 cannot be converted"),
        (lambda m: m.with_structured_output({"type": "object"}), "cannot be used"),
        (lambda m: m.with_structured_output(None), "needs a schema"),
        (lambda m: m.invoke(Q, tools=[{"x": 1}]), "tool 1 must be a function"),
        (lambda m: m.bind_tools([search, search]).invoke(Q), "two tools have the name 'search'"),
        (lambda m: m.invoke(Q, tools="search"), "tools must be a list"),
    ],
)
def test_unusable_tools_and_choices_are_named(bind, reason):
    with pytest.raises(InvalidInputError, match=reason):
        bind(chat("x"))


def test_wrong_options_are_named():
    with pytest.raises(ConfigurationError, match="method must be"):
        chat("x").with_structured_output(Boat, method="magic")
    with pytest.raises(ConfigurationError, match="response_format must be"):
        chat("x").invoke(Q, response_format={"type": "xml"})
    with pytest.raises(ConfigurationError, match="constraint must be"):
        chat("x").invoke(Q, constraint="[a-z]")


def test_a_tool_whose_schema_cannot_be_compiled_is_named():
    function = {
        "name": "pick",
        "parameters": {"type": "object", "properties": {"x": {"not": {"pattern": "a"}}}},
    }
    model = chat("x").bind_tools([search, {"type": "function", "function": function}])
    with pytest.raises(InvalidInputError, match=r"of the tool 'pick': .*#/properties/x.*not"):
        model.invoke(Q)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["x" * 1000 + str(n) for n in range(1000)]},
        {"$ref": "#"},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}},
        },
        {"$ref": "https://example.org/x.json"},
        {"type": "thing"},
        {"type": "array", "minItems": 2, "maxItems": 1},
    ],
    ids=["a megabyte", "itself", "itself in an array", "elsewhere", "no type", "no array"],
)
@pytest.mark.parametrize("choice", ["auto", "any"])
def test_a_tool_with_a_hostile_schema_is_an_error(schema, choice):
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    parameters["$defs"] = schema.get("$defs", {})
    function = {"name": "pick", "description": "Picks.", "parameters": parameters}
    model = chat("x").bind_tools([{"type": "function", "function": function}], tool_choice=choice)
    with pytest.raises(InvalidInputError, match=r"the tool 'pick'|JSON schema|grammar"):
        model.invoke(Q)


def test_a_call_in_the_history_of_a_tool_that_is_gone_is_shown_as_it_was():
    model = chat("Red.", template=templates.HERMES).bind_tools([search])
    call = {"name": "gone", "args": {"other": [1]}, "id": "1", "type": "tool_call"}
    steps = [HumanMessage(Q), AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id="1")]
    assert model.invoke(steps).text == "Red."
    (turn,) = [turn for turn in to_turns(steps) if turn.calls]
    assert turn.calls[0]["arguments"] == {"other": [1]}
    wrong = {"name": "gone", "args": "[1", "id": "2", "error": None, "type": "invalid_tool_call"}
    (said,) = to_turns([AIMessage("", invalid_tool_calls=[wrong])])
    assert "gone" in said.text
    assert "[1" in said.text


def test_a_tool_without_a_schema_takes_no_arguments():
    bare = {"type": "function", "function": {"name": "ping"}}
    message = chat("x").bind_tools([bare], tool_choice="ping").invoke(Q)
    assert calls_of(message) == [("ping", {})]


# Structured output


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("schema", [Boat, Colour, Boat.model_json_schema()])
async def test_output_has_the_schemas_type(method, schema):
    said = '{"colour": "red"}' if schema is Colour else BOAT
    if method == "function_calling":
        name = "Colour" if schema is Colour else "Boat"
        said = f'<tool_call>\n{{"name": "{name}", "arguments": {said}}}\n</tool_call>'
    model = chat(said).with_structured_output(schema, method=method)
    found = model.invoke(Q)
    assert isinstance(found, Boat if schema is Boat else dict)
    assert (found.colour if schema is Boat else found["colour"]) == "red"
    assert await model.ainvoke(Q) == found
    assert list(model.stream(Q))[-1] == found


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_that_would_say_anything_else_follows_the_schema(method, seed):
    model = chat("No!", temperature=1.0, seed=seed, max_tokens=4000)
    found = model.with_structured_output(Boat, method=method, include_raw=True).invoke(Q)
    if found["raw"].response_metadata["finish_reason"] == "stop":
        assert isinstance(found["parsed"], Boat)
    else:
        assert "max_tokens" in str(found["parsing_error"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_an_answer_that_is_cut_is_an_error_and_is_not_completed(method):
    cut = chat(BOAT, max_tokens=30)
    with pytest.raises(OutputParserException, match="max_tokens"):
        cut.with_structured_output(Boat, method=method).invoke(Q)
    found = cut.with_structured_output(Boat, method=method, include_raw=True).invoke(Q)
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], OutputParserException)
    assert isinstance(found["raw"], AIMessage)


def test_the_model_is_told_the_schema_with_json_schema_only():
    model = chat(BOAT)

    def tokens(method):
        structured = model.with_structured_output(Boat, method=method, include_raw=True)
        return structured.invoke(Q)["raw"].usage_metadata["input_tokens"]

    assert tokens("json_schema") > tokens("json_mode") + 100


def test_any_constraint_may_be_given():
    assert chat("No!").invoke(Q, constraint=Constraint.choice(["yes", "maybe"])).text in (
        "yes",
        "maybe",
    )


def test_with_tools_the_answer_is_a_call_or_follows_the_schema():
    """As agents with a response format ask."""
    schema = {"title": "Boat", **Boat.model_json_schema()}
    format = {"type": "json_schema", "json_schema": {"name": "Boat", "schema": schema}}
    for said, calls in ((CALL, 1), (BOAT, 0)):
        message = chat(said).bind_tools([search], response_format=format).invoke(Q)
        assert len(message.tool_calls) == calls
        assert message.text == ("" if calls else BOAT)


# Thoughts


@pytest.mark.parametrize("stream", [True, False])
def test_thoughts_are_split_from_the_answer(stream):
    model = chat("<think>\nIt may be red.\n</think>\n\nRed.", template=templates.THINKING)
    if stream:
        chunks = list(model.stream(Q))
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk
    else:
        message = model.invoke(Q)
    assert message.text == "Red."
    assert message.additional_kwargs["reasoning_content"] == "It may be red."
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


def test_thoughts_are_kept_out_of_citations():
    document = Document("The boat in the harbour is red and leaks.", id="a")
    quoted = "The boat in the harbour is red"
    model = chat(f"<think>{quoted}</think>Red.", template=templates.THINKING)
    assert model.invoke(Q, documents=[document]).response_metadata["citations"] == []
    model = chat(f"<think>Hm.</think>{quoted}.", template=templates.THINKING)
    assert len(model.invoke(Q, documents=[document]).response_metadata["citations"]) == 1


def test_thinking_can_be_turned_off():
    model = chat("Red.", template=templates.THINKING)
    on, off = (
        model.invoke(Q, reasoning=reasoning).usage_metadata["input_tokens"]
        for reasoning in (None, False)
    )
    assert off == on + len("<think>\n\n</think>\n\n")
    with pytest.raises(ConfigurationError, match="no switch"):
        chat("x", template=templates.ALWAYS_THINKING, reasoning=False).invoke(Q)


def test_a_schema_holds_after_the_thoughts():
    said = f"Hm, red?</think>{BOAT}"
    model = chat(said, template=templates.ALWAYS_THINKING)
    found = model.with_structured_output(Boat, include_raw=True).invoke(Q)
    assert found["parsed"].colour == "red"
    assert found["raw"].additional_kwargs["reasoning_content"] == "Hm, red?"


# Agents


@pytest.mark.parametrize("template", [CHATML, templates.HERMES, templates.LLAMA])
async def test_an_agent_calls_its_retriever_and_the_results_are_compressed(retriever, template):
    said = (
        CALL
        if template != templates.LLAMA
        else json.dumps({"name": "search", "parameters": {"query": "boat"}})
    )
    lookup = create_retriever_tool(
        retriever, "search", "Search.", response_format="content_and_artifact"
    )
    model = chat(said, "It is red.", template=template, target_size=60)
    agent = create_agent(model, tools=[lookup], system_prompt="Be brief.")
    result = await agent.ainvoke({"messages": [HumanMessage(Q)]})
    _, call, _, answer = result["messages"]
    assert calls_of(call) == [("search", {"query": "boat"})]
    assert answer.text == "It is red."
    finch = answer.response_metadata["finch"]
    assert finch["documents_from"] == "artifact"
    assert finch["kept_tokens"] == 60
    assert finch["document_tokens"] > 400


def test_an_agent_answers_with_an_object():
    agent = create_agent(chat(CALL, BOAT), tools=[search], response_format=Boat)
    result = agent.invoke({"messages": [HumanMessage(Q)]})
    assert result["structured_response"] == Boat(colour="red", length=7.5, crew=["ann"])


async def test_an_agent_that_is_cancelled_mid_call_leaves_the_model_free():
    model = chat(CALL, template=templates.HERMES)
    agent = create_agent(model, tools=[search])
    running = asyncio.create_task(agent.ainvoke({"messages": [HumanMessage(Q)]}))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    answer = await asyncio.wait_for(model.bind_tools([search]).ainvoke(Q), timeout=20)
    assert isinstance(answer, AIMessage)


def test_documents_are_compressed_while_tools_are_bound():
    documents = [text_of(150, seed=seed) for seed in (1, 2, 3)]
    message = chat("Red.", target_size=60).bind_tools([search]).invoke(Q, documents=documents)
    assert message.text == "Red."
    assert message.response_metadata["finch"]["kept_tokens"] == 60
