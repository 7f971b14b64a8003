"""Names that are taken again while what had them is still on its way, or its fate not known."""

import os
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents, leftovers
from tests.model.mounted import KIB, TTL, UID, Client, mounted, with_writeback

ONE, TWO = b"one " * 500, b"two"
MINUTE = 60.0


class Loses:
    """The next `times` requests of an operation are lost, or their answers."""

    def __init__(self, operation: str, times: int = 1) -> None:
        self.operation, self.left = operation, times

    def __call__(self, operation: str, key: str) -> None:
        if operation == self.operation and self.left:
            self.left -= 1
            raise ConnectionLost("reset", operation=operation, key=key, ambiguous=True)


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client


async def settled(client: Client, store: MemoryStore) -> None:
    """All is sent, nothing is left over, and nothing failed."""
    assert not await client.fs.drain(10 * MINUTE)
    await trio.sleep(1)
    assert leftovers(client.fs, store) == []
    assert client.fs.state.queue.failures == []


async def test_a_file_whose_forerunners_delete_had_no_answer_is_no_conflict(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """What the name held is not known then: the version that was deleted, or nothing."""
    await client.write("f", ONE)
    await settled(client, store)
    store.after = Loses("DeleteObject")
    await client.unlink("f")
    await trio.sleep(0.6)
    assert contents(store) == {}
    store.before = Loses("PutObject", 3)
    await client.write("f", TWO)
    await settled(client, store)
    assert contents(store) == {"f": TWO}


async def test_a_directory_made_again_does_not_show_what_is_still_to_leave_it(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.mkdir("d/sub")
    await client.write("d/sub/deep", ONE)
    await client.write("d/f", ONE)
    await settled(client, store)
    store.before = Loses("CopyObject", 2)
    await client.rename("d/f", "f")
    await client.rename("d/sub/deep", "deep")
    await client.rmdir("d/sub")
    await client.rmdir("d")
    await client.mkdir("d")
    await trio.sleep(TTL + 2)
    assert "d/f" in store.objects  # the lost request may still come, so nothing happens to it
    assert await client.ls("d") == []
    await client.rmdir("d")
    assert await client.ls() == ["deep", "f"]
    await settled(client, store)
    assert contents(store) == {"deep": ONE, "f": ONE}


async def test_an_implied_directory_takes_the_place_of_one_with_a_marker(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """It has none of its own, though it is itself on its way still."""
    store.put_foreign("x/f", ONE)
    await client.mkdir("a")
    await client.setattr("a", uid=7)
    await settled(client, store)
    await client.rename("x", "b")
    await client.rename("b", "a")
    assert (await client.stat("a")).attributes.uid == UID
    await settled(client, store)
    assert contents(store) == {"a/f": ONE}


async def test_a_file_rewritten_while_its_put_begins_needs_no_more_than_the_spool(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """The PUT is put off, for half a file is never published: parts go ahead instead, also those
    of what was written before that was known."""
    config = with_writeback(config, durability="journal", namespace_delay=0.0, spool_limit=64 * KIB)
    large = os.urandom(200 * KIB)
    async with mounted(store, config) as client:
        await client.write("f", TWO)
        await client.write("f", large, step=16 * KIB)
        await settled(client, store)
        assert contents(store) == {"f": large}
        assert store.counts()["CompleteMultipartUpload"] == 1


async def test_a_put_that_failed_and_then_waits_for_a_close_reports_no_error(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    async with mounted(store, with_writeback(config, durability="journal")) as client:
        store.before = Loses("PutObject")
        await client.write("f", TWO)
        await trio.sleep(1)
        assert [text for text in client.fs.pending().errors if "PutObject" in text]
        handle = await client.open("f", os.O_WRONLY | os.O_TRUNC)
        assert not (await client.fs.drain(MINUTE)).errors
        await client.fs.write(handle, 0, ONE)
        await client.close(handle)
        await settled(client, store)
        assert contents(store) == {"f": ONE}


async def test_a_directorys_rename_goes_on_where_a_failed_copy_stopped_it(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """What was copied is not copied again, and what others changed since is."""
    for number in range(5):
        store.put_foreign(f"d/{number}", b"old")
    failing = ["d/4"]

    async def before(operation: str, key: str) -> None:
        if operation == "CopyObject" and failing and "4" in key:
            await trio.sleep(1.0)  # the others are done by then
            failing.clear()
            raise ConnectionLost("reset", operation=operation, key=key)

    store.before = before
    await client.rename("d", "e")
    await trio.sleep(1.8)
    copied = {key: data for key, data in contents(store).items() if key.startswith("e/")}
    assert copied == {f"e/{number}": b"old" for number in range(4)}
    store.put_foreign("d/0", b"new")
    before_it_goes_on = store.counts()["CopyObject"]
    await settled(client, store)
    assert store.counts()["CopyObject"] - before_it_goes_on == 2
    wanted = {f"e/{number}": b"old" for number in range(1, 5)}
    assert contents(store) == {"e/0": b"new", **wanted}
