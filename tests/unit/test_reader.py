"""Readers on the in-memory store: right bytes, few requests, bounded memory."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
import trio

from s3mount.core.config import GIB, KIB, MIB, ReadConfig
from s3mount.core.errors import FilesystemError
from s3mount.readpath.read_path import ReadPath
from s3mount.readpath.remote import RemoteObject
from s3mount.store.base import (
    CorruptAnswer,
    GetResult,
    ObjectInfo,
    ServerError,
    WriteHeaders,
)
from s3mount.store.memory import ALL_CAPABILITIES, MemoryStore

NOTHING = WriteHeaders()


def content(size: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size)


def put(store: MemoryStore, key: str, data: bytes) -> RemoteObject:
    stored = store.put_foreign(key, data)
    return RemoteObject(key, stored.etag, len(data), stored.version_id)


@asynccontextmanager
async def running(store: MemoryStore, config: ReadConfig | None = None) -> AsyncIterator[ReadPath]:
    with trio.fail_after(20):
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


async def test_reading_in_order_gives_the_object_and_asks_for_each_byte_once() -> None:
    store = MemoryStore()
    data = content(20 * MIB + 123)
    remote = put(store, "big", data)
    gets = Gets(store)
    async with running(store) as path:
        reader = path.open(remote)
        found = bytearray()
        while part := await reader.read(len(found), 128 * KIB):
            found += part
        reader.close()
    assert bytes(found) == data
    assert gets.ranges[0] == (0, 256 * KIB)
    assert gets.bytes == len(data)
    assert len(gets.ranges) < 60
