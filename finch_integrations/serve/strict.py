"""The base of all that requests consist of."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """An object without unknown fields, whose values are of the types that they should be."""

    # The texts under the fields describe them in the OpenAPI schema.
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
