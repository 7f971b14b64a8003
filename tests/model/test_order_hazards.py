"""Ruling 10's hazards: changes that follow each other faster than they reach the bucket."""

import os
import random
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents, files, leftovers, permissions, requests
from tests.model.mounted import Client, mounted, with_writeback

ONE, TWO, THREE = b"one " * 500, b"two", b"three" * 3000
MINUTE = 60.0


@pytest.fixture(params=range(3))
def shuffle(request: pytest.FixtureRequest) -> random.Random:
    """Intents that may start together start in any order."""
    return random.Random(request.param)


@pytest.fixture
async def client(
    store: MemoryStore, config: MountConfig, shuffle: random.Random
) -> AsyncIterator[Client]:
    async with mounted(store, config, shuffle) as client:
        yield client


async def settled(client: Client, store: MemoryStore) -> None:
    """All is sent, and nothing is left over."""
    for handle in list(client.handles):
        await client.close(handle)
    assert not await client.fs.drain(MINUTE)
    await trio.sleep(0.1)
    assert leftovers(client.fs, store) == []


async def test_a_file_renamed_and_its_old_name_made_again(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.rename("a", "b")
    await client.write("a", TWO)
    assert (await client.read("a"), await client.read("b")) == (TWO, ONE)
    await settled(client, store)
    assert contents(store) == {"a": TWO, "b": ONE}


async def test_an_unlinked_name_made_again_with_o_excl(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.unlink("a")
    handle = await client.create("a", os.O_WRONLY | os.O_EXCL)
    await client.fs.write(handle, 0, TWO)
    await client.close(handle)
    assert await client.read("a") == TWO
    await settled(client, store)
    assert contents(store) == {"a": TWO}


async def test_two_names_swapped_through_a_third(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.write("b", TWO)
    await client.rename("a", "c")
    await client.rename("b", "a")
    await client.rename("c", "b")
    assert (await client.read("a"), await client.read("b")) == (TWO, ONE)
    await settled(client, store)
    assert contents(store) == {"a": TWO, "b": ONE}


async def test_a_chain_of_renames_within_the_delay_is_one_copy(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    before = store.counts()
    await client.rename("a", "b")
    await client.rename("b", "c")
    await client.rename("c", "d")
    assert await client.ls() == ["d"]
    await settled(client, store)
    assert contents(store) == {"d": ONE}
    assert requests(before, store.counts())["CopyObject"] == 1


async def test_a_rename_there_and_back_changes_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.rename("a", "b")
    await client.rename("b", "a")
    assert await client.read("a") == ONE
    await settled(client, store)
    assert contents(store) == {"a": ONE}


async def test_new_files_in_a_renamed_directory_and_in_its_old_name(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.write("d/f", ONE)
    assert not await client.fs.drain(MINUTE)
    await client.rename("d", "e")
    await client.write("e/new", TWO)
    await client.mkdir("d")
    await client.write("d/f", THREE)
    assert await client.ls("e") == ["f", "new"]
    assert await client.ls("d") == ["f"]
    assert (await client.read("e/f"), await client.read("d/f")) == (ONE, THREE)
    await settled(client, store)
    assert files(store) == {"e/f": ONE, "e/new": TWO, "d/f": THREE}


async def test_an_unlinked_file_does_not_move_with_its_directory_when_its_name_is_made_again(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.write("d/f", ONE)
    assert not await client.fs.drain(MINUTE)
    await client.unlink("d/f")
    await client.rename("d", "e")
    await client.mkdir("d")
    await client.write("d/f", TWO)
    assert await client.ls("e") == []
    await settled(client, store)
    assert files(store) == {"d/f": TWO}


async def test_nested_directories_renamed_one_after_the_other(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("a")
    await client.mkdir("a/b")
    await client.mkdir("a/b/c")
    await client.write("a/b/c/f", ONE)
    assert not await client.fs.drain(MINUTE)
    await client.rename("a/b/c", "a/b/x")
    await client.rename("a/b", "y")
    await client.rename("a", "y/z")
    await client.write("y/x/g", TWO)
    assert await client.read("y/x/f") == ONE
    assert await client.ls("y") == ["x", "z"]
    await settled(client, store)
    assert contents(store) == {"y/": b"", "y/x/": b"", "y/z/": b"", "y/x/f": ONE, "y/x/g": TWO}


async def test_a_renamed_file_unlinked_before_its_copy(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.rename("a", "b")
    await client.unlink("b")
    assert await client.ls() == []
    await settled(client, store)
    assert contents(store) == {}


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_file_replaced_by_a_rename_while_it_is_read(
    client: Client, store: MemoryStore, foreign: bool, autojump_clock: MockClock
) -> None:
    if foreign:
        store.put_foreign("old", THREE)
    else:
        await client.write("old", THREE)
    await client.write("new", ONE)
    reader = await client.open("old")
    assert await client.fs.read(reader, 0, 10) == THREE[:10]
    await client.rename("new", "old")
    assert await client.read("old") == ONE
    assert await client.read_all(reader) == THREE
    assert not await client.fs.drain(MINUTE)
    assert contents(store) == {"old": ONE}
    assert await client.read_all(reader) == THREE
    await settled(client, store)


async def test_a_directory_removed_made_again_and_filled(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.write("d/old", ONE)
    assert not await client.fs.drain(MINUTE)
    await client.unlink("d/old")
    await client.rmdir("d")
    await client.mkdir("d", 0o700)
    await client.write("d/new", TWO)
    assert await client.ls("d") == ["new"]
    await settled(client, store)
    assert contents(store) == {"d/": b"", "d/new": TWO}
    assert permissions(store, "d/") == 0o700


async def test_an_implied_directory_outlives_its_last_child(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", ONE)
    await client.unlink("d/f")
    assert await client.ls() == ["d"]
    assert await client.ls("d") == []
    await settled(client, store)
    assert contents(store) == {"d/": b""}


async def test_an_implied_directory_outlives_the_move_of_its_last_child(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", ONE)
    await client.rename("d/f", "f")
    await settled(client, store)
    assert contents(store) == {"d/": b"", "f": ONE}


async def test_an_implied_directory_in_which_a_file_was_never_closed_outlives_the_others(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", ONE)
    handle = await client.create("d/new")
    await client.rename("d/f", "f")
    await client.fsyncdir("")
    assert contents(store) == {"d/": b"", "f": ONE}
    await client.release(handle)


async def test_what_is_made_and_removed_within_the_delay_sends_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.ls()
    before = store.counts()
    await client.mkdir("d")
    handle = await client.create("d/f")
    await client.fs.write(handle, 0, ONE)
    await client.unlink("d/f")
    await client.release(handle)
    await client.rmdir("d")
    await settled(client, store)
    assert requests(before, store.counts()) == {}


async def test_attributes_and_rename_together_are_one_copy(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("a", ONE)
    await client.ls()
    before = store.counts()
    await client.setattr("a", mode=0o600)
    await client.setattr("a", uid=7, gid=8)
    await client.setattr("a", mtime_ns=123_456_789)
    await client.rename("a", "b")
    await settled(client, store)
    assert contents(store) == {"b": ONE}
    metadata = store.objects["b"].metadata
    assert (metadata["uid"], metadata["gid"], metadata["mtime"]) == ("7", "8", "0.123456789")
    assert permissions(store, "b") == 0o600
    counted = requests(before, store.counts())
    assert counted.pop("CopyObject") == 1
    assert counted == {"HeadObject": 1, "DeleteObject": 1}


async def test_many_deletes_are_one_request(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    for number in range(20):
        store.put_foreign(f"f{number}", ONE)
    await client.ls()
    before = store.counts()
    for number in range(20):
        await client.unlink(f"f{number}")
    assert await client.ls() == []
    await settled(client, store)
    assert contents(store) == {}
    counted = requests(before, store.counts())
    assert counted["DeleteObjects"] == 1
    assert "DeleteObject" not in counted


async def test_a_file_open_for_writing_is_sent_under_its_new_name(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("a")
    await client.fs.write(handle, 0, THREE)
    await client.rename("a", "b")
    await client.fs.write(handle, len(THREE), ONE)
    await client.close(handle)
    assert await client.ls() == ["b"]
    await settled(client, store)
    assert contents(store) == {"b": THREE + ONE}


async def test_an_unlinked_file_is_read_and_written_on_by_its_handles(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("a", THREE)
    handle = await client.open("a", os.O_RDWR)
    await client.unlink("a")
    await client.fs.write(handle, 3, b"XYZ")
    assert not await client.fs.drain(MINUTE)
    assert await client.read_all(handle) == THREE[:3] + b"XYZ" + THREE[6:]
    assert await client.ls() == []
    await settled(client, store)
    assert contents(store) == {}


async def test_a_directory_renamed_while_a_file_in_it_is_written(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    store.put_foreign("d/old", TWO)
    handle = await client.create("d/f")
    await client.fs.write(handle, 0, THREE)
    await client.rename("d", "e")
    await client.fs.write(handle, len(THREE), ONE)
    await client.close(handle)
    await settled(client, store)
    assert contents(store) == {"e/": b"", "e/f": THREE + ONE, "e/old": TWO}


async def test_a_rename_of_a_directory_over_an_empty_one(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d", 0o711)
    await client.write("d/f", ONE)
    await client.mkdir("e", 0o700)
    assert not await client.fs.drain(MINUTE)
    await client.rename("d", "e")
    await settled(client, store)
    assert contents(store) == {"e/": b"", "e/f": ONE}
    assert permissions(store, "e/") == 0o711


async def test_a_file_may_take_the_name_of_a_removed_directory(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.write("d/f", ONE)
    assert not await client.fs.drain(MINUTE)
    await client.unlink("d/f")
    await client.rmdir("d")
    await client.write("d", TWO)
    assert await client.ls() == ["d"]
    await settled(client, store)
    assert contents(store) == {"d": TWO}


async def test_a_directory_may_take_the_name_of_an_unlinked_file(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("d", ONE)
    await client.unlink("d")
    await client.mkdir("d")
    await client.write("d/f", TWO)
    await settled(client, store)
    assert contents(store) == {"d/": b"", "d/f": TWO}


async def test_a_full_directory_is_not_removed(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", ONE)
    with pytest.raises(FilesystemError, match="ENOTEMPTY"):
        await client.rmdir("d")
    await settled(client, store)
    assert contents(store) == {"d/f": ONE}


async def test_a_renamed_directory_takes_children_along_that_were_never_listed(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    store.put_foreign("d/f", ONE)
    await client.setattr("d", mode=0o700)  # its marker is on its way, its children are unknown
    await client.rename("d", "e")
    assert await client.read("e/f") == ONE
    await settled(client, store)
    assert contents(store) == {"e/": b"", "e/f": ONE}


async def test_a_directory_in_the_place_of_a_renamed_one_shows_none_of_its_files(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    async def slow(operation: str, _: str) -> None:
        await trio.sleep(30 if operation == "CopyObject" else 0)

    store.put_foreign("d/f", ONE)
    store.put_foreign("d/g", TWO)
    await client.ls("d")
    store.before = slow
    await client.rename("d", "e")
    await client.mkdir("d")
    await trio.sleep(10)
    assert await client.ls("d") == []
    await client.rename("e/f", "d/f")
    assert await client.ls("d") == ["f"]
    assert await client.read("d/f") == ONE
    await client.rename("d", "x")
    await client.write("d", TWO)
    await trio.sleep(60)
    assert (await client.read("x/f"), await client.read("d")) == (ONE, TWO)
    store.before = None
    await settled(client, store)
    assert contents(store) == {"d": TWO, "e/g": TWO, "x/": b"", "x/f": ONE}


async def test_a_directory_made_removed_and_made_again_over_a_stored_one(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    assert not await client.fs.drain(MINUTE)
    for _ in range(2):
        await client.rmdir("d")
        await client.mkdir("d")
    await client.rmdir("d")
    await settled(client, store)
    assert contents(store) == {}
    await client.symlink("d", b"target")
    await settled(client, store)
    assert contents(store) == {"d": b"target"}


async def test_a_directory_removed_while_its_marker_is_written_twice(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    async def slow(operation: str, _: str) -> None:
        await trio.sleep(1 if operation == "PutObject" else 0)

    store.before = slow
    await client.mkdir("d")
    await trio.sleep(0.7)
    await client.setattr("d", mode=0o700)
    await client.rmdir("d")
    await settled(client, store)
    assert contents(store) == {}


async def test_a_name_taken_by_an_unsent_file_and_left_again_is_free(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("old", ONE)
    handle = await client.create("new")
    await client.rename("new", "old")
    await client.rename("old", "other")
    await client.close(handle)
    await settled(client, store)
    assert contents(store) == {"other": b""}


async def test_an_unsent_directory_that_had_taken_anothers_name_leaves_nothing_there(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    assert not await client.fs.drain(MINUTE)
    await client.mkdir("new")
    await client.rename("new", "d")
    await client.rename("d", "other")
    await settled(client, store)
    assert contents(store) == {"other/": b""}


async def test_a_renamed_file_follows_its_directory_through_two_renames(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    async def slow(operation: str, _: str) -> None:
        await trio.sleep(5 if operation == "CopyObject" else 0)

    store.put_foreign("a/f", THREE)
    store.before = slow
    await client.mkdir("c")
    await client.rename("a/f", "a/g")
    await client.rename("a", "c/b")
    await client.rename("c/b", "d")
    for _ in range(30):
        await trio.sleep(1)
        assert await client.read("d/g") == THREE
    store.before = None
    await settled(client, store)
    assert files(store) == {"d/g": THREE}


async def test_a_failed_write_leaves_the_size_as_it_was(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """An unlinked file fills the spool and can be sent nowhere, and nothing may be published
    before it is closed."""
    full = with_writeback(config, spool_limit=32 * 1024, refuse_early_publish=True)
    async with mounted(store, full) as client:
        hog = await client.create("hog", os.O_RDWR)
        await client.unlink("hog")
        for offset in range(0, 28 * 1024, 4096):
            await client.fs.write(hog, offset, bytes(4096))
        handle = await client.create("f", os.O_RDWR)
        await client.fs.write(handle, 0, TWO)
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await client.fs.write(handle, 4096, THREE)
        found = await client.stat("f")
        assert await client.read_all(handle) == (TWO + bytes(9000))[: found.size]
        await client.release(hog)
        await client.fs.write(handle, len(TWO), ONE)
        await client.close(handle)
        assert (await client.read("f"))[: len(TWO + ONE)] == TWO + ONE
        await settled(client, store)


async def test_a_small_file_whose_first_part_left_the_spool_is_read_as_it_was_written(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """Not as zeros, which were kept for its next reader."""
    data = random.Random(7).randbytes(5000)  # two parts, and small enough to be kept whole
    handle = await client.create("f")
    await client.fs.write(handle, 0, data)
    await trio.sleep(1)  # the first part is sent
    (file,) = client.fs.state.open_files.values()
    assert file.spooled is not None
    assert client.fs.state.uploader._drop_oldest(ends=True)
    assert list(file.spooled.dropped) == [(0, 4096)]
    await client.close(handle)
    assert contents(store) == {"f": data}
    assert await client.read("f") == data
