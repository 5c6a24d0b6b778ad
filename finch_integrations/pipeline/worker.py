"""The thread that runs a model, and the ways to wait for it.

Every model has one. Blocking generators run there one after another, in the order of the calls; two
models never wait for each other. Items are passed on as they come, to threads (`stream`) or to
event loops (`astream`). The worker does not wait for readers, so a reader that pauses delays no
one; a reader that leaves stops its generator at the next item.
"""

import asyncio
import atexit
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")
Check = Callable[[], None]
Work = Callable[[Check], Generator[Item, None, None]]


class Cancelled(BaseException):
    """Ends a generator whose reader has left. A BaseException, as in asyncio."""


@dataclass(slots=True)
class _Ended:
    """The last event of a job. The error, if there is one, keeps its traceback."""

    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """A generator to run and where its items go."""

    work: Work[Any]
    send: Callable[[Any], None]
    stopping: threading.Event
    left: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.left.is_set() or self.stopping.is_set():
            raise Cancelled

    def run(self) -> None:
        try:
            self.check()
            with closing(self.work(self.check)) as items:
                for item in items:
                    self.send(item)
                    self.check()
        except BaseException as error:  # passed on to the reader
            self.send(_Ended(error))
        else:
            self.send(_Ended())


class Worker:
    """Runs generators one after another in its own thread, which is started when first needed."""

    def __init__(self) -> None:
        self.reset()
        _workers.add(self)

    def reset(self) -> None:
        """Forget the thread and its jobs; a forked child has neither."""
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def stream(self, work: Work[Item]) -> Generator[Item, None, None]:
        """Run a generator in the worker and iterate over its items here.

        Args:
            work: Makes the generator. It gets a function that raises when the reader has left,
                to be called during long stretches without an item.

        Yields:
            The items. Errors of the generator are raised here.
        """
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        job = self._submit(work, events.put)
        try:
            while not isinstance(event := events.get(), _Ended):
                yield event
            _raise(event)
        finally:
            job.left.set()

    async def astream(self, work: Work[Item]) -> AsyncGenerator[Item, None]:
        """Like `stream`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Any] = asyncio.Queue()

        def send(event: Any) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the loop is closed: nobody reads any more
                job.left.set()

        job = self._submit(work, send)
        try:
            while not isinstance(event := await events.get(), _Ended):
                yield event
            _raise(event)
        finally:
            job.left.set()

    def stop(self) -> None:
        """End the thread at its next item; readers that are still there get `Cancelled`."""
        with self._guard:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._stopping.set()
            self._jobs.put(None)
        if thread is not threading.current_thread():  # its last job may have held the model
            thread.join()

    def _submit(self, work: Work[Any], send: Callable[[Any], None]) -> _Job:
        with self._guard:
            if self._thread is None:
                self._stopping = threading.Event()
                self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
                self._thread = threading.Thread(
                    target=_run_jobs, args=(self._jobs,), name="finch-worker", daemon=True
                )
                self._thread.start()
            job = _Job(work, send, self._stopping)
            self._jobs.put(job)
        return job


def _run_jobs(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # it refers to documents and caches, and the thread may be idle for long


def _raise(ended: _Ended) -> None:
    """Raise a job's error, if there is one, and drop the reference to it.

    Its traceback refers to the job's memory, to this frame and to the reader's, which has `ended`.
    """
    error, ended.error = ended.error, None
    try:
        if error is not None:
            raise error
    finally:
        del error


_workers: "weakref.WeakSet[Worker]" = weakref.WeakSet()
_by_model: "weakref.WeakKeyDictionary[object, Worker]" = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def worker_of(model: object) -> Worker:
    """Return the worker of a loaded model, the same for all who use it; it ends with the model."""
    with _guard:
        worker = _by_model.get(model)
        if worker is None:
            worker = _by_model[model] = Worker()
            weakref.finalize(model, worker.stop).atexit = False
        return worker


def _stop_all() -> None:
    for worker in list(_workers):
        worker.stop()


def _reset_all() -> None:
    global _guard
    _guard = threading.Lock()
    for worker in list(_workers):
        worker.reset()


# Threads that are still inside torch when the interpreter ends can crash it.
atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
