"""What this mount makes of objects that other hosts replace or remove while they are open here."""

import os
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.memory import MemoryStore
from tests.model.bucket import leftovers
from tests.model.mounted import TTL, Client, mounted

OURS, THEIRS = b"ours " * 5000, b"theirs " * 5000


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client


def kept(store: MemoryStore) -> list[bytes]:
    return [found.data for key, found in store.objects.items() if ".conflict-" in key]


async def test_a_handle_opened_later_sees_the_new_version_beside_one_of_the_old(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", OURS)
    old = await client.open("f")
    assert await client.read_all(old) == OURS
    store.put_foreign("f", THEIRS)
    await trio.sleep(1.5)
    assert await client.read("f") == THEIRS
    assert await client.read_all(old) == OURS  # cached


async def test_an_old_handle_whose_bytes_are_gone_gets_estale(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("f", OURS)
    old = await client.open("f")
    store.put_foreign("f", THEIRS)
    with pytest.raises(FilesystemError, match="ESTALE"):
        await client.fs.read(old, len(OURS) - 100, 100)


@pytest.mark.parametrize("removed", [False, True])
async def test_what_an_old_writer_writes_is_kept_beside_the_new_version(
    client: Client, store: MemoryStore, removed: bool, autojump_clock: MockClock
) -> None:
    await client.write("f", OURS)
    writer = await client.open("f", os.O_RDWR)
    assert await client.read_all(writer) == OURS
    if removed:
        store.delete_foreign("f")
    else:
        store.put_foreign("f", THEIRS)
    await trio.sleep(TTL + 1)
    assert await client.exists("f") is not removed  # looks, and so learns of it
    await client.fs.write(writer, 0, b"OURS")
    with pytest.raises(FilesystemError, match="ESTALE"):
        await client.fs.flush(writer)
    await client.release(writer)
    assert len(kept(store)) == 1
    assert kept(store)[0][:4] == b"OURS"
    assert ("f" in store.objects) is not removed
    assert leftovers(client.fs, store) == []


async def test_a_killed_writer_loses_nothing_to_another_host(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", OURS)
    writer = await client.open("f", os.O_RDWR)
    store.put_foreign("f", THEIRS)
    await trio.sleep(TTL + 1)
    assert await client.read("f") == THEIRS
    await client.fs.write(writer, 0, OURS)
    await client.release(writer)
    await trio.sleep(1)
    assert kept(store) == [OURS]
    assert store.objects["f"].data == THEIRS
    assert leftovers(client.fs, store) == []


async def test_after_a_conflict_the_name_shows_the_other_hosts_file_beside_an_old_handle(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", OURS)
    reader = await client.open("f")
    writer = await client.open("f", os.O_RDWR)
    await client.fs.write(writer, 0, b"OURS")
    store.put_foreign("f", THEIRS)
    with pytest.raises(FilesystemError, match="ESTALE"):
        await client.fs.flush(writer)
    await client.release(writer)
    assert await client.read("f") == THEIRS
    assert (await client.stat("f")).size == len(THEIRS)
    await client.release(reader)
