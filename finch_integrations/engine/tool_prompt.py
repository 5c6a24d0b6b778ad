r"""Tools, calls and results for chat templates that cannot show them: written out as text.

The tools are described in the system text, in the words that many open models were trained with:

    <tools>
    {"type": "function", "function": {"name": …, "description": …, "parameters": …}}
    </tools>

A call is part of the assistant's text, `<tool_call>\n{"name": …, "arguments": …}\n</tool_call>`,
and a result is a user turn that begins with "Result of the tool NAME:".
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Message, Tool, ToolCall

_DESCRIPTION = (
    "You may call one or more functions to help with the user's question. You have these "
    "functions, with the JSON schemas of their arguments:\n<tools>\n{tools}\n</tools>\n"
    "To call a function, answer with a JSON object with its name and its arguments, like this:\n"
    '<tool_call>\n{{"name": "…", "arguments": {{…}}}}\n</tool_call>'
)
_NAME = re.compile(r"[\w.:-]{1,128}")


def check_tools(tools: Sequence[Tool]) -> None:
    """Check that tools can be described to a model.

    Raises:
        InvalidInputError: One has no usable name or schema, or two have the same name.
    """
    seen: set[str] = set()
    for number, tool in enumerate(tools, start=1):
        name = tool.get("name") if isinstance(tool, Mapping) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"tool {number} must be a mapping with a name of letters, digits, '_', '-', '.' "
                f"and ':', got {tool!r:.200}"
            )
        if name in seen:
            raise InvalidInputError(f"two tools have the name {name!r}. Rename one of them")
        seen.add(name)
        if tool.get("description"):
            check_text(f"the description of the tool {name!r}", tool["description"])
        parameters = tool.get("parameters", {})
        if not isinstance(parameters, Mapping):
            raise InvalidInputError(
                f"the parameters of the tool {name!r} must be a JSON schema of an object, "
                f"got {type(parameters).__name__}"
            )
        _check_json(parameters, f"the parameters of the tool {name!r}")


def check_calls(calls: Any, where: str) -> None:
    """Check that the tool calls of a message can be shown to a model.

    Raises:
        InvalidInputError: One is no call.
    """
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise InvalidInputError(f"the tool_calls of {where} must be a list, got {calls!r:.200}")
    for call in calls:
        arguments = call.get("arguments") if isinstance(call, Mapping) else None
        if not isinstance(arguments, Mapping) or not isinstance(call.get("name"), str):
            raise InvalidInputError(
                f"a tool call of {where} must be a mapping with id, name and arguments (a "
                f"mapping), got {call!r:.200}"
            )
        _check_json(arguments, f"the arguments of a tool call of {where}")


def function_schema(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates expect it."""
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    function = {
        "name": tool["name"],
        "description": tool.get("description", ""),
        "parameters": dict(parameters),
    }
    return {"type": "function", "function": function}


def describe(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Put a description of the tools, if there are any, at the end of the system text."""
    if not tools:
        return list(messages)
    lines = (json.dumps(function_schema(tool), ensure_ascii=False) for tool in tools)
    text = _DESCRIPTION.format(tools="\n".join(lines))
    if messages and messages[0]["role"] == "system":
        text = f"{messages[0]['content']}\n\n{text}"
        messages = messages[1:]
    return [Message(role="system", content=text), *messages]


def as_text(messages: Sequence[Message]) -> list[Message]:
    """Write calls and results out as text."""
    return [_as_text(message) for message in messages]


def one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """Give every call its own turn, before its result; some templates refuse parallel calls."""
    turns: list[Message] = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            turns.append(message)
            continue
        results: list[Message] = []
        while rest and rest[0]["role"] == "tool":
            results.append(rest.pop(0))
        for number, call in enumerate(calls):
            text = message["content"] if number == 0 else ""
            turns.append(Message(role="assistant", content=text, tool_calls=[call]))
            for result in [r for r in results if r.get("tool_call_id") == call.get("id")]:
                turns.append(result)
                results.remove(result)
        turns += results
    return turns


def _as_text(message: Message) -> Message:
    if message["role"] == "tool":
        tool = f"the tool {message['name']}" if message.get("name") else "the tool"
        content = message["content"].strip() or "(nothing)"
        return Message(role="user", content=f"Result of {tool}:\n{content}")
    if not message.get("tool_calls"):
        return message
    written = [write_call(call) for call in message["tool_calls"]]
    text = [message["content"]] if message["content"].strip() else []
    return Message(role=message["role"], content="\n".join([*text, *written]))


def write_call(call: ToolCall) -> str:
    """Write one call as text."""
    facts = {"name": call["name"], "arguments": call["arguments"]}
    return f"<tool_call>\n{json.dumps(facts, ensure_ascii=False)}\n</tool_call>"


def _check_json(value: Mapping[str, Any], name: str) -> None:
    try:
        check_text(name, json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} cannot be written as JSON: {error}") from error
