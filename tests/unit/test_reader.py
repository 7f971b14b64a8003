"""Readers on the in-memory store: right bytes, few requests, bounded memory."""

from dataclasses import replace
from random import Random

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.core.config import GIB, KIB, MIB, ReadConfig
from s3mount.readpath.remote import RemoteObject
from s3mount.store.memory import MemoryStore
from tests.sizes import examples
from tests.unit.readpath_fixtures import Gets, content, put, running


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


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
