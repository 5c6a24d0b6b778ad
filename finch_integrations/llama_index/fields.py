"""Types of fields that are stored with LlamaIndex's settings."""

from typing import Annotated, Any

from llama_index.core.bridge.pydantic import PlainSerializer

from finch_integrations.pipeline.shared_engine import without_secrets


def _name(value: Any) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")


# A device or dtype, stored by its name.
ByName = Annotated[Any, PlainSerializer(_name)]
# What `from_pretrained` gets, stored without secrets.
ModelKwargs = Annotated[dict[str, Any], PlainSerializer(without_secrets)]
