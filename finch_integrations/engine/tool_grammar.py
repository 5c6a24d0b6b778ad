"""The grammar of tool calls in a chat template's format."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from finch_integrations.constraints import Constraint
from finch_integrations.engine.constraining import JSON_OPTIONS
from finch_integrations.engine.tool_format import ANY_ID, ToolFormat
from finch_integrations.errors import ConstraintError
from finch_integrations.json_schema import check_finite
from finch_integrations.schema_narrowing import prepare
from finch_integrations.types import Tool

# A model that cannot stop would call for ever.
_MOST_CALLS = 16


def tool_constraint(
    tokenizer: Any,
    form: ToolFormat,
    tools: Sequence[Tool],
    *,
    parallel: bool,
    required: bool,
    instead: Constraint | None = None,
) -> Constraint:
    """Constrain an answer to calls of tools, each with arguments that its schema allows.

    Args:
        tokenizer: Of the model; special tokens in the format are tokens in the grammar, too.
        form: How calls are written.
        tools: Those that may be called.
        parallel: Whether several calls may be made.
        required: Whether the answer must be calls; else it may be text, and calls after it.
        instead: The JSON schema that the answer follows if it is no call, where none is required.

    Raises:
        ConstraintError: A schema cannot be used, or they are too long together.
    """
    specials = {t.content: id for id, t in tokenizer.added_tokens_decoder.items() if t.special}
    begin, end = _literal(form.begin, specials), _literal(form.end, specials)
    more = ""
    if parallel and form.join is not None:
        more = f"({_literal(form.join, specials)} call){{0,{_MOST_CALLS - 1}}}"
    rules = [f"start: {begin} call {more} {end}"]
    if instead is not None and not required:
        if instead.kind != "json_schema":
            raise ConstraintError(
                "with tools an answer can follow only a JSON schema, not a "
                f"{instead.noun}. Leave the tools or the constraint out"
            )
        rules = [f"start: calls | answer\ncalls: {begin} call {more} {end}"]
        rules.append(f"answer: %json {_schema(json.loads(instead.text))}")
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        head = _literal(tool["name"] + form.between, specials)
        rules.append(f"call_{number}: {head} %json {_arguments(tool)}")
    return Constraint(
        "grammar",
        "\n".join(rules),
        trigger=None if required or instead is not None else form.marker,
        trigger_at_start=form.only_at_start,
    )


def _arguments(tool: Tool) -> str:
    parameters = dict(tool.get("parameters") or {})
    try:
        check_finite(parameters)
    except ConstraintError as error:
        raise ConstraintError(f"the parameters of the tool {tool['name']!r}: {error}") from error
    schema: dict[str, Any] = {"type": "object", "properties": {}, **parameters}
    if not schema["properties"]:
        schema.setdefault("additionalProperties", False)
    return _schema(schema)


def _schema(schema: Mapping[str, Any]) -> str:
    known = {**prepare(schema), "x-guidance": JSON_OPTIONS}
    return json.dumps(known, ensure_ascii=False)


def _literal(text: str, specials: Mapping[str, int]) -> str:
    """A text in the grammar's notation; special tokens by their ids."""
    special = "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or "(?!)"
    parts = re.split(f"({special}|{ANY_ID})", text)
    return " ".join(_part(part, specials) for part in parts if part)


def _part(part: str, specials: Mapping[str, int]) -> str:
    if part == ANY_ID:
        return "/[a-zA-Z0-9]{9}/"
    return f"<[{specials[part]}]>" if part in specials else json.dumps(part, ensure_ascii=False)
