"""Requests hold a known part of the memory, wait for it, and are refused if they never get it."""

import asyncio
import threading

import pytest

from finch_integrations.engine.cache import cache_bytes
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.serve.memory import Room
from finch_integrations.types import Document
from tests.serve.conftest import serving, until
from tests.tiny import text_of

USER = {"role": "user", "content": "What is it?"}


def chat(**changes):
    return {"model": "tiny", "messages": [USER], "max_tokens": 4, **changes}


async def test_room_is_handed_out_in_order_and_comes_back():
    room, order = Room(10), []

    async def take(name, size, gate):
        async with room.hold(size):
            order.append(name)
            await gate.wait()

    gates = {name: asyncio.Event() for name in "abcd"}
    tasks = {
        name: asyncio.create_task(take(name, size, gates[name]))
        for name, size in (("a", 6), ("b", 8), ("c", 2), ("d", 2))
    }
    await asyncio.sleep(0)
    # The small ones do not overtake the large one, which could wait for ever.
    assert order == ["a"]
    gates["a"].set()
    await tasks["a"]
    await asyncio.sleep(0)
    assert order == ["a", "b", "c"]
    gates["b"].set()
    await tasks["b"]
    await asyncio.sleep(0)
    assert order == ["a", "b", "c", "d"]
    for gate in gates.values():
        gate.set()
    await asyncio.gather(*tasks.values())
    assert room.free == 10


async def test_who_leaves_the_queue_holds_nothing():
    room = Room(10)

    async def take(size):
        async with room.hold(size):
            await asyncio.sleep(60)

    first, second, third = (asyncio.create_task(take(size)) for size in (8, 9, 2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0.01)
    assert room.free == 0  # the third came up
    first.cancel()
    third.cancel()
    # One whose turn comes in the moment in which it is cancelled gives it back.
    await asyncio.gather(first, second, third, return_exceptions=True)
    holder, waiter = asyncio.create_task(take(10)), asyncio.create_task(take(10))
    await asyncio.sleep(0)
    holder.cancel()
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    assert room.free == 10


@pytest.mark.parametrize("documents", [0, 3])
@pytest.mark.parametrize("compression", [{"target_size": 60}, {"compression_ratio": 0.5}, {}])
def test_what_is_said_to_be_needed_is_enough(server, documents, compression):
    engine = server.engine
    texts = [text_of(300, seed=n) for n in range(documents)]
    request = AskRequest(
        messages=(USER,),
        documents=tuple(Document(text) for text in texts),
        compression=compression if texts else {},
        sampling={"max_tokens": 40},
    )
    needed = SharedEngine(engine).bytes_needed(request)
    *_, last = SharedEngine(engine).stream(request, keep_context=True)
    details = last.details
    spec = engine.backbone.spec
    if texts:
        used = details.compression.peak_kv_tokens * spec.kv_bytes_per_token
        assert cache_bytes(details.context.cache) <= used <= needed
    else:
        tokens = details.prompt_tokens + details.generation_tokens
        assert tokens * spec.kv_bytes_per_token <= needed
    # More than enough would keep requests waiting for nothing.
    assert needed <= 5 * spec.kv_bytes_per_token * spec.window


def needed_by(running, **changes):
    request = AskRequest(messages=(USER,), sampling={"max_tokens": 4, **changes})
    return running.service.model.bytes_needed(request)


def test_requests_wait_for_memory_and_all_are_answered(tmp_path):
    with serving(tmp_path, max_tokens=2000) as running:
        most = []
        running.service.room = room = Room(int(1.5 * needed_by(running, max_tokens=300)))
        wait, done = room.hold, []

        def hold(size):
            most.append(room.total - room.free)
            return wait(size)

        room.hold = hold
        threads = [
            threading.Thread(target=lambda: done.append(running.post(chat(max_tokens=300))))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        until(lambda: running.service.active == 5)
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in done] == [200] * 5
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in done}) == 1
        assert room.free == room.total


def test_a_request_that_never_fits_is_refused_with_what_it_needs(tmp_path):
    with serving(tmp_path, memory_bytes=1000) as running:
        for stream in (False, True):
            refused = running.post(chat(stream=stream))
            assert refused.status_code == 400
            error = refused.json()["error"]
            assert error["code"] == "too_large"
            assert "1,000 for requests" in error["message"]
        assert running.service.active == 0


def test_a_request_that_waits_too_long_for_memory_is_ended(tmp_path):
    with serving(tmp_path, timeout=0.2) as running:
        running.service.room = Room(needed_by(running))
        running.service.room.free = 0
        refused = running.post(chat())
        assert refused.status_code == 504
        running.service.room.free = running.service.room.total
        assert running.post(chat()).status_code in (200, 504)
        assert running.service.active == 0


def test_bodies_that_wait_are_limited_together(tmp_path):
    with serving(tmp_path, max_tokens=2000, max_waiting_bytes=3000) as running:
        answers = []
        body = chat(documents=["word " * 300], max_tokens=400)
        thread = threading.Thread(target=lambda: answers.append(running.post(body)))
        thread.start()
        until(lambda: running.service.active == 1)
        refused = running.post(body)
        thread.join()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert answers[0].status_code == 200
        assert running.post(body).status_code == 200  # nothing is held any more
