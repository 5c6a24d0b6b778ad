"""Answering requests with one model: the queue's limit, time limits, retrieval, numbers."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest, Progress
from finch_integrations.pipeline.rag import Retriever
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.retrieval.encoders import Encoder
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.memory import Room
from finch_integrations.serve.metrics import Metrics
from finch_integrations.serve.settings import ServerSettings
from finch_integrations.types import CompressionProgress

# Which of a request's answers it is of, and what happened.
Event = tuple[int, CompressionProgress | AnswerPiece]

# What requests may have of the memory that is free once the model is loaded. The rest is for what
# the model computes with, and for what was read and is kept.
_SHARE = 0.5


class Model(Protocol):
    """What answers: a `SharedEngine`, or a `ChooseThenGenerate`."""

    name: str

    def astream(
        self, request: AskRequest, *, progress: Progress | None = None
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Answer piece by piece."""
        ...

    def count_tokens(self, text: str) -> int:
        """Measure a text."""
        ...

    def bytes_needed(self, request: AskRequest) -> int:
        """Bytes of keys and values that a request needs here at most."""
        ...

    def free_bytes(self) -> int:
        """Memory that is free where the model runs."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class Service:
    """Answers requests of many clients.

    Attributes:
        model: Answers.
        settings: The limits.
        retriever: Finds documents for requests without any; None: nothing does.
        encoder_name: What encodes texts; None: nothing does.
        room: For the caches of requests that run.
        metrics: Counts.
        active: Requests that run or wait.
        problem: Why the server cannot answer yet, or None.
    """

    def __init__(
        self,
        model: Model,
        settings: ServerSettings,
        retriever: Retriever | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Combine them; nothing is loaded."""
        self.model = model
        self.settings = settings
        self.retriever = retriever
        self.encoder_name = None if encoder is None else f"{encoder.name}-encoder"
        self.room = Room(settings.memory_bytes or 0)
        self._encoder = encoder
        self._encoding = asyncio.Lock()
        self.metrics = Metrics()
        self.active = 0
        self.problem: str | None = "the model is being loaded"

    async def load(self) -> None:
        """Load the model; `problem` then says whether that worked."""
        try:
            await asyncio.to_thread(self.model.count_tokens, "ready")
            if self.settings.memory_bytes is None:
                free = await asyncio.to_thread(self.model.free_bytes)
                self.room = Room(int(_SHARE * free))
            self.problem = None
        except Exception as error:
            self.problem = f"the model cannot be loaded: {error}"

    @property
    def names(self) -> list[str]:
        """The models that requests can name."""
        return [self.model.name, *([self.encoder_name] if self.encoder_name else [])]

    def check_ready(self) -> None:
        """Refuse a request while there is a problem.

        Raises:
            ApiError: There is.
        """
        if self.problem is not None:
            raise ApiError(503, self.problem, "not_ready", headers={"Retry-After": "5"})

    async def encode(self, texts: Sequence[str]) -> Any:
        """Encode texts, [N, D] float32; one request after another."""
        assert self._encoder is not None, "its name was asked for"
        async with self._encoding:
            return await asyncio.to_thread(self._encoder.encode_documents, texts)

    async def find(self, request: AskRequest, top_k: int) -> AskRequest:
        """Add what the index has on the question, if there is an index and no document."""
        retriever = self.retriever
        question = request.messages[-1]
        if retriever is None or request.documents or question["role"] != "user":
            return request
        found = await asyncio.to_thread(
            retriever.retrieve,
            question["content"],
            count_tokens=self.model.count_tokens,
            top_k=top_k,
        )
        return replace(request, documents=tuple(found)) if found else request

    async def events(self, requests: Sequence[AskRequest]) -> AsyncGenerator[Event, None]:
        """Answer what one client asks, as soon as it is its turn; closing it stops the work.

        Args:
            requests: The same question as often as answers to it are wanted.

        Yields:
            How far the compression is, then an answer's pieces.

        Raises:
            ApiError: There are too many requests, or it took too long.
            FinchError: As the model raises it.
        """
        self._enter()
        started = time.monotonic()
        try:
            async with AsyncExitStack() as running:
                await self._wait_for_room(requests, running, started)
                queue: asyncio.Queue[Event | BaseException] = asyncio.Queue()
                for number, request in enumerate(requests):
                    running.push_async_callback(_end, self._start(number, request, queue))
                left = len(requests)
                while left:
                    event = await self._next(queue, started)
                    yield event
                    said = event[1]
                    if isinstance(said, AnswerPiece) and said.details is not None:
                        self.metrics.answered(said.details, time.monotonic() - started)
                        left -= 1
        finally:
            self._leave()

    @asynccontextmanager
    async def place(self, request: AskRequest) -> AsyncIterator[SharedEngine]:
        """Count something else than an answer as a request; yields the model that reads for it.

        Raises:
            ApiError: There are too many requests, or it waited too long.
        """
        reader: Any = self.model
        if not isinstance(reader, SharedEngine):
            reader = getattr(reader, "scorer", None)  # of a generator elsewhere
        if reader is None:
            raise ApiError(501, "this server's model keeps nothing of documents", "unsupported")
        self._enter()
        try:
            async with AsyncExitStack() as running:
                await self._wait_for_room([request], running, time.monotonic())
                yield reader
        finally:
            self._leave()

    async def answer(self, requests: Sequence[AskRequest]) -> list[AnswerDetails]:
        """Answer in one piece each; as `events`."""
        details: dict[int, AnswerDetails] = {}
        async with aclosing(self.events(requests)) as events:
            async for number, said in events:
                if isinstance(said, AnswerPiece) and said.details is not None:
                    details[number] = said.details
        return [details[number] for number in range(len(requests))]

    def _enter(self) -> None:
        if self.active >= self.settings.max_requests:
            raise ApiError(
                429,
                f"{self.active} requests run or wait already. Try again later",
                "queue_full",
                headers={"Retry-After": "5"},
            )
        self.active += 1
        self.metrics.active.set(self.active)

    def _leave(self) -> None:
        self.active -= 1
        self.metrics.active.set(self.active)

    async def _wait_for_room(
        self, requests: Sequence[AskRequest], running: AsyncExitStack, started: float
    ) -> None:
        # They are alike.
        needed = len(requests) * await asyncio.to_thread(self.model.bytes_needed, requests[0])
        if needed > self.room.total:
            raise ApiError(
                400,
                f"the request may need {needed:,} bytes of the model's memory; this server has "
                f"{self.room.total:,} for requests. Ask for fewer tokens (max_tokens), keep fewer "
                "(target_size), or shorten the chat",
                "too_large",
            )
        try:
            async with asyncio.timeout(self._left(started)):
                await running.enter_async_context(self.room.hold(needed))
        except TimeoutError:
            raise self._late() from None

    def _start(
        self, number: int, request: AskRequest, queue: "asyncio.Queue[Event | BaseException]"
    ) -> "asyncio.Task[None]":
        # A task of its own, because a stream may be read by another task than its first piece.
        return asyncio.create_task(self._answer(number, request, queue))

    def _left(self, started: float) -> float:
        return max(0.0, self.settings.timeout - (time.monotonic() - started))

    def _late(self) -> ApiError:
        return ApiError(
            504,
            f"the answer took longer than {self.settings.timeout:g} seconds. Ask for fewer "
            "tokens, or send fewer documents",
            "timeout",
        )

    async def _next(self, queue: "asyncio.Queue[Event | BaseException]", started: float) -> Event:
        try:
            event = await asyncio.wait_for(queue.get(), self._left(started))
        except TimeoutError:
            raise self._late() from None
        if isinstance(event, BaseException):
            raise event
        return event

    async def _answer(
        self, number: int, request: AskRequest, queue: "asyncio.Queue[Event | BaseException]"
    ) -> None:
        loop = asyncio.get_running_loop()

        def report(state: CompressionProgress) -> None:  # called in the model's thread
            loop.call_soon_threadsafe(queue.put_nowait, (number, state))

        options: dict[str, Any] = {"progress": report} if request.documents else {}
        try:
            async with aclosing(self.model.astream(request, **options)) as pieces:
                async for piece in pieces:
                    queue.put_nowait((number, piece))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            queue.put_nowait(error)
        except BaseException:  # the model's worker was stopped
            queue.put_nowait(ApiError(503, "the server is shutting down", "shutting_down"))


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
