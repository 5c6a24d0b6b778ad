"""The scheduler of a model: many requests take turns on it, and the ways to wait for one.

Every model has one; two models never wait for each other. A request is a generator. It may block
for long before its first item, as long as it calls `check` now and then, and goes on item by item
from there: a compression, then an answer. All that have given an item go on by one item in every
round; of those that have not, one goes on until it calls `check`. So an answer never waits longer
than for one chunk of somebody's compression, and answers that wait for each other's turns have
their steps run together (`engine.steps`).

Requests begin in the order of the calls, so many at a time. Items are passed on as they come, to
threads (`stream`) or to event loops (`astream`). Nothing waits for readers, so a reader that pauses
delays no one; a reader that leaves frees its place at its next turn.
"""

import asyncio
import atexit
import itertools
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Check = Callable[[], None]
Work = Callable[[Check], Generator[Item, None, None]]

# Generators that run at a time.
PLACES = 8
# Of these, those that may be before their first item: two, so that a short request can overtake a
# long one, and no more, because what they need while they read adds up.
_LANES = 2


class Cancelled(BaseException):
    """Ends a generator whose reader has left. A BaseException, as in asyncio."""


@dataclass(slots=True)
class _Ended:
    """The last event of a job. The error, if there is one, keeps its traceback."""

    error: BaseException | None = None


class _Thread(threading.Thread):
    """A thread of a worker; it must not wait for workers to end."""


class _Job:
    """A generator in a thread of its own, which runs only while its worker waits for it."""

    def __init__(
        self, work: Work[Any], send: Callable[[Any], None], stopping: threading.Event
    ) -> None:
        self.left = threading.Event()
        self.answers = False  # has given an item
        self.ended = False
        self.last_turn = -1
        self._work: Work[Any] | None = work
        self._send = send
        self._stopping = stopping
        self._turn = threading.Semaphore(0)
        self._turn_over = threading.Semaphore(0)
        self._thread: _Thread | None = None

    def take_turn(self, number: int) -> None:
        """Run until the next item or check, in this round; a job that was left ends instead."""
        self.last_turn = number
        if self._thread is None:
            if self.left.is_set() or self._stopping.is_set():
                self._end(Cancelled())
                return
            self._thread = _Thread(target=self._run, name="finch-worker", daemon=True)
            self._thread.start()
        self._turn.release()
        self._turn_over.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        assert self._work is not None, "a job runs once"
        error: BaseException | None = None
        try:
            with closing(self._work(self._pause)) as items:
                for item in items:
                    self.answers = True
                    self._send(item)
                    self._pause()
        except BaseException as raised:  # passed on to the reader
            error = raised
        self._end(error)
        del error
        self._turn_over.release()

    def _pause(self) -> None:
        self._turn_over.release()
        self._turn.acquire()
        if self.left.is_set() or self._stopping.is_set():
            raise Cancelled

    def _end(self, error: BaseException | None) -> None:
        self._work = None
        self.ended = True
        self._send(_Ended(error))


class Worker:
    """Runs generators in turns, in threads of its own, which are started when needed."""

    def __init__(self, places: int = PLACES) -> None:
        """Start with nothing to do.

        Args:
            places: How many generators run at a time; the others wait. With one place they run one
                after another.
        """
        self._places = places
        self.reset()
        _workers.add(self)

    def reset(self) -> None:
        """Forget the thread and its jobs; a forked child has neither."""
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def stream(self, work: Work[Item]) -> Generator[Item, None, None]:
        """Run a generator in the worker and iterate over its items here.

        Args:
            work: Makes the generator. It gets a function, to be called in its thread during long
                stretches without an item: it lets others go on, and raises when the reader has
                left.

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
        """End all generators at their next turns; readers that are still there get `Cancelled`."""
        with self._guard:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._stopping.set()
            self._jobs.put(None)
        # A job may have held the model's last reference: it would wait for itself.
        if not isinstance(threading.current_thread(), _Thread):
            thread.join()

    def _submit(self, work: Work[Any], send: Callable[[Any], None]) -> _Job:
        with self._guard:
            if self._thread is None:
                self._stopping = threading.Event()
                self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
                self._thread = _Thread(
                    target=_run_jobs,
                    args=(self._jobs, self._places),
                    name="finch-scheduler",
                    daemon=True,
                )
                self._thread.start()
            job = _Job(work, send, self._stopping)
            self._jobs.put(job)
        return job


def _run_jobs(queued: "queue.SimpleQueue[_Job | None]", places: int) -> None:
    """Run what is queued until there is a None and nothing is left."""
    running: list[_Job] = []
    accepting = True
    for number in itertools.count():
        while accepting and len(running) < places:
            try:
                job = queued.get(block=not running)
            except queue.Empty:
                break
            if job is None:
                accepting = False
            else:
                running.append(job)
            del job  # it refers to documents and caches, and the thread may be idle for long
        if not running:
            return
        _run_round(running, number)


def _run_round(running: list[_Job], number: int) -> None:
    """Let all answers go on by an item, and one job that has not come so far by a chunk."""
    answering = [job for job in running if job.answers]
    preparing = [job for job in running if not job.answers]
    begun, waiting = preparing[:_LANES], preparing[_LANES:]
    taking = [*answering, *(job for job in waiting if job.left.is_set())]
    if begun:
        taking.append(min(begun, key=lambda job: job.last_turn))
    for job in taking:
        job.take_turn(number)
    running[:] = [job for job in running if not job.ended]


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
