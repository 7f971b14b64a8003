"""With write-back closed files fill the spool: who waits for room, for what, and for how long."""

import errno
import os

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents
from tests.model.mounted import KIB, mounted, with_writeback

LARGE = b"large!" * 4000
MINUTE = 60.0
SPOOL = 64 * KIB
SENDING = {"PutObject", "CreateMultipartUpload", "UploadPart"}


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    return with_writeback(config, durability="journal", spool_limit=SPOOL)


async def test_a_full_spool_makes_writers_wait_for_what_waits_to_be_coalesced(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    config = with_writeback(config, namespace_delay=MINUTE)
    async with mounted(store, config) as client:
        started = trio.current_time()
        for number in range(10):
            await client.write(f"f{number}", LARGE)
        assert trio.current_time() - started < 30
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {f"f{number}": LARGE for number in range(10)}


async def test_a_full_spool_that_nothing_drains_is_enospc(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    async def hanging(operation: str, key: str) -> None:
        await trio.sleep(10)
        raise ConnectionLost("no answer", operation=operation, key=key)

    async with mounted(store, config) as client:
        await client.ls()
        store.before = hanging
        done = 0
        started = trio.current_time()
        with pytest.raises(FilesystemError) as caught:
            for number in range(10):
                await client.write(f"f{number}", LARGE)
                done += 1
        assert caught.value.errno == errno.ENOSPC
        assert done >= 1
        timeout = config.writeback.no_progress_timeout
        assert timeout <= trio.current_time() - started <= timeout + 60
        store.before = None
        for handle in list(client.handles):
            await client.release(handle)
        await client.fs.retry("")
        assert not await client.fs.drain(MINUTE)
        found = contents(store)
        assert all(found[f"f{number}"] == LARGE for number in range(done))


async def test_who_needs_room_goes_on_though_the_journals_next_sync_gives_none(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """What is on its way when the spool is full was in memory, and fills no chunk."""

    async def slow(operation: str, key: str) -> None:
        await trio.sleep(2 if operation == "PutObject" else 0)

    async with mounted(store, config) as client:
        await client.write("f", b"x")
        store.before = slow
        await trio.sleep(1)
        started = trio.current_time()
        handle = await client.open("f", os.O_WRONLY)
        for number in range(100):
            await client.fs.write(handle, 1 + number * KIB, b"y" * KIB)
        await client.close(handle)
        assert trio.current_time() - started < 3
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": b"x" + b"y" * 100 * KIB}


async def test_a_file_that_fills_the_spool_and_cannot_be_sent_for_a_while_can_be_written_anew(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """What was closed stays until it is sent: there is no room beside it for the new bytes."""
    config = with_writeback(config, single_put_limit=SPOOL)

    async def down(operation: str, key: str) -> None:
        if operation in SENDING and trio.current_time() < 20:
            raise ConnectionLost("down", operation=operation, key=key)

    async with mounted(store, config) as client:
        store.before = down
        handle = await client.create("f")
        await client.fs.write(handle, 1, b"1" * (SPOOL - 1))  # nothing of it in memory
        await client.close(handle)
        handle = await client.open("f", os.O_WRONLY | os.O_TRUNC)
        for number in range(60):
            await client.fs.write(handle, 1000 + number * KIB, b"2" * KIB)
        await client.close(handle)
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"f": bytes(1000) + b"2" * 60 * KIB}


async def test_a_removed_file_that_fills_the_spool_is_enospc_at_once(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """Nothing will ever be sent of it. What fits is written, and read again."""
    async with mounted(store, config) as client:
        handle = await client.create("f", os.O_RDWR)
        await client.unlink("f")
        started = trio.current_time()
        written = 0
        with pytest.raises(FilesystemError) as caught:
            while written < 100 * KIB:
                await client.fs.write(handle, written, b"x" * KIB)
                written += KIB
        assert caught.value.errno == errno.ENOSPC
        assert trio.current_time() - started < 1
        assert written >= 56 * KIB
        assert await client.read_all(handle) == b"x" * written
        await client.release(handle)
        await client.write("g", LARGE)
        assert not await client.fs.drain(MINUTE)
        assert contents(store) == {"g": LARGE}


@pytest.mark.parametrize("size", [900, 10 * KIB])
async def test_a_spool_of_four_parts_full_of_closed_files_while_the_service_is_down(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock, size: int
) -> None:
    """A writer waits, gets ENOSPC in time, and all goes on by itself when the service is back."""
    config = with_writeback(config, spool_limit=16 * KIB, no_progress_timeout=30.0)

    async def down(operation: str, key: str) -> None:
        raise ConnectionLost("down", operation=operation, key=key)

    async with mounted(store, config) as client:
        await client.ls()
        store.before = down
        closed: dict[str, bytes] = {}
        with pytest.raises(FilesystemError) as caught:
            for number in range(1000):
                data = bytes([number % 251]) * size
                started = trio.current_time()
                await client.write(f"f{number}", data)
                closed[f"f{number}"] = data
        assert caught.value.errno == errno.ENOSPC
        assert 30 <= trio.current_time() - started <= 40
        assert closed
        for name, data in closed.items():
            assert await client.read(name) == data
        for handle in list(client.handles):
            await client.release(handle)
        store.before = None
        await trio.sleep(2 * MINUTE)
        found = contents(store)
        assert {name: found.get(name) for name in closed} == closed
        await client.write("later", LARGE)
        assert not await client.fs.drain(MINUTE)
        assert contents(store)["later"] == LARGE
