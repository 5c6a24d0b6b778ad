"""How a model is to answer a request: free or constrained, and how its answer is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finch_integrations.constraints import Constraint
from finch_integrations.engine.answer_parts import AnswerReader
from finch_integrations.engine.reasoning import find_thoughts, thinking_switch
from finch_integrations.engine.tool_format import find_tool_format
from finch_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine
    from finch_integrations.pipeline.ask import AskRequest


@dataclass(frozen=True, slots=True)
class Answering:
    """A plan for one answer.

    Attributes:
        constraint: What it must look like.
        chat_template_kwargs: Variables for the chat template.
        reader: Splits it into thoughts, text and calls.
    """

    constraint: Constraint | None
    chat_template_kwargs: Mapping[str, Any]
    reader: AnswerReader


def plan_answer(engine: "FinchEngine", request: "AskRequest") -> Answering:
    """Plan the answer to a request.

    Raises:
        InvalidInputError: The tool choice is no tool's name, or a constraint and tools contradict
            each other.
        ConfigurationError: The model's thoughts cannot be turned off.
    """
    tokenizer = engine.backbone.tokenizer
    kwargs = dict(request.chat_template_kwargs)
    if request.reasoning is not None:
        kwargs |= thinking_switch(tokenizer, request.reasoning)
    thoughts = find_thoughts(tokenizer, kwargs)
    if not request.tools:
        if request.tool_choice != "auto":
            raise InvalidInputError(
                f"tool_choice is {request.tool_choice!r}, but there are no tools. Give tools"
            )
        return Answering(request.constraint, kwargs, AnswerReader(thoughts))
    if request.constraint is not None:
        raise InvalidInputError(
            "an answer cannot follow a schema and call tools: give one of them. Agents may have "
            "the schema as a tool"
        )
    # Importing it imports llguidance's neighbours: only where there are tools.
    from finch_integrations.engine.tool_grammar import tool_constraint
    from finch_integrations.engine.tool_prompt import check_tools

    check_tools(request.tools)
    choice = request.tool_choice
    names = [tool["name"] for tool in request.tools]
    if choice not in ("auto", "any", *names):
        raise InvalidInputError(
            f"tool_choice must be 'auto', 'any', 'none' or the name of a tool, got {choice!r}; "
            f"the tools are {', '.join(names)}"
        )
    form = find_tool_format(tokenizer)
    constraint = tool_constraint(
        tokenizer,
        form,
        [tool for tool in request.tools if choice in ("auto", "any", tool["name"])],
        parallel=request.parallel_calls and choice in ("auto", "any"),
        required=choice != "auto",
    )
    return Answering(constraint, kwargs, AnswerReader(thoughts, form, names))
