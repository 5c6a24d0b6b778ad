"""The worker thread: order, cancelling, errors, event loops."""

import asyncio
import contextlib
import gc
import os
import threading
import time
import traceback
import weakref

import pytest

from finch_integrations.pipeline.worker import Cancelled, Worker, worker_of
from tests.heartbeat import count_beats


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.stop()


class Counter:
    """A generator's work that can be waited for and counts what it has produced."""

    def __init__(self, total, seconds=0.0):
        self.total, self.seconds = total, seconds
        self.made = 0
        self.closed = threading.Event()

    def __call__(self, check):
        try:
            for number in range(self.total):
                time.sleep(self.seconds)
                self.made += 1
                yield number
        finally:
            self.closed.set()


def test_items_arrive_in_order_and_the_work_runs_in_one_other_thread(worker):
    def work(check):
        for _ in range(3):
            yield threading.current_thread().name

    assert list(worker.stream(work)) == ["finch-worker"] * 3
    assert list(worker.stream(Counter(5))) == [0, 1, 2, 3, 4]


def test_leaving_stops_the_generator_at_its_next_item(worker):
    work = Counter(1000, seconds=0.01)
    for number in worker.stream(work):
        if number == 3:
            break
    assert work.closed.wait(5)
    assert work.made <= 6


def test_long_stretches_without_an_item_can_be_left(worker):
    working, work_ended = threading.Event(), threading.Event()

    def work(check):
        yield "started"
        try:
            while True:
                working.set()
                check()
                time.sleep(0.001)
        except Cancelled:
            work_ended.set()
            raise

    stream = worker.stream(work)
    assert next(stream) == "started"
    assert working.wait(5)
    stream.close()
    assert work_ended.wait(5)


def begin_three(worker):
    """Three generators of two items each, asked for at once; what happened when."""
    gate, log = threading.Event(), []

    def work(name):
        def run(check):
            gate.wait(5)
            log.append(f"{name} begins")
            yield name
            yield name.upper()
            log.append(f"{name} ends")

        return run

    async def main():
        tasks = []
        for name in "abc":
            tasks.append(asyncio.create_task(collect(worker.astream(work(name)))))
            await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [["a", "A"], ["b", "B"], ["c", "C"]]
    return log


def test_generators_begin_in_the_order_of_asking_and_take_turns(worker):
    log = begin_three(worker)
    assert [line for line in log if "begins" in line] == [f"{name} begins" for name in "abc"]
    assert log.index("c begins") < log.index("b ends")


def test_with_one_place_generators_run_one_after_another():
    worker = Worker(places=1)
    log = begin_three(worker)
    worker.stop()
    assert log == [f"{name} {verb}" for name in "abc" for verb in ("begins", "ends")]


def chunks(log, name, count):
    """A generator's work that reads so many chunks, then answers with two items."""

    def run(check):
        for number in range(count):
            log.append(f"{name}{number}")
            check()
        yield name
        log.append(f"{name} answers")
        yield name.upper()

    return run


def run_together(worker, works):
    """Begin all of them in the same round: they wait for one that holds the worker."""
    gate = threading.Event()

    def holding(check):
        gate.wait(5)
        yield 0

    async def main():
        tasks = [asyncio.create_task(collect(worker.astream(holding)))]
        for work in works:
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(collect(worker.astream(work))))
        await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(*tasks)

    return asyncio.run(main())[1:]


def test_a_long_stretch_stops_answers_for_no_longer_than_a_chunk(worker):
    log = []

    def answer(check):
        for number in range(6):
            log.append("token")
            yield number

    run_together(worker, [answer, chunks(log, "long", 5)])
    first = log.index("long0")
    assert log[first : first + 8 : 2] == ["long0", "long1", "long2", "long3"]
    assert log[first + 1 : first + 8 : 2] == ["token"] * 4


def test_all_answers_go_on_in_every_round(worker):
    log = []

    def answer(name):
        def run(check):
            for number in range(20):
                log.append(name)
                yield number

        return run

    run_together(worker, [answer(name) for name in "abcd"])
    # One begins after the other; from there on nobody has a turn more than another.
    rounds = log[log.index("d") :]
    assert [sorted(rounds[n : n + 4]) for n in range(1, 41, 4)] == [list("abcd")] * 10


def test_a_short_request_overtakes_a_long_one_and_a_third_waits_for_one_of_both(worker):
    log = []
    run_together(worker, [chunks(log, "a", 9), chunks(log, "b", 2), chunks(log, "c", 1)])
    assert log.index("b answers") < log.index("a8")
    assert log.index("c0") > log.index("b1")
    assert log[:4] == ["a0", "b0", "a1", "b1"]


def test_no_more_run_than_there_are_places():
    worker = Worker(places=2)
    running, most = set(), []

    def work(name):
        def run(check):
            running.add(name)
            most.append(len(running))
            yield name
            yield name
            running.remove(name)

        return run

    run_together(worker, [work(name) for name in "abcd"])
    worker.stop()
    assert max(most) == 2


async def collect(items):
    return [item async for item in items]


def test_a_reader_who_pauses_holds_nobody_up(worker):
    paused = worker.stream(Counter(5))
    assert next(paused) == 0
    assert list(worker.stream(Counter(3))) == [0, 1, 2]
    assert list(paused) == [1, 2, 3, 4]


def test_a_job_whose_reader_left_before_its_turn_is_never_begun(worker):
    gate, begun = threading.Event(), []

    def first(check):
        gate.wait(5)
        yield 1

    def second(check):
        begun.append(True)
        yield 2

    async def main():
        one = asyncio.create_task(collect(worker.astream(first)))
        two = asyncio.create_task(collect(worker.astream(second)))
        await asyncio.sleep(0.01)
        two.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(one, two, return_exceptions=True)

    results = asyncio.run(main())
    assert results[0] == [1]
    assert isinstance(results[1], asyncio.CancelledError)
    assert list(worker.stream(Counter(1))) == [0]
    assert not begun


def failing(check):
    yield 1
    raise LookupError("gone")


def test_errors_reach_the_reader_with_the_traceback_of_the_worker(worker):
    with pytest.raises(LookupError, match="gone") as caught:
        list(worker.stream(failing))
    assert "failing" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    with pytest.raises(LookupError, match="gone") as caught:
        asyncio.run(collect(worker.astream(failing)))
    assert "failing" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert list(worker.stream(Counter(2))) == [0, 1]  # the worker lives on


def test_the_event_loop_beats_on_while_the_worker_works(worker):
    async def main():
        async with count_beats() as beats:
            items = await collect(worker.astream(Counter(10, seconds=0.03)))
        return items, beats[0]

    items, beats = asyncio.run(main())
    assert items == list(range(10))
    assert beats > 10


@pytest.mark.parametrize("how", ["cancel", "aclose"])
def test_cancelling_and_closing_stop_an_async_reader(worker, how):
    work = Counter(1000, seconds=0.01)

    async def main():
        items = worker.astream(work)
        if how == "aclose":
            assert await anext(items) == 0
            await items.aclose()
        else:
            task = asyncio.create_task(collect(items))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        made = work.made
        await asyncio.to_thread(work.closed.wait, 5)
        return made

    made = asyncio.run(main())
    assert work.closed.is_set()
    assert work.made <= made + 2


def test_a_loop_that_is_gone_stops_the_work(worker):
    work = Counter(1000, seconds=0.005)
    loop = asyncio.new_event_loop()
    items = worker.astream(work)
    assert loop.run_until_complete(anext(items)) == 0
    loop.close()
    assert work.closed.wait(5)
    assert work.made < 1000
    with pytest.raises(StopIteration):
        items.aclose().send(None)


def test_stopping_ends_running_and_waiting_jobs_and_the_worker_can_start_again(worker):
    running = worker.stream(Counter(1000, seconds=0.01))
    assert next(running) == 0
    worker.stop()
    with pytest.raises(Cancelled):
        list(running)
    assert list(worker.stream(Counter(2))) == [0, 1]


def test_an_idle_worker_keeps_nothing_alive(worker):
    class Document:
        pass

    def work(document):
        def run(check):
            yield id(document)

        return run

    document = Document()
    watch = weakref.ref(document)
    list(worker.stream(work(document)))
    del document
    deadline = time.monotonic() + 5
    while watch() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert watch() is None


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_a_failed_job_is_let_go_with_its_error(worker, how):
    """A job's memory, caches of gigabytes, must not wait for the garbage collector."""

    class Cache:
        pass

    watches = []

    def work(check):
        cache = Cache()
        watches.append(weakref.ref(cache))
        yield 1
        raise MemoryError

    async def read():
        with contextlib.suppress(MemoryError):  # asyncio.run would keep it
            await collect(worker.astream(work))

    gc.collect()
    gc.disable()
    try:
        if how == "astream":
            asyncio.run(read())
        else:
            with contextlib.suppress(MemoryError):
                list(worker.stream(work))
        deadline = time.monotonic() + 5
        while watches[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the worker lets go of it a moment later
        assert watches[0]() is None
    finally:
        gc.enable()


def test_a_worker_ends_with_its_model():
    class Model:
        pass

    models = [Model()]
    worker = worker_of(models[0])
    assert worker_of(models[0]) is worker

    def work(check):
        yield threading.current_thread()
        models.clear()  # the last one to hold it is the worker itself

    (thread,) = worker.stream(work)
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_worker_of_its_own():
    class Model:
        pass

    model = Model()
    worker = worker_of(model)
    assert list(worker.stream(Counter(2))) == [0, 1]
    child = os.fork()
    if child == 0:
        os._exit(0 if list(worker.stream(Counter(3))) == [0, 1, 2] else 1)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
