"""What each thing that a program does costs in requests."""

import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MIB, MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents, requests
from tests.model.mounted import KIB, TTL, Client, memory_store, mounted, tiny_config

SMALL = b"small " * 500
MINUTE = 60.0


@pytest.fixture
def config(tmp_path: Path) -> MountConfig:
    """Tiny parts, but small objects are read whole, as with the default options."""
    config = tiny_config(tmp_path)
    return replace(config, read=replace(config.read, first_request=8 * KIB, small_object=8 * KIB))


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client


class Counted:
    """`async with`: the requests of the block and all that follows from it are in `counts`."""

    def __init__(self, client: Client, store: MemoryStore) -> None:
        self.client, self.store = client, store
        self.counts: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    async def __aenter__(self) -> "Counted":
        assert not await self.client.fs.drain(MINUTE)
        self._before = dict(self.store.counts())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not await self.client.fs.drain(MINUTE)
        after = self.store.counts()
        self.counts = requests(self._before, after)
        self.bytes_in = after.get("BytesIn", 0) - self._before.get("BytesIn", 0)
        self.bytes_out = after.get("BytesOut", 0) - self._before.get("BytesOut", 0)


async def test_a_new_file_in_a_directory_made_here_is_one_put(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    async with Counted(client, store) as seen:
        await client.write("d/f", SMALL)
    assert seen.counts == {"PutObject": 1}
    assert contents(store) == {"d/": b"", "d/f": SMALL}


async def test_a_tree_of_new_files_is_one_put_each(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """As `cp -a`: data, mode, owner, times of each."""
    await client.ls()
    async with Counted(client, store) as seen:
        for directory in range(5):
            await client.mkdir(f"d{directory}")
            for file in range(10):
                path = f"d{directory}/f{file}"
                handle = await client.create(path)
                await client.fs.write(handle, 0, SMALL)
                await client.setattr(path, mtime_ns=1, atime_ns=2)
                await client.setattr(path, uid=3, gid=4)
                await client.setattr(path, mode=0o600)
                await client.close(handle)
            await client.setattr(f"d{directory}", mtime_ns=5)
    assert seen.counts == {"PutObject": 5 + 5 * 10}


async def test_a_thousand_files_are_removed_by_a_handful_of_requests(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    for number in range(1000):
        store.put_foreign(f"d/f{number}", SMALL)
    names = await client.ls("d")
    async with Counted(client, store) as seen:
        for name in names:
            await client.unlink(f"d/{name}")
        await client.rmdir("d")
    assert contents(store) == {}
    assert seen.counts["DeleteObjects"] <= 4
    assert sum(seen.counts.values()) <= 8


async def test_a_missing_name_in_a_listed_directory_costs_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", SMALL)
    await client.ls("d")
    async with Counted(client, store) as seen:
        for number in range(100):
            assert not await client.exists(f"d/missing{number}")
    assert seen.counts == {}


@pytest.fixture
async def large(store: MemoryStore) -> bytes:
    data = random.Random(1).randbytes(1 * MIB)
    store.put_foreign("large", data)
    return data


async def test_an_append_to_a_large_object_reads_nothing_but_its_edge(
    client: Client, store: MemoryStore, large: bytes, autojump_clock: MockClock
) -> None:
    async with Counted(client, store) as seen:
        handle = await client.open("large", os.O_WRONLY | os.O_APPEND)
        await client.fs.write(handle, 0, SMALL)
        await client.close(handle)
    assert contents(store) == {"large": large + SMALL}
    assert seen.bytes_in <= 8 * KIB  # of these 4 KiB when the version was looked at
    assert seen.bytes_out <= len(SMALL) + 8 * KIB


async def test_an_edit_of_a_large_object_sends_what_changed(
    client: Client, store: MemoryStore, large: bytes, autojump_clock: MockClock
) -> None:
    async with Counted(client, store) as seen:
        await client.edit("large", 500_000, SMALL)
    wanted = large[:500_000] + SMALL + large[500_000 + len(SMALL) :]
    assert contents(store) == {"large": wanted}
    assert seen.bytes_in <= 16 * KIB
    assert seen.bytes_out <= len(SMALL) + 16 * KIB


@pytest.mark.parametrize("size", [700_001, 1_200_000])
async def test_a_truncation_of_a_large_object_reads_nothing_but_its_edge(
    client: Client, store: MemoryStore, large: bytes, autojump_clock: MockClock, size: int
) -> None:
    async with Counted(client, store) as seen:
        await client.setattr("large", size=size)
    assert contents(store) == {"large": (large + bytes(MIB))[:size]}
    assert seen.bytes_in <= 16 * KIB
    assert seen.bytes_out <= max(0, size - len(large)) + 16 * KIB


async def test_a_rename_moves_no_byte_through_this_host(
    client: Client, store: MemoryStore, large: bytes, autojump_clock: MockClock
) -> None:
    await client.ls()
    async with Counted(client, store) as seen:
        await client.rename("large", "renamed")
    assert contents(store) == {"renamed": large}
    assert "GetObject" not in seen.counts
    assert (seen.bytes_in, seen.bytes_out) == (0, 0)


async def test_a_small_file_in_a_listed_directory_is_read_by_one_get(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", b"x" * 5000)
    await client.ls("d")
    await trio.sleep(1.5)
    async with Counted(client, store) as seen:
        assert await client.read("d/f") == b"x" * 5000
    assert seen.counts == {"GetObject": 1}


async def test_a_file_just_written_is_read_without_a_request(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", SMALL)
    async with Counted(client, store) as seen:
        assert await client.read("f") == SMALL
    assert seen.counts == {}


async def test_a_directory_listed_again_costs_only_the_list(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    for number in range(1000):
        store.put_foreign(f"d/f{number}", b"x" * 5000, {"mode": "33184"})
    await trio.sleep(5)  # LastModified is safely in the past
    assert len(await client.ls("d")) == 1000
    for number in range(1000):
        assert (await client.stat(f"d/f{number}")).attributes.mode == 0o100640
    await trio.sleep(TTL + 1)
    async with Counted(client, store) as seen:
        for name in await client.ls("d"):
            assert (await client.stat(f"d/{name}")).attributes.mode == 0o100640
    assert seen.counts.pop("ListObjectsV2") <= 2
    assert sum(seen.counts.values()) <= 1  # of d itself, which has no marker


async def test_a_directory_seen_before_a_restart_costs_only_the_list(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    cached = replace(
        config,
        namespace=replace(config.namespace, stat_cache_path=config.cache_dir / "attributes.sqlite"),
    )
    for number in range(1000):
        store.put_foreign(f"d/f{number}", b"x" * 5000, {"mode": "33184"})
    await trio.sleep(5)
    numbers = {}
    async with mounted(store, cached) as client:
        for name in await client.ls("d"):
            numbers[name] = (await client.stat(f"d/{name}")).number
    async with mounted(store, cached) as client:
        before = dict(store.counts())
        for name in await client.ls("d"):
            found = await client.stat(f"d/{name}")
            assert found.attributes.mode == 0o100640
            assert found.number == numbers[name]
        counted = requests(before, store.counts())
    assert counted.pop("ListObjectsV2") <= 2
    assert sum(counted.values()) <= 2  # of the name d


async def test_what_was_written_here_is_known_after_a_restart(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    cached = replace(
        config,
        namespace=replace(config.namespace, stat_cache_path=config.cache_dir / "attributes.sqlite"),
    )
    async with mounted(store, cached) as client:
        await client.mkdir("d")
        for number in range(50):
            await client.write(f"d/f{number}", SMALL)
            await client.rename(f"d/f{number}", f"d/g{number}")
        wanted = {name: (await client.stat(f"d/{name}")) for name in await client.ls("d")}
    await trio.sleep(5)
    async with mounted(store, cached) as client:
        found = {name: (await client.stat(f"d/{name}")) for name in await client.ls("d")}
        assert {name: one.number for name, one in found.items()} == {
            name: one.number for name, one in wanted.items()
        }
        assert {name: one.attributes.mtime_ns for name, one in found.items()} == {
            name: one.attributes.mtime_ns for name, one in wanted.items()
        }


async def test_a_directory_rename_costs_a_copy_for_each_object_and_few_more(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    for number in range(100):
        await client.write(f"d/f{number}", SMALL)
    async with Counted(client, store) as seen:
        await client.rename("d", "e")
    assert len(contents(store)) == 101
    assert seen.counts.pop("CopyObject") == 101
    assert sum(seen.counts.values()) <= 6
    assert (seen.bytes_in, seen.bytes_out) == (0, 0)


async def test_a_walk_over_many_directories_costs_few_lists(
    autojump_clock: MockClock, config: MountConfig
) -> None:
    store = memory_store()
    for directory in range(50):
        for file in range(10):
            store.put_foreign(f"t/d{directory:02}/f{file}", b"x" * 5000)
    async with mounted(store, config) as client:
        before = dict(store.counts())
        found = 0
        for name in await client.ls("t"):
            found += len(await client.ls(f"t/{name}"))
        assert found == 500
        counted = requests(before, store.counts())
    assert counted["ListObjectsV2"] <= 10


async def test_a_log_loop_sends_each_line_once(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    async with Counted(client, store) as seen:
        for line in range(50):
            await client.write("log", b"line %03d\n" % line, os.O_APPEND)
    assert contents(store) == {"log": b"".join(b"line %03d\n" % line for line in range(50))}
    assert seen.counts.pop("PutObject") == 50
    assert sum(seen.counts.values()) <= 4
