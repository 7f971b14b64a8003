"""Which times and mode bits a call changes, as local file systems on Linux have it."""

import os
import stat
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.filesystem.stat import Stat
from s3mount.filesystem.timestamps import REALTIME_COARSE
from s3mount.store.memory import MemoryStore
from tests.model.bucket import attributes_of, permissions
from tests.model.mounted import GID, TTL, UID, Client, mounted
from tests.model.relaunching import one_tick

LONG_AGO = 1_000_000_000_000_000_000
STRANGER = (2001, 2002)


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client


@pytest.fixture
def virtual_times() -> Iterator[None]:
    """Files' times follow the autojump_clock."""
    with one_tick():
        yield


async def aged(client: Client, path: str) -> Stat:
    """All times of the file are long ago, here and in the bucket."""
    await client.setattr(path, mtime_ns=LONG_AGO, atime_ns=LONG_AGO, ctime_ns=LONG_AGO)
    await client.fs.drain(60.0)
    return await client.stat(path)


def times(found: Stat) -> tuple[bool, bool]:
    """Whether mtime and ctime are newer than `aged` made them."""
    return found.attributes.mtime_ns > LONG_AGO, found.attributes.ctime_ns > LONG_AGO


async def test_a_rename_changes_the_ctime_of_what_is_renamed(client: Client) -> None:
    await client.write("file", b"x")
    await client.mkdir("directory")
    await client.symlink("link", b"file")
    for name in ("file", "directory", "link"):
        await aged(client, name)
        await client.rename(name, "new " + name)
        assert times(await client.stat("new " + name)) == (False, True)


async def test_a_renames_ctime_reaches_the_bucket(client: Client, store: MemoryStore) -> None:
    await client.write("a", b"x")
    await aged(client, "a")
    await client.rename("a", "b")
    await client.fs.drain(60.0)
    stored = attributes_of(store.objects["b"])
    assert stored.ctime_ns == (await client.stat("b")).attributes.ctime_ns > LONG_AGO
    assert stored.mtime_ns == LONG_AGO


@pytest.mark.usefixtures("virtual_times")
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
async def test_a_ctime_that_was_shown_does_not_go_back(
    client: Client, kind: str, autojump_clock: object
) -> None:
    """Neither of these changes is worth a copy of the object, which keeps an older ctime."""
    if kind == "file":
        await client.write("a", b"x")
    elif kind == "directory":
        await client.mkdir("a")
    else:
        await client.symlink("a", b"x")
    await client.rename("a", "b")
    await trio.sleep(1)
    await client.rename("b", "a")
    mode = (await client.stat("a")).attributes.mode
    await trio.sleep(1)
    shown = await client.setattr("a", mode=mode)
    await trio.sleep(2 * TTL)  # asked for again
    assert await client.ls() == ["a"]
    assert (await client.stat("a")).attributes == shown.attributes


async def test_losing_its_last_name_changes_the_ctime_of_an_open_file(client: Client) -> None:
    for path, lose in (("a", client.unlink("a")), ("b", client.rename("c", "b"))):
        await client.write(path, b"x")
        await client.write("c", b"y")
        found = await aged(client, path)
        handle = await client.open(path)
        await lose
        gone = await client.fs.getattr(found.number)
        assert gone.nlink == 0
        assert times(gone) == (False, True)
        await client.release(handle)


@pytest.mark.parametrize("size", [0, 3])
async def test_truncation_to_the_same_size_changes_the_times_here_and_in_the_bucket(
    client: Client, store: MemoryStore, size: int
) -> None:
    await client.write("a", b"x" * size)
    await aged(client, "a")
    await client.setattr("a", size=size)
    found = await client.stat("a")
    assert times(found) == (True, True)
    await client.fs.drain(60.0)
    assert attributes_of(store.objects["a"]).mtime_ns == found.attributes.mtime_ns


async def test_o_trunc_of_an_empty_file_makes_it_newer(client: Client, store: MemoryStore) -> None:
    """`: > stamp` is how make's rules say that something was done."""
    await client.write("stamp", b"")
    await aged(client, "stamp")
    await client.close(await client.open("stamp", os.O_WRONLY | os.O_TRUNC))
    await client.fs.drain(60.0)
    assert attributes_of(store.objects["stamp"]).mtime_ns > LONG_AGO


async def test_chown_to_nobody_in_particular_changes_ctime_alone(client: Client) -> None:
    await client.write("a", b"x")
    before = await aged(client, "a")
    after = await client.setattr("a")
    assert times(after) == (False, True)
    assert (after.attributes.mode, after.attributes.uid) == (before.attributes.mode, UID)


async def test_o_trunc_truncates_what_is_opened_for_reading(
    client: Client, store: MemoryStore
) -> None:
    await client.write("a", b"content")
    await client.close(await client.open("a", os.O_RDONLY | os.O_TRUNC))
    assert (await client.stat("a")).size == 0
    await client.fs.drain(60.0)
    assert store.objects["a"].data == b""


@pytest.mark.parametrize(
    ("before", "caller", "after"),
    [
        (0o6777, STRANGER, 0o777),
        (0o2777, (STRANGER[0], GID), 0o777),
        (0o2666, (STRANGER[0], GID), 0o2666),
        (0o6777, (0, 0), 0o6777),
    ],
)
async def test_o_trunc_by_others_than_root_takes_set_user_id_away(
    client: Client, store: MemoryStore, before: int, caller: tuple[int, int], after: int
) -> None:
    await client.write("a", b"program")
    number = (await client.setattr("a", mode=before)).number
    handle = (await client.fs.open(number, os.O_WRONLY | os.O_TRUNC, *caller)).handle
    await client.fs.flush(handle)
    await client.fs.release(handle)
    await client.fs.drain(60.0)
    assert stat.S_IMODE((await client.stat("a")).attributes.mode) == after
    assert permissions(store, "a") == after


async def test_the_clock_of_files_is_the_kernels(client: Client) -> None:
    """touch(1) of what was just written does not make it older: the kernel sends its last tick."""
    before = time.clock_gettime_ns(REALTIME_COARSE)
    await client.write("a", b"x")
    tick = time.clock_gettime_ns(REALTIME_COARSE)
    attributes = (await client.stat("a")).attributes
    assert before <= attributes.mtime_ns <= tick
    assert attributes.ctime_ns <= tick
