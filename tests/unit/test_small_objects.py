"""Objects fetched whole, siblings ahead, bytes handed in and out beside readers."""

import errno

import pytest
import trio
import trio.testing

from s3mount.core.config import KIB, MIB
from s3mount.core.errors import FilesystemError
from s3mount.readpath.remote import RemoteObject
from s3mount.store.base import (
    ObjectInfo,
    WriteHeaders,
)
from s3mount.store.memory import MemoryStore
from tests.unit.readpath_fixtures import Gets, content, put, running


async def test_fetch_range_and_load_all_give_the_bytes_and_cache_nothing() -> None:
    store = MemoryStore()
    data = content(11 * MIB + 7)
    remote = put(store, "k", data)
    loaded = bytearray(len(data))

    class Present:
        def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
            assert (start, end) == (0, len(data))
            return [(5, 3 * MIB), (4 * MIB, len(data))]

    async def sink(offset: int, part: bytes) -> None:
        loaded[offset : offset + len(part)] = part

    async with running(store) as path:
        assert await path.fetch_range(remote, 100, 9 * MIB) == data[100 : 9 * MIB + 100]
        assert await path.fetch_range(remote, len(data) - 3, 10) == data[-3:]
        await path.load_all(remote, sink, Present())
        assert path.stats()["cached_bytes"] == path.stats()["reserved_bytes"] == 0
        store.delete_foreign("k")
        with pytest.raises(FilesystemError) as caught:
            await path.fetch_range(remote, 0, 9 * MIB)
        assert caught.value.errno == errno.ESTALE
    assert loaded[5 : 3 * MIB] == data[5 : 3 * MIB]
    assert loaded[3 * MIB : 4 * MIB] == bytes(MIB)
    assert loaded[4 * MIB :] == data[4 * MIB :]


async def test_a_small_object_takes_one_get_for_its_attributes_and_its_bytes() -> None:
    store = MemoryStore()
    await store.put("k", b"hello", WriteHeaders(metadata={"mode": "33188"}))
    async with running(store) as path:
        info, data = await path.fetch_small("k", 256 * KIB)
        assert (data, info.size, info.metadata["mode"]) == (b"hello", 5, "33188")
        reader = path.open(RemoteObject("k", info.etag, info.size))
        answer = reader.try_read(0, 4096)
        assert answer is not None
        assert bytes(answer) == b"hello"
        reader.close()
    assert store.counts()["GetObject"] == 1
    assert store.counts().get("HeadObject", 0) == 0


async def test_siblings_are_fetched_at_once_and_each_tells_its_attributes() -> None:
    store = MemoryStore()
    stored = [store.put_foreign(f"d/{number}", b"x" * number) for number in range(40)]
    items = [(each.key, len(each.data), each.etag) for each in stored]
    gets = Gets(store)
    gets.gate = trio.Event()
    infos: list[ObjectInfo] = []
    async with running(store) as path:
        path.on_info = infos.append
        path.prefetch_whole(items)
        path.prefetch_whole(items)
        await trio.testing.wait_all_tasks_blocked()
        assert len(gets.ranges) == 20
        gets.gate.set()
        info, data = await path.fetch_small("d/39", 256 * KIB)
        assert (info.key, data) == ("d/39", b"x" * 39)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(info.key for info in infos) == sorted(each.key for each in stored)
        reader = path.open(RemoteObject("d/7", stored[7].etag, 7))
        answer = reader.try_read(0, 100)
        assert answer is not None
        assert bytes(answer) == b"x" * 7
        reader.close()
        assert path.stats()["reserved_bytes"] == 0
    assert store.counts()["GetObject"] == 40


async def test_seeded_bytes_are_read_without_a_request_until_dropped() -> None:
    store = MemoryStore()
    remote = put(store, "k", b"0123456789")
    gets = Gets(store)
    async with running(store) as path:
        path.seed(remote, 0, memoryview(bytearray(b"0123456789")))
        reader = path.open(remote)
        assert bytes(await reader.read(2, 3)) == b"234"
        assert not gets.ranges
        path.drop(remote)
        assert bytes(await reader.read(2, 3)) == b"234"
        assert len(gets.ranges) == 1
        reader.close()
