"""What requests say about tools and about the form of an answer."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Object(BaseModel):
    # The texts under the fields describe them in the OpenAPI schema.
    model_config = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, populate_by_name=True
    )


class Function(_Object):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """The JSON schema of its arguments, which they always follow."""
    strict: bool | None = None
    """Changes nothing: arguments always follow the schema."""


class FunctionTool(_Object):
    """A tool."""

    type: Literal["function"]
    function: Function


class FunctionName(_Object):
    """One of the functions."""

    name: str


class NamedTool(_Object):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(_Object):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(_Object):
    """Any JSON object."""

    type: Literal["json_object"]


class AnswerSchema(_Object):
    """A JSON schema with a name."""

    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Changes nothing: the answer always follows the schema."""


class SchemaFormat(_Object):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: AnswerSchema


ToolChoice = Literal["none", "auto", "required"] | NamedTool
ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]
