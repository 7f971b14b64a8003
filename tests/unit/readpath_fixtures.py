"""What the tests of the read path share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from random import Random

import trio
import trio.testing

from s3mount.core.config import ReadConfig
from s3mount.readpath.read_path import ReadPath
from s3mount.readpath.remote import RemoteObject
from s3mount.store.base import GetResult
from s3mount.store.memory import MemoryStore


def content(size: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size)


def put(store: MemoryStore, key: str, data: bytes) -> RemoteObject:
    stored = store.put_foreign(key, data)
    return RemoteObject(key, stored.etag, len(data), stored.version_id)


@asynccontextmanager
async def running(store: MemoryStore, config: ReadConfig | None = None) -> AsyncIterator[ReadPath]:
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            path = ReadPath(store, config or ReadConfig())
            await nursery.start(path.run)
            yield path
            nursery.cancel_scope.cancel()


class Gets:
    """The ranges that are asked of a store; each GET waits for `gate` when there is one."""

    def __init__(self, store: MemoryStore) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.gate: trio.Event | None = None
        self.under_way = 0
        self.peak = 0
        self._get = store.get
        store.get = self.get  # type: ignore[method-assign]

    async def get(
        self, key: str, start: int = 0, length: int | None = None, **conditions: str | None
    ) -> GetResult:
        assert length is not None
        self.ranges.append((start, start + length))
        self.under_way += length
        self.peak = max(self.peak, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return await self._get(key, start, length, **conditions)
        finally:
            self.under_way -= length

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self.ranges)


def failing(store: MemoryStore, times: int, fail: Callable[[], Exception]) -> list[int]:
    """The next `times` requests fail; returns how many there were, as one number."""
    seen = [0]

    def before(_operation: str, _key: str) -> None:
        seen[0] += 1
        if seen[0] <= times:
            raise fail()

    store.before = before
    return seen


def answering(store: MemoryStore, change: Callable[[int, GetResult], GetResult]) -> None:
    """Each answer of a GET is what `change` makes of its number and the right one."""
    right = store.get
    numbers = count()

    async def get(*arguments: object, **conditions: object) -> GetResult:
        result = await right(*arguments, **conditions)  # type: ignore[arg-type]
        return change(next(numbers), result)

    store.get = get  # type: ignore[method-assign]


def flipped(result: GetResult) -> GetResult:
    return replace(result, data=bytes([result.data[0] ^ 1]) + result.data[1:])
