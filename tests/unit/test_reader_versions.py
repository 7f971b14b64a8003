"""Readers when answers fail, are wrong, or the version is gone or moved."""

import errno
from dataclasses import replace

import pytest
import trio
import trio.testing

from s3mount.core.config import KIB, MIB
from s3mount.core.errors import FilesystemError
from s3mount.readpath.remote import RemoteObject
from s3mount.store.errors import (
    CorruptAnswer,
    ServerError,
)
from s3mount.store.memory import ALL_CAPABILITIES, MemoryStore
from tests.unit.readpath_fixtures import Gets, answering, content, failing, flipped, put, running


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
    answering(store, lambda _, right: replace(right, data=right.data[:-1]))
    async with running(store) as path:
        reader = path.open(remote)
        with pytest.raises(FilesystemError) as caught:
            await reader.read(0, 4 * KIB)
        assert caught.value.errno == errno.EIO
        reader.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_small_object_that_does_not_match_its_etag_is_fetched_again(whole: bool) -> None:
    store = MemoryStore()
    data = content(10 * KIB)
    remote = put(store, "k", data)
    answering(store, lambda number, right: flipped(right) if number == 0 else right)
    async with running(store) as path:
        if whole:
            assert (await path.fetch_small("k", 256 * KIB))[1] == data
        else:
            reader = path.open(remote)
            assert bytes(await reader.read(0, 4 * KIB)) == data[: 4 * KIB]
            reader.close()
    assert store.counts()["GetObject"] == 2


async def test_bytes_that_differ_each_time_are_an_error_and_never_passed_on() -> None:
    store = MemoryStore()
    put(store, "k", content(10 * KIB))
    answering(
        store,
        lambda number, right: replace(right, data=bytes([number]) + right.data[1:]),
    )
    async with running(store) as path:
        with pytest.raises(FilesystemError) as caught:
            await path.fetch_small("k", 256 * KIB)
        assert caught.value.errno == errno.EIO


async def test_where_etags_are_no_md5s_two_more_gets_find_out_once() -> None:
    store = MemoryStore()
    for number in range(5):
        put(store, f"k{number}", content(KIB))
    other = "0123456789abcdef" * 2
    answering(store, lambda _, right: replace(right, info=replace(right.info, etag=other)))
    async with running(store) as path:
        for number in range(5):
            assert (await path.fetch_small(f"k{number}", 256 * KIB))[1] == content(KIB)
    assert store.counts()["GetObject"] == 7


async def test_where_etags_are_md5s_the_same_wrong_bytes_each_time_are_an_error() -> None:
    store = MemoryStore()
    for name in ("right", "wrong"):
        put(store, name, content(KIB))
    answering(store, lambda _, right: flipped(right) if right.info.key == "wrong" else right)
    async with running(store) as path:
        assert (await path.fetch_small("right", 256 * KIB))[1] == content(KIB)
        with pytest.raises(FilesystemError) as caught:
            await path.fetch_small("wrong", 256 * KIB)
        assert caught.value.errno == errno.EIO
        assert (await path.fetch_small("right", 256 * KIB))[1] == content(KIB)


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
