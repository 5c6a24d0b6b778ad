"""Room for what running requests hold: those that do not fit wait, in the order of their coming."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many bytes, handed out first come, first served; for one event loop.

    Attributes:
        total: All of them.
        free: Those that nobody holds.
    """

    def __init__(self, total: int) -> None:
        """Start empty."""
        self.total = self.free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait for so many bytes and hold them; at most `total`, or the wait has no end."""
        await self._take(size)
        try:
            yield
        finally:
            self.free += size
            self._hand_out()

    async def _take(self, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
            else:  # it was handed out at the same moment
                self.free += size
            self._hand_out()
            raise

    def _hand_out(self) -> None:
        """Let those at the front go on; a small request does not overtake a large one for ever."""
        while self._waiting:
            size, turn = self._waiting[0]
            if size > self.free:
                return
            self._waiting.popleft()
            if not turn.done():
                self.free -= size
                turn.set_result(None)
