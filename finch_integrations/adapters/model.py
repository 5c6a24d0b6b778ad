"""The options that say which model an adapter uses, and how that compresses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from finch_integrations.config import CompressionConfig
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.options import (
    BUDGETS,
    check_compression,
    split_compression,
    with_known_names,
)
from finch_integrations.pipeline.shared_engine import SharedEngine, without_secrets


def _name(value: Any) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")


def _name_of_model(value: str | SharedEngine | None) -> str | None:
    return value.name if isinstance(value, SharedEngine) else value


# A device or dtype, stored by its name.
ByName = Annotated[Any, PlainSerializer(_name)]
# What `from_pretrained` gets, stored without secrets.
ModelKwargs = Annotated[dict[str, Any], PlainSerializer(without_secrets)]
Scorer = Annotated[str | SharedEngine | None, PlainSerializer(_name_of_model)]


class Adapter(BaseModel):
    """Uses a model that all adapters of a process share; constructing one loads nothing.

    Put it before the framework's own class among the bases.

    Attributes:
        model: `embedded`, a folder, a `.gguf` file or a hub id. A loaded transformers model
            (with `tokenizer=`) or a `FinchEngine` is also accepted; it is then in `engine`.
        engine: A model that is already loaded, or a `SharedEngine`, instead of `model`.
        revision: Of a hub model.
        device: Default: the accelerator if there is one.
        dtype: Default: by device.
        model_kwargs: Passed to transformers' `from_pretrained`.
        scorer: A smaller model that chooses the passages, so that `model` reads only those: a name
            (on the same device), a loaded model or a `SharedEngine`. With `engine` it is put there.
        target_size: Document tokens to keep; `auto`: as many as the passages' scores call for.
        compression_ratio: Fraction of the document tokens to remove, instead of `target_size`.
        max_kv_bytes: Size of the cache in bytes, instead of `target_size`.
        compression: Further fields of `CompressionConfig`; or one, with or without a budget.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model: str = "embedded"
    engine: SharedEngine | None = Field(default=None, exclude=True, repr=False)
    revision: str | None = None
    device: ByName = None
    dtype: ByName = "auto"
    model_kwargs: ModelKwargs = Field(default_factory=dict, repr=False)
    scorer: Scorer = None
    target_size: int | Literal["auto"] | None = None
    compression_ratio: float | None = None
    max_kv_bytes: int | None = None
    compression: dict[str, Any] = Field(default_factory=dict)

    @property
    def handle(self) -> SharedEngine:
        """The shared engine of the fields as they are now: copies and assignments may change them.

        Raises:
            ConfigurationError: The fields contradict each other.
        """
        settings = {
            "revision": self.revision,
            "device": self.device,
            "dtype": self.dtype,
            "model_kwargs": self.model_kwargs,
        }
        if self.engine is not None:
            _refuse_two_models(self.model, self.engine)
        return SharedEngine.of(self.engine or self.model, scorer=self.scorer, **settings)

    def warm_up(self) -> Self:
        """Load the model now instead of at the first call.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
        """
        _ = self.handle.engine
        return self

    def close(self) -> None:
        """Unload the model for all its users in this process; the next call loads it again."""
        self.handle.close()

    @model_validator(mode="before")
    @classmethod
    def _take_arguments(cls, values: Any) -> Any:
        return cls._arguments(values) if isinstance(values, Mapping) else values

    @classmethod
    def _arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse unknown options; wrap loaded models in shared engines, which are never copied."""
        known = [*cls.model_fields, "tokenizer"]
        values = with_known_names(values, known, owner=cls.__name__)
        return _with_budget(_with_handles(values))

    @model_validator(mode="after")
    def _check_when_made(self) -> Self:
        self._check_options()
        return self

    def _check_options(self) -> None:
        """Raise for wrong values now, not at the first call."""
        self._compression()

    def _compression(self) -> dict[str, Any]:
        """The compression options as the engine takes them."""
        own = {name: value for name, value in self._budgets().items() if value is not None}
        return check_compression({**self.compression, **own}, has_scorer=self.handle.has_scorer)

    def _budgets(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in sorted(BUDGETS)}

    def __getstate__(self) -> dict[Any, Any]:
        for shared in (self.engine, self.scorer):
            if isinstance(shared, SharedEngine):
                shared.__getstate__()  # raises if it holds weights; LlamaIndex would drop them
        return super().__getstate__()


def _with_handles(values: dict[str, Any]) -> dict[str, Any]:
    """Turn what a constructor was given into the model's name and a shared engine or None."""
    tokenizer = values.pop("tokenizer", None)
    model, engine, scorer = (values.pop(name, None) for name in ("model", "engine", "scorer"))
    if not isinstance(model, str | Path | None):
        if engine is not None:
            raise ConfigurationError("a loaded model is given twice: as model and as engine")
        model, engine = None, model
    if engine is not None:
        shared = SharedEngine.of(engine, tokenizer, scorer=scorer)
        if model is not None:
            _refuse_two_models(str(model), shared)
        return {**values, "model": shared.name, "engine": shared}
    name = "embedded" if model is None else str(model)
    if tokenizer is not None:
        SharedEngine(name, tokenizer)  # says that a name needs no tokenizer
    if scorer is not None and not isinstance(scorer, str):
        scorer = str(scorer) if isinstance(scorer, Path) else SharedEngine.of(scorer)
    return {**values, "model": name, "scorer": scorer}


def _with_budget(values: dict[str, Any]) -> dict[str, Any]:
    """Put the budget of a configuration where it has a field of its own."""
    compression = values.get("compression")
    if not isinstance(compression, CompressionConfig | Mapping):
        return values
    inside, further = split_compression(compression)
    direct = [name for name in sorted(BUDGETS) if values.get(name) is not None]
    if inside and direct:
        raise ConfigurationError(
            f"give one budget, got {', '.join(direct)} and, inside compression=…, "
            f"{', '.join(inside)}"
        )
    return {**values, **inside, "compression": further}


def _refuse_two_models(name: str, engine: SharedEngine) -> None:
    if name != engine.name:
        raise ConfigurationError(f"two models are given: {name!r} and {engine!r}. Give one")
