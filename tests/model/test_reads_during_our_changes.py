"""Whoever reads while this mount itself replaces the object gets bytes, not ESTALE."""

import os
import stat

import trio

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.mounted import KIB, memory_store, mounted

OLD = bytes(range(256)) * 80  # 20 KiB: not read whole at once
LATE = 1.0


def slow_store(*, answer: str) -> tuple[MemoryStore, trio.Event]:
    """Requests `answer` are carried out at once, which sets the event, but answered late."""
    carried_out = trio.Event()

    async def pause(operation: str, _: str) -> None:
        if operation == answer:
            carried_out.set()
            await trio.sleep(LATE)

    return memory_store(after=pause), carried_out


async def test_a_read_overtaken_by_our_own_commit(
    config: MountConfig, autojump_clock: object
) -> None:
    slow = trio.Event()

    async def first_get_is_late(operation: str, _: str) -> None:
        if operation == "GetObject" and slow.is_set() and not overtaken.is_set():
            overtaken.set()
            await trio.sleep(LATE)

    overtaken = trio.Event()
    store = memory_store(before=first_get_is_late)
    store.put_foreign("a", OLD)
    async with mounted(store, config) as client, trio.open_nursery() as nursery:
        reader = await client.open("a")
        writer = await client.open("a", os.O_WRONLY)
        await client.fs.write(writer, 0, b"new")
        slow.set()

        async def overtake() -> None:
            await overtaken.wait()
            await client.close(writer)

        nursery.start_soon(overtake)
        got = bytes(await client.fs.read(reader, 16 * KIB, 2 * KIB))
        assert overtaken.is_set()
        assert got == OLD[16 * KIB : 18 * KIB]


async def test_a_read_while_our_own_commits_answer_is_on_its_way(
    config: MountConfig, autojump_clock: object
) -> None:
    store, replaced = slow_store(answer="CompleteMultipartUpload")
    store.put_foreign("a", OLD)
    async with mounted(store, config) as client, trio.open_nursery() as nursery:
        reader = await client.open("a")
        writer = await client.open("a", os.O_WRONLY)
        await client.fs.write(writer, 0, b"new")
        nursery.start_soon(client.close, writer)
        await replaced.wait()
        got = bytes(await client.fs.read(reader, 16 * KIB, 2 * KIB))
        assert got == OLD[16 * KIB : 18 * KIB]


async def test_a_read_overtaken_by_our_own_chmod(
    config: MountConfig, autojump_clock: object
) -> None:
    store, replaced = slow_store(answer="CopyObject")
    async with mounted(store, config) as client:
        await client.write("a", OLD)
        stored = store.objects["a"]
        reader = await client.open("a")
        await client.setattr("a", mode=0o600)
        await replaced.wait()
        assert store.objects["a"].etag != stored.etag  # it was a multipart object
        got = bytes(await client.fs.read(reader, 16 * KIB, 2 * KIB))
        assert got == OLD[16 * KIB : 18 * KIB]
        assert stat.S_IMODE((await client.stat("a")).attributes.mode) == 0o600
