"""What guides an answer: a constraint, and the marks of thoughts and calls that are shown in it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from finch_integrations.constraints import Constraint
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.constraining import make_matcher
from finch_integrations.engine.generate import Guide
from finch_integrations.engine.reasoning import find_thoughts
from finch_integrations.engine.tool_format import find_tool_format
from finch_integrations.errors import ConstraintError
from finch_integrations.types import Tool


def make_guide(
    backbone: Backbone,
    constraint: Constraint | None,
    tools: Sequence[Tool],
    chat_template_kwargs: Mapping[str, Any] | None,
) -> Guide:
    """Make what guides one answer.

    Args:
        backbone: The model.
        constraint: What the answer must look like; None: anything.
        tools: What the model may call.
        chat_template_kwargs: Variables for the chat template.

    Raises:
        ConstraintError: The constraint cannot be compiled; says which part.
        MissingExtraError: There is a constraint, and llguidance is not installed.
    """
    tokenizer = backbone.tokenizer
    thoughts = find_thoughts(tokenizer, chat_template_kwargs)
    shown = [*thoughts.marks]
    if tools:
        form = find_tool_format(tokenizer)
        shown += [form.begin, form.between, form.join or "", form.end]
    matcher = None
    if constraint is not None:
        vocabulary = backbone.model.get_output_embeddings().weight.shape[0]
        make = partial(
            make_matcher,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            stop=backbone.stop_tokens,
            thoughts=thoughts,
        )
        try:
            matcher = make(constraint)
        except ConstraintError:
            for tool in tools:  # which one is it?
                try:
                    make(Constraint.json_schema(tool.get("parameters") or {"type": "object"}))
                except ConstraintError as error:
                    raise ConstraintError(
                        f"the parameters of the tool {tool['name']!r}: {error}"
                    ) from error
            raise
    return Guide(matcher, tuple(filter(None, shown)))
