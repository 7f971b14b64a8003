"""Bounds the bytes of bodies on their way, whatever their number."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class MemoryLimit:
    """First come, first served: a large body is not starved by small ones.

    A body larger than the whole limit counts as the limit, and then goes alone.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._queue: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def holding(self, amount: int) -> AsyncIterator[None]:
        amount = min(amount, self.total)
        await self._take(amount)
        try:
            yield
        finally:
            self._give(amount)

    async def _take(self, amount: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._queue and self.used + amount <= self.total:
            self.used += amount
            return
        granted = trio.Event()
        entry = (amount, granted)
        self._queue.append(entry)
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self._give(amount)
            else:
                self._queue.remove(entry)
                self._grant()
            raise

    def _give(self, amount: int) -> None:
        self.used -= amount
        self._grant()

    def _grant(self) -> None:
        while self._queue and self.used + self._queue[0][0] <= self.total:
            amount, granted = self._queue.popleft()
            self.used += amount
            granted.set()
