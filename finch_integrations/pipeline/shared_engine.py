"""A model by its settings: loaded when first used, shared by all that name the same one."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, aclosing, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from finch_integrations.engine import registry
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.ask import (
    AnswerDetails,
    AnswerPiece,
    AskRequest,
    Progress,
    ask,
    read_ahead,
)
from finch_integrations.pipeline.loaded_model import as_engine, refuse_settings
from finch_integrations.pipeline.needs import bytes_needed, free_bytes
from finch_integrations.pipeline.waiting import Waiting, waiting_for
from finch_integrations.pipeline.worker import PLACES, Check, worker_of

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine
    from finch_integrations.engine.passage_store import PassageStore

Item = TypeVar("Item")
# What runs in a thread of the model's, given the engine and, as `check`, a function that raises
# when nobody waits any more.
Task = Callable[..., Generator[Item, None, None]]

_SECRET = ("token",)
_scoring = threading.Lock()


class SharedEngine:
    """Names a model; making, copying and pickling one loads and copies no weights.

    Questions to one model begin in the order of the calls and are answered together, in threads of
    the model's own.

    Example:
        shared = SharedEngine("embedded")
        request = AskRequest(messages=({"role": "user", "content": "Hello!"},))
        for piece in shared.stream(request):
            print(piece.text, end="")

    Attributes:
        name: The model's.
        scorer: The model that chooses the passages instead, or None.
    """

    takes_documents = True
    scorer: "SharedEngine | None" = None
    # Of a ready model: the same with its scorer, and what ends the scorer's lease.
    _scored: "FinchEngine | None" = None
    _end_scorer: "weakref.finalize[[], Any] | None" = None

    def __init__(
        self,
        model: Any = "embedded",
        tokenizer: Any = None,
        *,
        revision: str | None = None,
        device: Any = None,
        dtype: Any = "auto",
        model_kwargs: Mapping[str, Any] | None = None,
        scorer: Any = None,
        store: "PassageStore | None" = None,
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
            scorer: A smaller model that chooses the passages: anything that `model` may be, a
                name meaning that model in the same device and dtype; or a `SharedEngine`.
            store: Keeps what the model that reads has read of passages; None: one in memory.

        Raises:
            ConfigurationError: The arguments contradict each other.
            UnsupportedModelError: A ready model cannot be compressed for.
        """
        settings = {"revision": revision, "device": device, "dtype": dtype}
        self._store = store
        self._settings = {**settings, **(model_kwargs or {})}
        self._ready: FinchEngine | None = None
        if isinstance(model, str | Path):
            if tokenizer is not None:
                raise ConfigurationError(
                    "a tokenizer goes with a ready model, but the model is given by its name "
                    f"({str(model)!r}). Leave the tokenizer out; the model's own is used"
                )
            self.name = str(model)
        else:
            refuse_settings({**settings, "model_kwargs": model_kwargs, "store": store})
            self._ready = as_engine(model, tokenizer)
            self.name = self._ready.backbone.name
        self._model = model
        if scorer is not None:
            self._set_scorer(scorer)

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any = None, *, scorer: Any = None, **settings: Any
    ) -> "SharedEngine":
        """Take a `SharedEngine` as it is, or make one.

        Args:
            model: A `SharedEngine`, or what the constructor takes.
            tokenizer: As for the constructor.
            scorer: As for the constructor; also one for a `SharedEngine` that has none.
            settings: As for the constructor; not for a `SharedEngine`, which has its own.

        Raises:
            ConfigurationError: The arguments contradict each other.
            UnsupportedModelError: A ready model cannot be compressed for.
        """
        if not isinstance(model, SharedEngine):
            return cls(model, tokenizer, scorer=scorer, **settings)
        refuse_settings(settings)
        if tokenizer is not None:
            raise ConfigurationError("a SharedEngine has its tokenizer; leave tokenizer out")
        if scorer is None:
            return model
        scored = object.__new__(cls)
        vars(scored).update(vars(model))
        scored._set_scorer(scorer)
        return scored

    @property
    def engine(self) -> "FinchEngine":
        """The engine; loads the model if this process has not done so yet.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: A setting is wrong, or a ready engine has been closed.
        """
        if self._ready is None:
            return registry.share(self._key, self.lease)
        if self.scorer is None:
            return self._ready
        return self._scored or self._make_scored(self._ready, self.scorer)

    @property
    def loaded(self) -> "FinchEngine | None":
        """The engine if the model is in memory, else None; a ready one as it was given."""
        return self._ready or registry.find(self._key)

    @property
    def label(self) -> str:
        """The name; of a model that was given loaded, with what tells it from others."""
        if self._ready is None:
            return self.name
        return f"{self.name} {self._ready.backbone.fingerprint.rpartition('-')[2][:8]}"

    @property
    def has_scorer(self) -> bool:
        """Whether another model chooses the passages."""
        return self.scorer is not None or bool(self._ready and self._ready.scorer)

    @property
    def identity(self) -> str:
        """Distinguishes models with different answers, without loading one; contains no secrets."""
        scorer = self.scorer.identity if self.scorer else None
        if self._ready is not None:
            engine = self._ready
            if engine.scorer is not None:
                scorer = engine.scorer.backbone.fingerprint
            facts = (engine.backbone.fingerprint, scorer, engine.compression, engine.sampling)
            return " ".join(map(str, facts))
        settings = without_secrets(self._settings)
        return repr((str(self._model), sorted(settings.items()), scorer))

    def count_tokens(self, text: str) -> int:
        """Measure a text in the model's tokens; loads the model if necessary."""
        return self.engine.count_tokens(text)

    def bytes_needed(self, request: AskRequest) -> int:
        """Bytes of keys and values that a request needs at most; loads the model if necessary.

        Raises:
            ConfigurationError: An option of the request is wrong.
        """
        return bytes_needed(self.engine, request)

    def free_bytes(self) -> int:
        """Memory that is free where the model runs; loads the model if necessary."""
        return free_bytes(self.engine)

    def named(self, model: object, revision: str | None = None) -> "SharedEngine":
        """This one, or one of another model on the same device with the same scorer.

        Args:
            model: Name or path of the other model; None: this one.
            revision: Of the hub model; None: this one's, or another model's default.

        Raises:
            ConfigurationError: It is something else, or a loaded model cannot have the revision.
        """
        model = self.name if model is None else model
        if model == self.name and revision in (None, self._settings["revision"]):
            return self
        if model == self.name and self._ready is not None:
            raise ConfigurationError(
                f"revision={revision!r} cannot be applied to a model that is already loaded"
            )
        if not isinstance(model, str | Path):
            raise ConfigurationError(
                f"model=… of a call must name a model, got {type(model).__name__}. "
                "A loaded model is given to the constructor"
            )
        # The revision belongs to this model only.
        settings = {**self._settings, "revision": revision}
        return SharedEngine(model, model_kwargs=settings, scorer=self.scorer)

    def stream(
        self, request: AskRequest, *, progress: Progress | None = None, keep_context: bool = False
    ) -> Generator[AnswerPiece, None, None]:
        """Answer in a thread of the model's; closing it stops the work.

        Args:
            request: What to answer.
            progress: Called there after every chunk of the compression.
            keep_context: Whether the details include the compressed documents.

        Raises:
            FinchError: As `engine` and `ask` raise it.
        """
        waiting = waiting_for((self.loaded or self.engine).backbone.model)
        with waiting.queue(request) as (turn,):
            task = partial(
                ask, request=request, progress=progress, keep_context=keep_context, turn=turn
            )
            with closing(self.run(task)) as pieces:
                yield from pieces

    async def astream(
        self, request: AskRequest, *, progress: Progress | None = None, keep_context: bool = False
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Like `stream` without blocking the event loop; cancelling the task stops the work."""
        waiting = waiting_for((await self._aload()).backbone.model)
        with waiting.queue(request) as (turn,):
            task = partial(
                ask, request=request, progress=progress, keep_context=keep_context, turn=turn
            )
            async with aclosing(self.arun(task)) as pieces:
                async for piece in pieces:
                    yield piece

    def answer_all(
        self, requests: Sequence[AskRequest], *, keep_context: bool = False
    ) -> list[AnswerDetails]:
        """Answer several requests together; for those over the same documents these are read once.

        Args:
            requests: What to answer.
            keep_context: Whether the details include the compressed documents.

        Raises:
            FinchError: As `engine` and `ask` raise it, for the first request that fails.
        """
        task = partial(_answering, requests=requests, keep_context=keep_context)
        with closing(self.run(task)) as answers:
            return list(answers)

    async def aanswer_all(
        self, requests: Sequence[AskRequest], *, keep_context: bool = False
    ) -> list[AnswerDetails]:
        """Like `answer_all` without blocking the event loop; cancelling stops the work."""
        task = partial(_answering, requests=requests, keep_context=keep_context)
        async with aclosing(self.arun(task)) as answers:
            return [answer async for answer in answers]

    def read_ahead(self, request: AskRequest, *, progress: Progress | None = None) -> int:
        """Read a request's documents in a thread of the model's, before a question is asked.

        Args:
            request: With documents; its question does not matter.
            progress: Called there after every batch; an exception that it raises ends the reading.

        Returns:
            How many document tokens were read.

        Raises:
            FinchError: As `FinchEngine.read_ahead` raises it.
        """
        task = partial(read_ahead, request=request, progress=progress)
        with closing(self.run(task)) as counts:
            return next(counts)

    def run(self, task: Task[Item]) -> Generator[Item, None, None]:
        """Run a generator in a thread of the model's.

        Args:
            task: Makes the generator; it gets the engine and, as `check`, a function that lets
                others go on and raises when nobody waits any more.

        Raises:
            FinchError: As `engine` and the task raise it.
        """
        worker = worker_of((self.loaded or self.engine).backbone.model)
        return worker.stream(lambda check: task(self.engine, check=check))

    async def arun(self, task: Task[Item]) -> AsyncGenerator[Item, None]:
        """Like `run`, without blocking the event loop; cancelling the task stops the work."""
        worker = worker_of((await self._aload()).backbone.model)
        async with aclosing(worker.astream(lambda check: task(self.engine, check=check))) as items:
            async for item in items:
                yield item

    def close(self) -> None:
        """Unload the model for everyone in this process; the next use loads it again.

        A loaded model that was given is for its owner to close; it is not changed. A scorer that
        others use, too, stays loaded.
        """
        registry.unload(self._key)
        if self._end_scorer is not None:
            self._scored = None
            self._end_scorer()

    def lease(self, leases: ExitStack) -> "FinchEngine":
        """Get an engine that no one else closes.

        Args:
            leases: Ends the engine's leases when it is closed.
        """
        if self._ready is not None:
            return self.engine
        from finch_integrations.engine.engine import FinchEngine

        scorer = self.scorer.lease(leases) if self.scorer else None
        engine = FinchEngine.from_pretrained(
            self._model, scorer=scorer, store=self._store, **self._settings
        )
        return leases.enter_context(engine)

    def _set_scorer(self, scorer: Any) -> None:
        if self.has_scorer:
            raise ConfigurationError(
                f"two scorers are given: {scorer!r}, and {self!r} has one. Give one"
            )
        if isinstance(scorer, str | Path):
            scorer = SharedEngine(scorer, store=self._store, **self._place)
        scorer = SharedEngine.of(scorer)
        if scorer.has_scorer:
            raise ConfigurationError(f"the scorer {scorer!r} has a scorer, which would do nothing")
        self.scorer = scorer

    @property
    def _place(self) -> dict[str, Any]:
        if self._ready is None:
            return {name: self._settings[name] for name in ("device", "dtype")}
        return {"device": self._ready.backbone.device, "dtype": self._ready.backbone.model.dtype}

    def _make_scored(self, ready: "FinchEngine", scorer: "SharedEngine") -> "FinchEngine":
        from finch_integrations.engine.engine import FinchEngine

        with _scoring, ExitStack() as leases:
            if self._scored is None:
                self._scored = FinchEngine(
                    ready.backbone.model,
                    ready.backbone.tokenizer,
                    compression=ready.compression,
                    sampling=ready.sampling,
                    scorer=scorer.lease(leases),
                )
                self._end_scorer = weakref.finalize(self, leases.pop_all().close)
                self._end_scorer.atexit = False
            return self._scored

    async def _aload(self) -> "FinchEngine":
        # Loading, and importing torch before that, would block the event loop.
        engine = self.loaded
        return await asyncio.to_thread(lambda: self.engine) if engine is None else engine

    @property
    def _key(self) -> str:
        """Equal for equal settings; an engine that was given has its own key."""
        scorer = self.scorer._key if self.scorer else None
        if self._ready is not None:
            return f"ready {id(self._ready)} {scorer}"
        store = "" if self._store is None else id(self._store)
        return repr((str(self._model), sorted(self._settings.items()), scorer, store))

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
                f"{self!r} has loaded weights and cannot be pickled. "
                "Name the model (a folder or hub id) instead of passing a loaded one"
            )
        return vars(self)


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what must not be stored, logged or shown."""
    return {name: value for name, value in settings.items() if name not in _SECRET}


def _answering(
    engine: "FinchEngine", requests: Sequence[AskRequest], keep_context: bool, check: Check
) -> Generator[AnswerDetails, None, None]:
    """Answer requests in turns, so that the steps of their answers are run together."""
    answers: dict[int, AnswerDetails] = {}
    with Waiting().queue(*requests) as turns, ExitStack() as ending:
        running: dict[int, Generator[AnswerPiece, None, None]] = {}
        waiting = enumerate(zip(requests, turns, strict=True))
        while len(answers) < len(requests):
            for number, (request, turn) in islice(waiting, PLACES - len(running)):
                pieces = ask(engine, request, keep_context=keep_context, turn=turn, check=check)
                running[number] = ending.enter_context(closing(pieces))
            for number, pieces in list(running.items()):
                if (details := next(pieces).details) is not None:
                    answers[number] = details
                    del running[number]
            check()
    yield from (answers[number] for number in range(len(requests)))
