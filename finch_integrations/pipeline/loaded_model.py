"""Models that the caller has loaded: what counts as one, and which options come too late for it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finch_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine


def as_engine(model: Any, tokenizer: Any = None) -> "FinchEngine":
    """Take a `FinchEngine` as it is, or make one of a transformers model and its tokenizer.

    Raises:
        ConfigurationError: It is neither, or the tokenizer is missing or superfluous.
        UnsupportedModelError: The model cannot be compressed for.
    """
    from finch_integrations.engine.engine import FinchEngine

    if isinstance(model, FinchEngine):
        if tokenizer is not None:
            raise ConfigurationError("a FinchEngine has its tokenizer; leave tokenizer out")
        return model
    if not hasattr(model, "config"):
        raise ConfigurationError(
            "model must be a name, a folder, a .gguf file, a FinchEngine or a loaded "
            f"transformers model, got {type(model).__name__}"
        )
    if tokenizer is None:
        raise ConfigurationError("a loaded transformers model needs its tokenizer: tokenizer=…")
    return FinchEngine(model, tokenizer)


def refuse_settings(settings: Mapping[str, Any]) -> None:
    """Refuse options for loading if the model is already loaded.

    Raises:
        ConfigurationError: A setting is given.
    """
    if given := [name for name, value in settings.items() if value not in (None, "auto", {})]:
        raise ConfigurationError(
            f"{', '.join(given)} cannot be applied to a model that is already loaded. "
            "Leave it out, or name the model instead of passing a loaded one"
        )
