"""A model by its settings: loaded when first used, shared by all who name the same one."""

import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.ask import AnswerPiece, AskRequest, ask
from finch_integrations.pipeline.shorten import ShortenedDocument, shorten
from finch_integrations.pipeline.worker import Check, Work, worker
from finch_integrations.types import Document

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine

# Kept until `close`: adapters are made anew all the time, models must not be loaded anew.
_engines: dict[str, "FinchEngine"] = {}
_guard = threading.Lock()
_SECRET = ("token",)


class SharedEngine:
    """Names a model; making, copying and pickling a handle loads and copies no weights.

    Example:
        handle = SharedEngine("embedded")
        request = AskRequest(messages=({"role": "user", "content": "Hello!"},))
        for piece in handle.stream(request):
            print(piece.text, end="")
    """

    def __init__(
        self,
        model: Any = "embedded",
        tokenizer: Any = None,
        *,
        revision: str | None = None,
        device: Any = None,
        dtype: Any = "auto",
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a model's settings, or a model that is already loaded.

        Args:
            model: `embedded`, a folder, a `.gguf` file or a hub id; or a ready `FinchEngine`; or
                a ready transformers model, together with its tokenizer.
            tokenizer: Of a ready transformers model.
            revision: Of a hub model.
            device: Default: the accelerator if there is one.
            dtype: Default: by device.
            model_kwargs: Passed to transformers' `from_pretrained`.

        Raises:
            ConfigurationError: The arguments contradict each other.
            UnsupportedModelError: A ready model cannot be compressed for.
        """
        self._settings = {
            "revision": revision,
            "device": device,
            "dtype": dtype,
            **(model_kwargs or {}),
        }
        self._ready: FinchEngine | None = None
        if isinstance(model, str | Path):
            if tokenizer is not None:
                raise ConfigurationError(
                    "a tokenizer goes with a ready model, but the model is given by its name "
                    f"({str(model)!r}). Leave the tokenizer out; the model's own is used"
                )
            self.name = str(model)
        else:
            self._ready = _ready_engine(model, tokenizer, self._settings)
            self.name = self._ready.backbone.name
        self._model = model

    @property
    def engine(self) -> "FinchEngine":
        """The engine; loads the model if this process has not done so yet.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: A setting is wrong, or a ready engine has been closed.
        """
        if self._ready is not None:
            return self._ready
        with _guard:
            engine = _engines.get(self._key)
        if engine is None:
            from finch_integrations.engine.engine import FinchEngine

            loaded = FinchEngine.from_pretrained(self._model, **self._settings)
            with _guard:
                engine = _engines.setdefault(self._key, loaded)
            if engine is not loaded:  # another thread was faster; both share the weights
                loaded.close()
        return engine

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._ready is not None or self._key in _engines

    @property
    def identity(self) -> str:
        """Tells models with different answers apart, without loading one; holds no secrets."""
        if self._ready is not None:
            engine = self._ready
            models = [engine, engine.scorer] if engine.scorer else [engine]
            fingerprints = " ".join(model.backbone.fingerprint for model in models)
            return f"{fingerprints} {engine.compression} {engine.sampling}"
        settings = without_secrets(self._settings)
        return repr((str(self._model), sorted(settings.items())))

    def count_tokens(self, text: str) -> int:
        """Measure a text in the model's tokens; loads the model if need be."""
        tokenizer = self.engine.backbone.tokenizer
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def named(self, model: object) -> "SharedEngine":
        """This handle, or one of another model on the same device.

        Args:
            model: Name or path of the other model; None: this one.

        Raises:
            ConfigurationError: It is something else.
        """
        if model is None or model == self.name:
            return self
        if not isinstance(model, str | Path):
            raise ConfigurationError(
                f"model=… of a call must name a model, got {type(model).__name__}. "
                "A loaded model is given to the constructor"
            )
        # The revision is of this model alone.
        return SharedEngine(model, model_kwargs={**self._settings, "revision": None})

    def stream(self, request: AskRequest) -> Generator[AnswerPiece, None, None]:
        """Answer in the worker thread, after all earlier requests; closing it stops the work.

        Raises:
            FinchError: As `engine` and `ask` raise it.
        """
        return worker.stream(lambda check: self._ask(request, check))

    def astream(self, request: AskRequest) -> AsyncGenerator[AnswerPiece, None]:
        """Like `stream` without blocking the event loop; cancelling the task stops the work."""
        return worker.astream(lambda check: self._ask(request, check))

    def shorten(
        self, documents: Sequence[Document], query: str, compression: Mapping[str, Any]
    ) -> tuple[ShortenedDocument, ...]:
        """Shorten documents in the worker thread, after all earlier requests.

        Raises:
            FinchError: As `engine` and `shorten` raise it.
        """
        with closing(worker.stream(self._shortening(documents, query, compression))) as results:
            return next(results)

    async def ashorten(
        self, documents: Sequence[Document], query: str, compression: Mapping[str, Any]
    ) -> tuple[ShortenedDocument, ...]:
        """Like `shorten` without blocking the event loop; cancelling the task stops the work."""
        results = worker.astream(self._shortening(documents, query, compression))
        async with aclosing(results):
            return await anext(results)

    def close(self) -> None:
        """Unload the model for everyone in this process; the next use loads it again.

        A ready model is its owner's to close and stays as it is.
        """
        with _guard:
            engine = _engines.pop(self._key, None)
        if engine is not None:
            engine.close()

    def _ask(self, request: AskRequest, check: Check) -> Generator[AnswerPiece, None, None]:
        yield from ask(self.engine, request, check)

    def _shortening(
        self, documents: Sequence[Document], query: str, compression: Mapping[str, Any]
    ) -> Work[tuple[ShortenedDocument, ...]]:
        def work(check: Check) -> Generator[tuple[ShortenedDocument, ...], None, None]:
            yield shorten(self.engine, documents, query, compression, check)

        return work

    @property
    def _key(self) -> str:
        """Equal for equal settings; a ready engine has a key of its own."""
        if self._ready is not None:
            return f"ready {id(self._ready)}"
        return repr((str(self._model), sorted(self._settings.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedEngine) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"SharedEngine({self.name!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        if self._ready is not None:
            raise ConfigurationError(
                f"{self!r} holds loaded weights and cannot be pickled. "
                "Name the model (a folder or hub id) instead of handing it over loaded"
            )
        return vars(self)


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what must not be stored, logged or shown."""
    return {name: value for name, value in settings.items() if name not in _SECRET}


def resolve_model(model: Any, tokenizer: Any, engine: Any) -> tuple[str, SharedEngine | None]:
    """Sort what a constructor was given into a name and a handle.

    Args:
        model: A name or path, or a loaded model; None: `embedded`.
        tokenizer: Of a loaded transformers model, or None.
        engine: A loaded model or a handle, or None.

    Returns:
        The model's name, and a handle if a loaded model or a handle was given. Adapters keep the
        handle in the model's place, because it is never copied.

    Raises:
        ConfigurationError: The arguments contradict each other.
        UnsupportedModelError: A loaded model cannot be compressed for.
    """
    if not isinstance(model, str | Path | None):
        if engine is not None:
            raise ConfigurationError("a loaded model is given twice: as model and as engine")
        model, engine = None, model
    name = "embedded" if model is None else str(model)
    if tokenizer is not None and isinstance(engine, SharedEngine | None):
        engine = SharedEngine(name, tokenizer)  # says that a name needs no tokenizer
    if engine is None:
        return name, None
    if not isinstance(engine, SharedEngine):
        engine = SharedEngine(engine, tokenizer)
    if model is not None:
        _refuse_two_models(name, engine)
    return engine.name, engine


class NamesModel(Protocol):
    """An adapter's fields: the model's name, a handle or None, and how to load the model.

    A `revision` is optional.
    """

    model: str
    engine: SharedEngine | None
    device: Any
    dtype: Any
    model_kwargs: dict[str, Any]


def handle_of(adapter: NamesModel) -> SharedEngine:
    """Take the handle that an adapter was given, or make one of its model's name.

    Args:
        adapter: Its `engine` is as `resolve_model` returned it.

    Raises:
        ConfigurationError: Settings, or the name of another model, are given together with a
            handle.
    """
    settings = {
        "revision": getattr(adapter, "revision", None),
        "device": adapter.device,
        "dtype": adapter.dtype,
        "model_kwargs": adapter.model_kwargs,
    }
    if adapter.engine is None:
        return SharedEngine(adapter.model, **settings)
    _refuse_settings(settings)
    _refuse_two_models(adapter.model, adapter.engine)
    return adapter.engine


def _refuse_settings(settings: Mapping[str, Any]) -> None:
    if given := [name for name, value in settings.items() if value not in (None, "auto", {})]:
        raise ConfigurationError(
            f"{', '.join(given)} cannot be applied to a model that is already loaded. "
            "Leave it out, or name the model instead of handing it over"
        )


def _refuse_two_models(name: str, engine: SharedEngine) -> None:
    if name != engine.name:
        raise ConfigurationError(f"two models are given: {name!r} and {engine!r}. Give one")


def _ready_engine(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> "FinchEngine":
    from finch_integrations.engine.engine import FinchEngine

    _refuse_settings(settings)
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
