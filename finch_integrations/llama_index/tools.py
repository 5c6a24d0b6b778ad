"""Tools and calls as LlamaIndex has them."""

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from finch_integrations.errors import FinchError, InvalidInputError
from finch_integrations.types import ToolCall


def convert_tools(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """Convert tools to OpenAI's notation.

    Raises:
        InvalidInputError: One has no name or no schema.
    """
    try:
        return [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"a tool cannot be converted: {error}. Give tools with a name, a description and "
            "arguments, such as FunctionTool.from_defaults(function)"
        ) from error


def make_message(text: str, reasoning: str, calls: Sequence[ToolCall]) -> ChatMessage:
    """Make the assistant's message."""
    blocks: list[ContentBlock] = []
    if reasoning:
        blocks.append(ThinkingBlock(content=reasoning))
    blocks.append(TextBlock(text=text))
    blocks += [
        ToolCallBlock(
            tool_call_id=call["id"], tool_name=call["name"], tool_kwargs=dict(call["arguments"])
        )
        for call in calls
    ]
    extra = {"tool_calls": [_openai(call) for call in calls]} if calls else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=extra)


def read_calls(response: ChatResponse, *, required: bool) -> list[ToolSelection]:
    """Read the calls of a response.

    Args:
        response: Of this package's LLM.
        required: Whether there must be one.

    Raises:
        FinchError: There is none, and one is required.
    """
    calls = [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    if required and not calls:
        raw = response.raw if isinstance(response.raw, dict) else {}
        cut = ": it was cut at max_tokens" if raw.get("finish_reason") == "length" else ""
        raise FinchError(
            f"the model called no tool{cut}. Require one (tool_required=True), or raise max_tokens"
        )
    return calls


def _openai(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": function}
