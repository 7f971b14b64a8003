"""RELEASE comes when it comes: the kernel sends about a dozen of its background requests at a time,
and the next program may be writing the file by then. What that has not closed is half a file."""

import os

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents
from tests.model.mounted import KIB, Client, mounted, with_writeback

OLD, NEW = b"old " * KIB, b"new " * 5 * KIB  # one PUT; parts of 4 KiB


@pytest.fixture(params=["close", "journal"])
def config(config: MountConfig, request: pytest.FixtureRequest) -> MountConfig:
    return with_writeback(config, durability=request.param)


async def halves_stay_here(client: Client, store: MemoryStore, writer: int, other: int) -> None:
    """`writer` writes all of the file anew; `other` is released in the middle of it."""
    await client.fs.write(writer, 0, NEW[: 6 * KIB])
    await client.release(other)
    await trio.sleep(30)
    assert contents(store) == {"f": OLD}
    await client.fs.write(writer, 6 * KIB, NEW[6 * KIB :])
    await client.close(writer)
    await client.fs.flush_all()
    assert contents(store) == {"f": NEW}


async def test_a_release_after_the_next_open_publishes_nothing_of_what_that_writes(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    async with mounted(store, config) as client:
        late = await client.create("f")
        await client.fs.write(late, 0, OLD)
        await client.fs.flush(late)
        await client.fs.flush_all()
        writer = await client.open("f", os.O_WRONLY | os.O_TRUNC)
        await halves_stay_here(client, store, writer, late)


async def test_who_has_written_nothing_publishes_nothing_of_what_others_write(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    store.put_foreign("f", OLD)
    async with mounted(store, config) as client:
        idle = await client.open("f", os.O_RDWR)
        writer = await client.open("f", os.O_WRONLY | os.O_TRUNC)
        await halves_stay_here(client, store, writer, idle)


async def test_what_a_handle_has_left_to_send_its_release_sends_though_others_may_write(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    """An O_TRUNC without a write, and a store by mmap after the close."""
    store.put_foreign("f", OLD)
    async with mounted(store, config) as client:
        idle = await client.open("f", os.O_WRONLY)
        await client.close(await client.open("f", os.O_WRONLY | os.O_TRUNC))
        await trio.sleep(30)
        assert contents(store) == {"f": b""}
        mapped = await client.open("f", os.O_RDWR)
        await client.fs.flush(mapped)
        await client.fs.write(mapped, 0, NEW)
        await client.release(mapped)
        await trio.sleep(30)
        assert contents(store) == {"f": NEW}
        await client.close(idle)
