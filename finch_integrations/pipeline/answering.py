"""How a model is to answer a request: free or constrained, and how its answer is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finch_integrations.constraints import Constraint
from finch_integrations.engine.answer_parts import AnswerReader
from finch_integrations.engine.reasoning import find_thoughts, thinking_switch
from finch_integrations.engine.tool_format import find_tool_format
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine


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


def plan_answer(
    engine: "FinchEngine", options: AnswerOptions, chat_template_kwargs: Mapping[str, Any]
) -> Answering:
    """Plan an answer.

    Args:
        engine: Writes it.
        options: What it may consist of.
        chat_template_kwargs: Variables for the chat template.

    Raises:
        InvalidInputError: The tool choice is no tool's name, or a constraint that is no JSON schema
            is given together with tools.
        ConfigurationError: The model's thoughts cannot be turned off.
    """
    tokenizer = engine.backbone.tokenizer
    kwargs = dict(chat_template_kwargs)
    if options.reasoning is not None:
        kwargs |= thinking_switch(tokenizer, options.reasoning)
    thoughts = find_thoughts(tokenizer, kwargs)
    if not options.tools:
        if options.tool_choice != "auto":
            raise InvalidInputError(
                f"tool_choice is {options.tool_choice!r}, but there are no tools. Give tools"
            )
        return Answering(options.constraint, kwargs, AnswerReader(thoughts))
    # With torch: imported only where there are tools.
    from finch_integrations.engine.tool_grammar import tool_constraint
    from finch_integrations.engine.tool_prompt import check_tools

    check_tools(options.tools)
    choice = options.tool_choice
    names = [tool["name"] for tool in options.tools]
    if choice not in ("auto", "any", *names):
        raise InvalidInputError(
            f"tool_choice must be 'auto', 'any', 'none' or the name of a tool, got {choice!r}; "
            f"the tools are {', '.join(names)}"
        )
    form = find_tool_format(tokenizer)
    parallel = options.parallel_calls
    constraint = tool_constraint(
        tokenizer,
        form,
        [tool for tool in options.tools if choice in ("auto", "any", tool["name"])],
        parallel=choice == "auto" if parallel is None else parallel,
        required=choice != "auto",
        instead=options.constraint,
    )
    return Answering(constraint, kwargs, AnswerReader(thoughts, form, names))
