"""Tools and schemas of the server, as OpenAI's client uses them."""

import json

import jsonschema
import pytest
from pydantic import BaseModel, Field

from finch_integrations.pipeline.shared_engine import SharedEngine
from tests import templates
from tests.scripted import scripted_engine
from tests.serve.conftest import serving
from tests.tiny import CHATML

ASK = [{"role": "user", "content": "Which colour has the boat?"}]
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "boat"}}\n</tool_call>'
PARAMETERS = {
    "type": "object",
    "properties": {"query": {"type": "string", "maxLength": 12}},
    "required": ["query"],
}


def tool(name="search", parameters=PARAMETERS):
    function = {"name": name, "description": "Search the handbook.", "parameters": parameters}
    return {"type": "function", "function": function}


class Boat(BaseModel):
    """A boat."""

    colour: str = Field(max_length=9)
    length: int = Field(ge=1, le=99)


@pytest.fixture
def says(tmp_path):
    """A client of a server whose model wants to say a text; makes several."""
    running = []

    def start(*texts, template=CHATML):
        shared = SharedEngine(scripted_engine(*texts, chat_template=template))
        shared.name = "tiny"
        folder = tmp_path / str(len(running))
        folder.mkdir()
        context = serving(folder, model=shared, max_tokens=2000)
        client = context.__enter__().openai()
        running.append((context, client))
        return client

    yield start
    for context, client in running:
        client.close()
        context.__exit__(None, None, None)


def ask(client, **options):
    options = {"messages": ASK, "max_tokens": 200, **options}
    return client.chat.completions.create(model="tiny", **options)


def test_a_call_comes_back_and_its_result_is_answered(says):
    client = says(f"Let me see.\n{CALL}", "It is red.")
    choice = ask(client, tools=[tool()]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content.strip() == "Let me see."
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "search",
        {"query": "boat"},
    )
    result = {"role": "tool", "tool_call_id": call.id, "content": "The boat is red."}
    answer = ask(client, messages=[*ASK, choice.message, result], tools=[tool()]).choices[0]
    assert (answer.message.content, answer.finish_reason) == ("It is red.", "stop")
    assert answer.message.tool_calls is None


def test_calls_are_streamed_whole_and_numbered(says):
    client = says(f"{CALL}\n{CALL.replace('boat', 'crew')}")
    chunks = list(ask(client, tools=[tool()], stream=True))
    calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]
    assert [json.loads(c.function.arguments)["query"] for c in calls] == ["boat", "crew"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "search"}}]
)
@pytest.mark.parametrize("template", [CHATML, templates.HERMES])
def test_a_required_call_is_made_whatever_the_model_would_say(says, choice, template):
    client = says("No!", template=template)
    options = {"temperature": 1, "seed": 2, "max_tokens": 2000}
    found = ask(client, tools=[tool(), tool("add", {})], tool_choice=choice, **options).choices[0]
    (call,) = found.message.tool_calls
    assert found.message.content is None
    if call.function.name == "search":
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)


def test_no_call_is_made_if_none_is_wanted(says):
    found = ask(says(CALL), tools=[tool()], tool_choice="none").choices[0]
    assert (found.message.content, found.message.tool_calls) == (CALL, None)


def test_a_call_that_is_cut_is_shown_as_such(says):
    answer = ask(says(CALL), tools=[tool()], max_tokens=30)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None
    assert answer.finch["invalid_tool_calls"][0]["name"] == "search"


def test_an_answer_follows_its_schema_and_is_parsed(says):
    client = says("No!")
    options = {"temperature": 1, "seed": 3, "max_tokens": 2000}
    found = client.chat.completions.parse(
        model="tiny", messages=ASK, response_format=Boat, **options
    )
    assert isinstance(found.choices[0].message.parsed, Boat)
    some = ask(says("{}"), response_format={"type": "json_object"}).choices[0].message
    assert json.loads(some.content) == {}


def test_thoughts_are_apart(says):
    client = says("<think>Hm.</think>Red.", template=templates.THINKING)
    message = ask(client).choices[0].message
    assert (message.content, message.reasoning_content) == ("Red.", "Hm.")
    deltas = [chunk.choices[0].delta for chunk in ask(client, stream=True)]
    assert "".join(delta.content or "" for delta in deltas) == "Red."
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "Hm."


def flat(name="search", parameters=PARAMETERS):
    function = tool(name, parameters)["function"]
    return {"type": "function", **function, "strict": True}


def respond(client, **options):
    options = {"input": ASK, "max_output_tokens": 200, **options}
    return client.responses.create(model="tiny", **options)


def test_a_response_has_calls_and_goes_on_with_their_results(says):
    client = says(
        f"<think>Hm.</think>Let me see.\n{CALL}", "It is red.", template=templates.THINKING
    )
    first = respond(client, tools=[flat()], parallel_tool_calls=False)
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    thoughts, message, call = first.output
    assert thoughts.content[0].text == "Hm."
    assert message.content[0].text.strip() == "Let me see."
    assert (call.name, json.loads(call.arguments)) == ("search", {"query": "boat"})
    assert (first.status, first.tools[0].name) == ("completed", "search")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It is red."}
    second = respond(client, input=[*ASK, *first.output, result], tools=[flat()])
    assert second.output_text == "It is red."
    assert [item.type for item in second.output] == ["message"]


def test_a_streamed_response_has_its_items_at_their_places(says):
    said = f"<think>Hm.</think>Let me see.\n{CALL}\n{CALL.replace('boat', 'crew')}"
    client = says(said, template=templates.THINKING)
    events = list(respond(client, tools=[flat()], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1].response
    assert [item.type for item in final.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    for kind in ("added", "done"):
        named = [event for event in events if event.type == f"response.output_item.{kind}"]
        places = {event.output_index: event.item for event in named}
        assert len(named) == len(places) == 4
        assert [places[n].id for n in range(4)] == [item.id for item in final.output]
        if kind == "done":
            assert [places[n] for n in range(4)] == final.output
    # Whatever begins ends, and what is said of an item is said in between.
    for number in range(4):
        kinds = [e.type for e in events if getattr(e, "output_index", None) == number]
        assert kinds[0] == "response.output_item.added"
        assert kinds[-1] == "response.output_item.done"
    parts = {"reasoning_text": "", "output_text": "", "function_call_arguments": ""}
    for event in events:
        _, name, *rest = event.type.split(".")
        if rest == ["delta"]:
            parts[name] += event.delta
    assert parts["reasoning_text"] == final.output[0].content[0].text == "Hm."
    assert parts["output_text"] == final.output_text
    assert parts["function_call_arguments"] == "".join(c.arguments for c in final.output[2:])
    with client.responses.stream(model="tiny", input=ASK, tools=[flat()]) as stream:
        assert stream.get_final_response().output[2].name == "search"


def test_a_streamed_response_of_calls_only_has_no_message(says):
    events = list(respond(says(CALL), tools=[flat()], stream=True))
    assert [item.type for item in events[-1].response.output] == ["function_call"]
    assert not [event for event in events if event.type.startswith("response.output_text")]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "search"}])
def test_a_response_makes_a_required_call(says, choice):
    found = respond(
        says("No!"),
        tools=[flat(), flat("add", {})],
        tool_choice=choice,
        temperature=1,
        max_output_tokens=2000,
        extra_body={"seed": 2},
    )
    assert [item.type for item in found.output] == ["function_call"]


def test_a_response_follows_its_schema_and_is_parsed(says):
    found = says("No!").responses.parse(
        model="tiny",
        input=ASK,
        text_format=Boat,
        temperature=1,
        max_output_tokens=2000,
        extra_body={"seed": 3},
    )
    assert isinstance(found.output_parsed, Boat)
    assert found.text.format.name == "Boat"


def merged(chunks):
    first, *others = chunks
    for other in others:
        first += other
    return first


def test_langchains_client_of_responses_calls_tools(says):
    from langchain_openai import ChatOpenAI

    client = says(CALL)
    llm = ChatOpenAI(
        base_url="http://localhost/v1",
        api_key="none",
        model="tiny",
        http_client=client._client,
        use_responses_api=True,
    ).bind_tools([tool()])
    for message in (llm.invoke("Which colour?"), merged(llm.stream("Which colour?"))):
        assert message.tool_calls[0]["args"] == {"query": "boat"}


def test_penalties_change_what_is_written(server):
    body = {"model": "tiny", "messages": ASK, "max_tokens": 40, "temperature": 0}
    found = [
        server.post({**body, **options}).json()["choices"][0]["message"]["content"]
        for options in ({}, {"frequency_penalty": 2}, {"repetition_penalty": 5.0})
    ]
    assert len(set(found)) > 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tools": [{"type": "other"}]}, "Input should be 'function'"),
        ({"tools": [{"type": "function"}]}, "Field required"),
        ({"tools": [tool("a b")]}, "a name of letters"),
        ({"tools": [tool(), tool()]}, "two tools have the name"),
        ({"tools": [tool(f"t{number}") for number in range(129)]}, "at most 128"),
        ({"tools": [tool(parameters=5)]}, "valid dictionary"),
        ({"tools": [tool(parameters={"type": "person"})]}, "the parameters of the tool"),
        ({"tools": [tool()], "tool_choice": "sometimes"}, "Input should be"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "the tools are search",
        ),
        ({"tool_choice": "required"}, "the tools are none"),
        ({"response_format": {"type": "xml"}}, "does not match any of the expected tags"),
        ({"response_format": {"type": "json_schema"}}, "Field required"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "person"}},
                }
            },
            "cannot be compiled",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"$ref": "#"}},
                }
            },
            "contains itself",
        ),
    ],
)
def test_what_cannot_be_obeyed_is_refused(server, options, reason, stream):
    body = {"model": "tiny", "messages": ASK, "max_tokens": 5, "stream": stream, **options}
    response = server.post(body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert reason in error["message"], error


def test_arguments_that_are_no_object_are_refused(server):
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "[1]"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "1", "content": "x"}
    response = server.post({"model": "tiny", "messages": [*ASK, turn, result]})
    assert response.status_code == 400
    assert "no JSON object" in response.json()["error"]["message"]
