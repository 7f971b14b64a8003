"""Readers on the in-memory store: right bytes, few requests, bounded memory."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


async def test_reading_ahead_has_parallel_requests_on_their_way() -> None:
    store = MemoryStore()
    remote = put(store, "big", bytes(32 * MIB))
    gets = Gets(store)
    async with running(store) as path:
        reader = path.open(remote)
        for offset in range(0, 2 * MIB, 128 * KIB):
            await reader.read(offset, 128 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        gets.gate = trio.Event()
        for offset in range(2 * MIB, 4 * MIB, 128 * KIB):
            await reader.read(offset, 128 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        assert gets.under_way >= 4 * MIB
        gets.gate.set()
        reader.close()


async def test_random_reads_fetch_their_own_blocks_only_and_none_twice() -> None:
    store = MemoryStore()
    data = content(16 * MIB)
    remote = put(store, "big", data)
    gets = Gets(store)
    random = Random(2)
    async with running(store) as path:
        reader = path.open(remote)
        for count in range(1, 60):
            offset = random.randrange(len(data) - 4 * KIB)
            assert bytes(await reader.read(offset, 4 * KIB)) == data[offset : offset + 4 * KIB]
            assert gets.bytes <= count * 256 * KIB
        before = gets.bytes
        assert bytes(await reader.read(offset, 4 * KIB)) == data[offset : offset + 4 * KIB]
        assert gets.bytes == before
        reader.close()


async def test_a_cached_read_is_answered_at_once_without_a_copy() -> None:
    store = MemoryStore()
    data = content(MIB)
    remote = put(store, "k", data)
    async with running(store) as path:
        reader = path.open(remote)
        assert reader.try_read(0, 4 * KIB) is None
        first = await reader.read(0, 128 * KIB)
        second = reader.try_read(64 * KIB, 4 * KIB)
        assert isinstance(first, memoryview)
        assert isinstance(second, memoryview)
        assert first.obj is second.obj
        assert bytes(second) == data[64 * KIB : 68 * KIB]
        reader.close()


async def test_reads_at_and_beyond_the_end_are_cut() -> None:
    store = MemoryStore()
    data = content(300 * KIB)
    remote = put(store, "k", data)
    async with running(store) as path:
        reader = path.open(remote)
        assert bytes(await reader.read(299 * KIB, 128 * KIB)) == data[299 * KIB :]
        assert await reader.read(300 * KIB, 10) == b""
        assert await reader.read(GIB, 10) == b""
        empty = path.open(put(store, "empty", b""))
        assert await empty.read(0, 10) == b""
        reader.close()


async def test_readers_of_one_version_share_blocks_and_requests_under_way() -> None:
    store = MemoryStore()
    data = content(8 * MIB)
    remote = put(store, "k", data)
    gets = Gets(store)
    gets.gate = trio.Event()
    answers: list[bytes] = []
    async with running(store) as path:
        readers = [path.open(remote) for _ in range(5)]

        async def read_all(reader_number: int) -> None:
            reader = readers[reader_number]
            parts = [
                bytes(await reader.read(at, 128 * KIB)) for at in range(0, len(data), 128 * KIB)
            ]
            answers.append(b"".join(parts))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(read_all, number)
            await trio.testing.wait_all_tasks_blocked()
            assert gets.ranges == [(0, 256 * KIB)]
            gets.gate.set()
    assert answers == [data] * 5
    assert gets.bytes == len(data)


async def test_close_cancels_what_was_fetched_ahead_for_this_reader_alone() -> None:
    store = MemoryStore()
    remote = put(store, "k", bytes(64 * MIB))
    gets = Gets(store)
    async with running(store) as path:
        first, second = path.open(remote), path.open(remote)
        for reader in (first, second):
            for offset in range(0, MIB, 128 * KIB):
                await reader.read(offset, 128 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        gets.gate = trio.Event()
        for reader in (first, second):
            for offset in range(MIB, 2 * MIB, 128 * KIB):
                assert reader.try_read(offset, 128 * KIB) is not None
        await trio.testing.wait_all_tasks_blocked()
        under_way = gets.under_way
        assert under_way > MIB
        first.close()
        await trio.testing.wait_all_tasks_blocked()
        assert gets.under_way == under_way
        second.close()
        await trio.testing.wait_all_tasks_blocked()
        assert gets.under_way == 0
        assert path.stats()["reserved_bytes"] == 0


async def test_reading_at_random_cancels_what_was_fetched_ahead() -> None:
    store = MemoryStore()
    remote = put(store, "k", bytes(64 * MIB))
    gets = Gets(store)
    async with running(store) as path:
        reader = path.open(remote)
        for place in range(10):
            await reader.read((40 + 2 * place) * MIB, 4 * KIB)
        for offset in range(0, MIB, 128 * KIB):
            await reader.read(offset, 128 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        gets.gate = trio.Event()
        for offset in range(MIB, 2 * MIB, 128 * KIB):
            assert reader.try_read(offset, 128 * KIB) is not None
        await trio.testing.wait_all_tasks_blocked()
        assert gets.under_way > MIB
        for place in range(10):
            assert reader.try_read((40 + 2 * place) * MIB, 4 * KIB) is not None
        await trio.testing.wait_all_tasks_blocked()
        assert gets.under_way == 0
        reader.close()


async def test_memory_stays_bounded_with_answers_on_their_way_counted() -> None:
    store = MemoryStore()
    limit = 8 * MIB
    config = replace(ReadConfig(), memory_limit=limit)
    size = 64 * MIB
    data = content(size)
    remotes = [put(store, f"k{number}", data) for number in range(3)]
    gets = Gets(store)
    async with running(store, config) as path:

        async def read_all(remote: RemoteObject) -> None:
            reader = path.open(remote)
            for offset in range(0, size, MIB):
                assert bytes(await reader.read(offset, MIB)) == data[offset : offset + MIB]
                stats = path.stats()
                assert stats["cached_bytes"] + stats["reserved_bytes"] <= limit
            reader.close()

        async with trio.open_nursery() as nursery:
            for remote in remotes:
                nursery.start_soon(read_all, remote)
    assert gets.peak <= limit
    assert gets.bytes < 3.3 * size


def failing(store: MemoryStore, times: int, fail: Callable[[], Exception]) -> list[int]:
    """The next `times` requests fail; returns how many there were, as one number."""
    seen = [0]

    def before(_operation: str, _key: str) -> None:
        seen[0] += 1
        if seen[0] <= times:
            raise fail()

    store.before = before
    return seen


async def test_a_transient_error_reaches_the_program_and_the_next_read_works() -> None:
    store = MemoryStore()
    data = content(MIB)
    remote = put(store, "k", data)
    failing(store, 1, lambda: ServerError("no", operation="GetObject", key="k", status=500))
    async with running(store) as path:
        reader = path.open(remote)
        with pytest.raises(ServerError):
            await reader.read(0, 4 * KIB)
        assert bytes(await reader.read(0, 4 * KIB)) == data[: 4 * KIB]
        reader.close()


async def test_a_failure_while_reading_ahead_harms_nobody() -> None:
    store = MemoryStore()
    data = content(8 * MIB)
    remote = put(store, "k", data)
    async with running(store) as path:
        reader = path.open(remote)
        await reader.read(0, 128 * KIB)
        seen = failing(store, 100, lambda: ServerError("no", operation="GetObject", key="k"))
        assert reader.try_read(128 * KIB, 128 * KIB) is not None
        await trio.testing.wait_all_tasks_blocked()
        assert seen[0] > 0
        store.before = None
        for offset in range(256 * KIB, len(data), 128 * KIB):
            answer = await reader.read(offset, 128 * KIB)
            assert bytes(answer) == data[offset : offset + 128 * KIB]
        reader.close()


@pytest.mark.parametrize("times", [2, 3])
async def test_corrupt_answers_are_asked_again_and_then_an_error(times: int) -> None:
    store = MemoryStore()
    data = content(MIB)
    remote = put(store, "k", data)
    failing(store, times, lambda: CorruptAnswer("cut", operation="GetObject", key="k"))
    async with running(store) as path:
        reader = path.open(remote)
        if times == 3:
            with pytest.raises(FilesystemError) as caught:
                await reader.read(0, 4 * KIB)
            assert caught.value.errno == errno.EIO
        assert bytes(await reader.read(0, 4 * KIB)) == data[: 4 * KIB]
        reader.close()


async def test_a_short_answer_is_never_passed_on() -> None:
    store = MemoryStore()
    data = content(MIB)
    remote = put(store, "k", data)
    whole = store.get

    async def short(*arguments: object, **conditions: object) -> GetResult:
        result = await whole(*arguments, **conditions)  # type: ignore[arg-type]
        return replace(result, data=result.data[:-1])

    store.get = short  # type: ignore[method-assign]
    async with running(store) as path:
        reader = path.open(remote)
        with pytest.raises(FilesystemError) as caught:
            await reader.read(0, 4 * KIB)
        assert caught.value.errno == errno.EIO
        reader.close()


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_version_that_is_gone_is_estale_where_it_is_not_cached(deleted: bool) -> None:
    store = MemoryStore()
    data = content(MIB)
    remote = put(store, "k", data)
    async with running(store) as path:
        reader = path.open(remote)
        await reader.read(0, 4 * KIB)
        if deleted:
            store.delete_foreign("k")
        else:
            store.put_foreign("k", content(MIB, seed=1))
        assert bytes(await reader.read(8 * KIB, 4 * KIB)) == data[8 * KIB : 12 * KIB]
        with pytest.raises(FilesystemError) as caught:
            await reader.read(512 * KIB, 4 * KIB)
        assert caught.value.errno == errno.ESTALE
        reader.close()


async def test_a_replaced_version_is_read_by_its_version_id_where_there_is_one() -> None:
    store = MemoryStore(capabilities=replace(ALL_CAPABILITIES, versioned=True))
    data = content(MIB)
    remote = put(store, "k", data)
    store.put_foreign("k", content(MIB, seed=1))
    async with running(store) as path:
        reader = path.open(remote)
        assert bytes(await reader.read(512 * KIB, 4 * KIB)) == data[512 * KIB : 516 * KIB]
        reader.close()


async def test_our_own_rename_moves_cached_blocks_open_readers_and_requests() -> None:
    store = MemoryStore()
    data = content(2 * MIB)
    remote = put(store, "old", data)
    gets = Gets(store)
    async with running(store) as path:
        reader = path.open(remote)
        await reader.read(0, 4 * KIB)
        gets.gate = trio.Event()
        answers: list[bytes] = []

        async def read() -> None:
            answers.append(bytes(await reader.read(MIB, 4 * KIB)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            copied = await store.copy("old", "new")
            path.repin(remote, key="new", etag=copied.etag)
            store.delete_foreign("old")
            gets.gate.set()
        assert answers == [data[MIB : MIB + 4 * KIB]]
        asked = len(gets.ranges)
        other = path.open(RemoteObject("new", copied.etag, len(data)))
        assert bytes(await other.read(0, 4 * KIB)) == data[: 4 * KIB]
        assert len(gets.ranges) == asked
        reader.close()
        other.close()


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5000), st.integers(1, 700), st.booleans()),
        min_size=1,
        max_size=80,
    ),
    st.integers(400, 3000),
)
async def test_any_reads_by_several_readers_give_the_objects_bytes(
    requests: list[tuple[int, int, int, bool]], memory: int
) -> None:
    store = MemoryStore()
    data = content(4567)
    remote = put(store, "k", data)
    config = ReadConfig(
        memory_limit=memory,
        first_request=64,
        random_request=32,
        max_window=1024,
        max_request=256,
    )
    async with running(store, config) as path:
        readers = [path.open(remote) for _ in range(3)]
        place = [0, 0, 0]

        async def read(number: int, offset: int, length: int) -> None:
            answer = bytes(await readers[number].read(offset, length))
            assert answer == data[offset : offset + length]

        async with trio.open_nursery() as nursery:
            for number, offset, length, in_order in requests:
                start = place[number] if in_order else offset
                place[number] = start + length
                nursery.start_soon(read, number, start, length)
                if length % 3 == 0:
                    await trio.testing.wait_all_tasks_blocked()
                stats = path.stats()
                assert stats["cached_bytes"] + stats["reserved_bytes"] <= memory
        for reader in readers:
            reader.close()
        await trio.testing.wait_all_tasks_blocked()
        assert path.stats()["reserved_bytes"] == 0
