"""Whether asyncio's event loop runs on while something works."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def count_beats() -> AsyncIterator[list[int]]:
    """Count, in a list of one number, how often a task is woken that sleeps for 5 ms."""
    beats = [0]

    async def beat():
        while True:
            await asyncio.sleep(0.005)
            beats[0] += 1

    beating = asyncio.create_task(beat())
    try:
        yield beats
    finally:
        beating.cancel()
