"""What a call says about the answer, in the notations of common interfaces: tools, a schema."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finch_integrations.constraints import Constraint
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.types import Tool

ANSWER_OPTIONS = frozenset(
    {"constraint", "parallel_tool_calls", "reasoning", "response_format", "tool_choice", "tools"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What an answer may consist of.

    Attributes:
        tools: What the model may call.
        tool_choice: `auto`, `any` or a tool's name.
        parallel_calls: Whether several calls may be made at once; None: if the model chooses
            whether to call. One that must call may not know when to stop.
        constraint: What a text must look like.
        note: What to tell the model about that, in the system text.
        reasoning: Whether it thinks before it answers; None: as its template has it.
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool | None = None
    constraint: Constraint | None = None
    note: str = ""
    reasoning: bool | None = None


def read_answer_options(call: Mapping[str, Any]) -> AnswerOptions:
    """Read a call's options.

    Args:
        call: `tools` as functions with JSON schemas, with or without OpenAI's envelope;
            `tool_choice` as `auto`, `none`, `any`, `required`, a name or OpenAI's mapping;
            `parallel_tool_calls`; `response_format` as OpenAI has it; or a `constraint`;
            `reasoning`.

    Raises:
        InvalidInputError: A tool or the choice is unusable.
        ConfigurationError: An option has another type.
    """
    if all(call.get(name) is None for name in ANSWER_OPTIONS):
        return AnswerOptions()
    tools = read_tools(call.get("tools") or ())
    choice = read_tool_choice(call.get("tool_choice"), tools)
    if choice == "none":
        tools, choice = (), "auto"
    constraint, note = _read_format(call.get("response_format"))
    given = call.get("constraint")
    if given is not None:
        if not isinstance(given, Constraint):
            raise ConfigurationError(
                f"constraint must be a Constraint, got {type(given).__name__}. Make one with "
                "Constraint.json_schema, .regex, .choice or .grammar"
            )
        if constraint is not None:
            raise ConfigurationError("give response_format or constraint, not both")
        constraint = given
    for name in ("parallel_tool_calls", "reasoning"):
        if not isinstance(call.get(name), bool | None):
            raise ConfigurationError(f"{name} must be True or False, got {call[name]!r}")
    return AnswerOptions(
        tools=tools,
        tool_choice=choice,
        parallel_calls=call.get("parallel_tool_calls"),
        constraint=constraint,
        note=note,
        reasoning=call.get("reasoning"),
    )


def read_tools(tools: object) -> tuple[Tool, ...]:
    """Read functions, with or without OpenAI's envelope.

    Raises:
        InvalidInputError: There is something else.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise InvalidInputError(f"tools must be a list, got {type(tools).__name__}")
    return tuple(_read_tool(tool, number) for number, tool in enumerate(tools, start=1))


def read_tool_choice(choice: object, tools: Sequence[Tool]) -> str:
    """Read a tool choice: `auto`, `none`, `any` or the name of a tool.

    Raises:
        InvalidInputError: It is something else, or names no tool.
    """
    if isinstance(choice, Mapping):
        inner = choice.get("function", choice)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        choice = name or choice.get("type")
    named = {None: "auto", False: "none", True: "any", "required": "any", "": "auto"}
    if choice is None or isinstance(choice, str | bool):
        choice = named.get(choice, choice)
    names = [tool["name"] for tool in tools]
    if choice not in ("auto", "none", "any", *names) or (choice == "any" and not names):
        raise InvalidInputError(
            f"tool_choice must be 'auto', 'any', 'none' or the name of a tool, got {choice!r}; "
            f"the tools are {', '.join(names) or 'none'}"
        )
    return str(choice)


def _read_tool(tool: object, number: int) -> Tool:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise InvalidInputError(
            f"tool {number} must be a function with a name, a description and the JSON schema of "
            f"its parameters, got {tool!r:.200}"
        )
    return Tool(
        name=name,
        description=function.get("description") or "",
        parameters=function.get("parameters") or {},
    )


def _read_format(value: object) -> tuple[Constraint | None, str]:
    kind = value.get("type") if isinstance(value, Mapping) else value
    if kind in (None, "text"):
        return None, ""
    if kind in ("json_object", "json"):
        return Constraint.json_schema({"type": "object"}), ""
    inner = value.get("json_schema") if isinstance(value, Mapping) else None
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise ConfigurationError(
            "response_format must be {'type': 'json_schema', 'json_schema': {'schema': …}}, "
            f"{{'type': 'json_object'}} or {{'type': 'text'}}, got {value!r:.200}"
        )
    constraint = Constraint.json_schema(schema)
    text = json.dumps(schema, ensure_ascii=False)
    return constraint, f"Answer with JSON that follows this JSON schema:\n{text}"
