"""Tools as LangChain has them, to the pipeline's and back."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.answer_options import read_tool_choice, read_tools
from finch_integrations.types import InvalidToolCall, ToolCall

AnyTool = dict[str, Any] | type | Callable[..., Any] | BaseTool


def convert_tools(tools: Sequence[AnyTool], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Convert tools to OpenAI's notation.

    Args:
        tools: LangChain's tools, functions, pydantic classes, TypedDicts or dictionaries.
        strict: Refuse schemas that allow what they do not name. Arguments always follow the schema.

    Raises:
        InvalidInputError: One cannot be converted.
    """
    converted = []
    for number, tool in enumerate(tools, start=1):
        try:
            converted.append(convert_to_openai_tool(tool, strict=strict))
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidInputError(
                f"tool {number} cannot be converted: {error}. Give a tool, a function with type "
                "annotations and a docstring, a pydantic class, a TypedDict or a JSON schema"
            ) from error
    return converted


def check_choice(choice: Any, tools: Sequence[dict[str, Any]]) -> str:
    """Check a tool choice; `auto`, `any`, `none` or a name.

    Raises:
        InvalidInputError: It names no tool.
    """
    return read_tool_choice(choice, read_tools(tools))


def to_chunk(call: ToolCall) -> ToolCallChunk:
    """Make a chunk of a whole call: LangChain would complete the arguments of half a call."""
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return tool_call_chunk(name=call["name"], args=arguments, id=call["id"], index=None)


def to_invalid_chunk(call: InvalidToolCall) -> ToolCallChunk:
    """Make a chunk that LangChain reads as an invalid call, and does not complete."""
    text = call.text.strip()
    if text.startswith("{"):
        text = f"(incomplete) {text}"
    return tool_call_chunk(name=call.name or None, args=text, id=None, index=None)
