"""What requests say about tools and about the form of an answer."""

from typing import Annotated, Any, Literal

from pydantic import Field

from finch_integrations.serve.strict import Strict


class Function(Strict):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """The JSON schema of its arguments, which they always follow."""
    strict: bool | None = None
    """Changes nothing: arguments always follow the schema."""


class FunctionTool(Strict):
    """A tool."""

    type: Literal["function"]
    function: Function


class FlatFunctionTool(Function):
    """A tool, as `/v1/responses` takes it."""

    type: Literal["function"]


class FunctionName(Strict):
    """One of the functions."""

    name: str


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class FlatNamedTool(FunctionName):
    """The tool that must be called, as `/v1/responses` takes it."""

    type: Literal["function"]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class AnswerSchema(Strict):
    """A JSON schema with a name."""

    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Changes nothing: the answer always follows the schema."""


class SchemaFormat(Strict):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: AnswerSchema


class FlatSchemaFormat(AnswerSchema):
    """JSON that follows a schema, as `/v1/responses` takes it."""

    type: Literal["json_schema"]


ToolChoice = Literal["none", "auto", "required"] | NamedTool
FlatToolChoice = Literal["none", "auto", "required"] | FlatNamedTool
ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]
FlatResponseFormat = Annotated[
    TextFormat | ObjectFormat | FlatSchemaFormat, Field(discriminator="type")
]
