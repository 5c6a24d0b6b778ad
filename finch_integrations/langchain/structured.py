"""Structured output: a model whose answers follow a schema, and the parser of its answers."""

import json
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from finch_integrations.constraints import Constraint
from finch_integrations.errors import ConfigurationError, InvalidInputError

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    model: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    options: dict[str, Any],
) -> Runnable[Any, Any]:
    """Make a runnable whose answers follow a schema.

    Args:
        model: Answers.
        schema: A pydantic class, a TypedDict or a JSON schema.
        method: `json_schema`: the answer is constrained to the schema, which the model is told.
            `function_calling`: it is the call of a tool. `json_mode`: the model is not told the
            schema, the prompt must say it; without a schema it is any JSON object.
        include_raw: Return the message and what went wrong, too.
        strict: As for tools.
        options: Further options of every call.

    Raises:
        ConfigurationError: The method is unknown.
        InvalidInputError: The schema cannot be used.
    """
    parser: OutputParserLike[Any]
    options = {**options, **_traced(schema, method)}
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if schema is None and method != "json_mode":
        raise InvalidInputError(f"the method {method!r} needs a schema. Give one")
    if method == "function_calling":
        name = _convert(convert_to_openai_tool, schema)["function"]["name"]
        bound = model.bind_tools(
            [schema], tool_choice=name, strict=strict, parallel_tool_calls=False, **options
        )
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    elif method == "json_schema":
        bound = model.bind(response_format=_response_format(schema), **options)
        parser = _text_parser(schema if is_class else None)
    elif method == "json_mode":
        known = {"type": "object"} if schema is None else _json_schema(schema)
        bound = model.bind(constraint=Constraint.json_schema(known), **options)
        parser = _text_parser(schema if is_class else None)
    else:
        raise ConfigurationError(
            f"method must be 'json_schema', 'function_calling' or 'json_mode', got {method!r}"
        )
    checked: Runnable[Any, Any] = RunnableGenerator(_refuse_cut, _arefuse_cut) | parser
    if not include_raw:
        return bound | checked
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | checked, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _traced(schema: Any, method: str) -> dict[str, Any]:
    """What LangChain's tracers read; it does not reach the model."""
    if schema is None:
        return {}
    described = {"kwargs": {"method": method}, "schema": _json_schema(schema)}
    return {"ls_structured_output_format": described}


def _text_parser(schema: type | None) -> BaseOutputParser[Any]:
    return JsonOutputParser() if schema is None else PydanticOutputParser(pydantic_object=schema)


def _response_format(schema: Any) -> dict[str, Any]:
    converted = _json_schema(schema)
    name = converted.get("title", "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": converted}}


def _json_schema(schema: Any) -> dict[str, Any]:
    return _convert(convert_to_json_schema, schema)


def _convert(convert: Any, schema: Any) -> dict[str, Any]:
    try:
        return dict(convert(schema))
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"this schema cannot be used: {error}. Give a pydantic class, a TypedDict or a JSON "
            f"schema with a title, got {schema!r:.200}"
        ) from error


def _check(message: AIMessage) -> None:
    """LangChain's parsers would complete JSON that was cut."""
    if message.response_metadata.get("finish_reason") == "length":
        text = str(message.text) or json.dumps([c["args"] for c in message.invalid_tool_calls])
        raise OutputParserException(
            "the answer was cut at max_tokens or at the model's window before its JSON was "
            "complete. Raise max_tokens, or ask for less",
            llm_output=text,
        )


def _refuse_cut(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    for message in messages:
        _check(message)
        yield message


async def _arefuse_cut(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        _check(message)
        yield message
