"""Requests that were carried out without an answer, or are carried out late (rulings 10 and 19)."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store import base
from s3mount.store.base import Capabilities
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import (
    ALL_CAPABILITIES,
    CEPH_CAPABILITIES,
    NO_CAPABILITIES,
    MemoryStore,
)
from tests.model.bucket import contents, leftovers, permissions, requests
from tests.model.mounted import EPOCH, Client, memory_store, mounted, with_writeback

SMALL, LARGE = b"small " * 500, b"large " * 5000  # one PUT; many parts of 4 KiB
THEIRS = b"theirs"
MINUTE = 60.0


class Loses:
    """The answers of the next `times` requests of an operation are lost."""

    def __init__(self, operation: str, times: int = 1) -> None:
        self.operation, self.left = operation, times

    def __call__(self, operation: str, key: str) -> None:
        if operation == self.operation and self.left:
            self.left -= 1
            raise ConnectionLost("reset", operation=operation, key=key, ambiguous=True)


@pytest.fixture(params=[ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES], ids=lambda c: "")
def store(request: pytest.FixtureRequest) -> MemoryStore:
    service: Capabilities = request.param
    return memory_store(capabilities=service)


@pytest.fixture
async def client(store: MemoryStore, config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(store, config) as client:
        yield client
        store.before = store.after = None


async def settled(client: Client, store: MemoryStore) -> None:
    """All is sent, nothing is left over, and nothing failed."""
    for handle in list(client.handles):
        await client.close(handle)
    assert not await client.fs.drain(10 * MINUTE)
    await trio.sleep(0.1)
    assert leftovers(client.fs, store) == []
    assert client.fs.state.queue.failures == []


Way = tuple[bytes, str]
WAYS: list[Way] = [(SMALL, "PutObject"), (LARGE, "CompleteMultipartUpload")]


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_a_new_file_is_not_its_own_rival(
    client: Client, store: MemoryStore, way: Way, autojump_clock: MockClock
) -> None:
    data, operation = way
    store.after = Loses(operation)
    handle = await client.create("f", os.O_WRONLY | os.O_EXCL)
    await client.fs.write(handle, 0, data)
    await client.close(handle)
    await settled(client, store)
    assert contents(store) == {"f": data}
    assert store.counts()[operation] == 1


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_an_edit_does_not_conflict_with_itself(
    client: Client, store: MemoryStore, way: Way, autojump_clock: MockClock
) -> None:
    data, operation = way
    await client.write("f", data)
    store.after = Loses(operation)
    await client.edit("f", 3, b"EDIT")
    await settled(client, store)
    assert contents(store) == {"f": data[:3] + b"EDIT" + data[7:]}
    assert await client.read("f") == data[:3] + b"EDIT" + data[7:]


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_what_was_written_since_the_lost_answer_is_sent_after_it(
    client: Client, store: MemoryStore, way: Way, autojump_clock: MockClock
) -> None:
    data, operation = way
    await client.write("f", data)
    handle = await client.open("f", os.O_RDWR)
    await client.fs.write(handle, 3, b"EDIT")

    def more(what: str, key: str) -> None:
        if what == operation:
            store.after = None
            raise ConnectionLost("reset", operation=what, key=key, ambiguous=True)

    store.after = more
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.fs.fsync, handle, False)
        await trio.sleep(0.5)  # the answer is lost by now, the second attempt comes after 1 s
        assert store.objects["f"].data[3:7] == b"EDIT"
        await client.fs.write(handle, 10, b"MORE")
    await client.close(handle)
    await settled(client, store)
    wanted = data[:3] + b"EDIT" + data[7:10] + b"MORE" + data[14:]
    assert contents(store) == {"f": wanted}


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_a_new_file_written_anew_since_the_lost_answer_is_not_its_own_rival(
    client: Client, store: MemoryStore, autojump_clock: MockClock, way: Way
) -> None:
    """O_EXCL speaks of other hosts. Nothing of what was sent is here any more."""
    data, operation = way
    store.after = Loses(operation)
    handle = await client.create("f", os.O_RDWR | os.O_EXCL)
    await client.fs.write(handle, 0, data)
    await client.release(handle)
    await trio.sleep(0.5)
    assert contents(store) == {"f": data}
    await client.write("f", b"anew")
    await settled(client, store)
    assert contents(store) == {"f": b"anew"}


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_another_hosts_version_is_a_conflict_all_the_same(
    store: MemoryStore, config: MountConfig, way: Way, autojump_clock: MockClock
) -> None:
    data, operation = way
    async with mounted(store, config) as client:
        await client.write("f", data)

        def lost_then_replaced(what: str, key: str) -> None:
            if what == operation:
                store.after = None
                store.put_foreign("f", THEIRS)
                raise ConnectionLost("reset", operation=what, key=key, ambiguous=True)

        store.after = lost_then_replaced
        with pytest.raises(FilesystemError, match="ESTALE"):
            await client.edit("f", 3, b"EDIT")
        assert store.objects["f"].data == THEIRS
        # Of the edited version only what was written can be had: the rest is gone with the base.
        assert any(".conflict-" in key for key in store.objects)


async def test_two_hosts_empty_lock_files_are_not_taken_for_each_other(
    config: MountConfig, autojump_clock: MockClock
) -> None:
    store = memory_store()
    async with mounted(store, config) as client:

        def dropped(what: str, key: str) -> None:
            if what == "PutObject" and key == "lock":
                store.before = None
                store.put_foreign("lock", b"", {"mode": "33188", "uid": "1000", "mtime": "1.0"})
                raise ConnectionLost("reset", operation=what, key=key, ambiguous=True)

        handle = await client.create("lock", os.O_WRONLY | os.O_EXCL)
        store.before = dropped
        with pytest.raises(FilesystemError, match="EEXIST"):
            await client.fs.fsync(handle, False)
        await client.release(handle)


async def test_a_copy_onto_itself_that_changed_the_etag_is_no_conflict(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """A multipart object's ETag changes when it is copied."""
    async with mounted(store, config) as client:
        await client.write("f", LARGE)
        store.after = Loses("CopyObject")
        await client.setattr("f", mode=0o600)
        await settled(client, store)
        assert store.after.left == 0
        assert contents(store) == {"f": LARGE}
        assert permissions(store, "f") == 0o600


@pytest.mark.parametrize("operation", ["CopyObject", "DeleteObject"])
async def test_a_rename_whose_answer_is_lost_is_finished(
    client: Client, store: MemoryStore, operation: str, autojump_clock: MockClock
) -> None:
    await client.write("a", SMALL)
    store.after = Loses(operation)
    await client.rename("a", "b")
    assert not await client.fs.drain(MINUTE)
    assert await client.read("b") == SMALL
    await settled(client, store)
    assert contents(store) == {"b": SMALL}


async def test_a_rename_changed_after_its_copy_was_made_leaves_nothing_behind(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """The copy is there, the delete of the source failed: then chmod, and another rename."""
    await client.write("a", SMALL)
    store.before = Loses("DeleteObject")
    await client.rename("a", "b")
    await trio.sleep(1.0)
    assert sorted(contents(store)) == ["a", "b"]
    await client.setattr("b", mode=0o600)
    await client.rename("b", "c")
    await settled(client, store)
    assert contents(store) == {"c": SMALL}
    assert permissions(store, "c") == 0o600


@pytest.mark.parametrize("reached", [True, False], ids=["carried out", "lost"])
@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_an_unlinked_file_stays_away_whatever_became_of_its_put(
    client: Client, store: MemoryStore, way: Way, reached: bool, autojump_clock: MockClock
) -> None:
    data, operation = way
    handle = await client.create("f")
    await client.fs.write(handle, 0, data)
    setattr(store, "after" if reached else "before", Loses(operation))
    await client.release(handle)
    await trio.sleep(0.5)
    assert ("f" in store.objects) is reached
    await client.unlink("f")
    await settled(client, store)
    assert contents(store) == {}


@pytest.mark.parametrize("reached", [True, False], ids=["carried out", "lost"])
@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_a_renamed_file_is_at_one_name_whatever_became_of_its_put(
    client: Client, store: MemoryStore, way: Way, reached: bool, autojump_clock: MockClock
) -> None:
    data, operation = way
    handle = await client.create("f")
    await client.fs.write(handle, 0, data)
    setattr(store, "after" if reached else "before", Loses(operation))
    await client.release(handle)
    await trio.sleep(0.5)
    await client.rename("f", "g")
    await settled(client, store)
    assert contents(store) == {"g": data}


def slow(seconds: float, *operations: str) -> Callable[[str, str], Awaitable[None]]:
    async def before(operation: str, _: str) -> None:
        await trio.sleep(seconds if operation in operations else 0)

    return before


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_a_file_unlinked_while_its_edit_takes_long_does_not_reappear(
    client: Client, store: MemoryStore, way: Way, autojump_clock: MockClock
) -> None:
    """Its delete waits for the PUT, for longer than it goes without a look; the version that it
    then finds is our own."""
    data, operation = way
    await client.write("f", data)
    handle = await client.open("f", os.O_RDWR)
    await client.fs.write(handle, 0, b"EDIT")
    store.before = slow(30, operation)
    await client.release(handle)
    await trio.sleep(1)
    await client.unlink("f")
    assert not await client.exists("f")
    await settled(client, store)
    assert contents(store) == {}


@pytest.mark.parametrize("way", WAYS, ids=["put", "multipart"])
async def test_a_file_renamed_and_unlinked_while_its_edit_takes_long_does_not_reappear(
    client: Client, store: MemoryStore, way: Way, autojump_clock: MockClock
) -> None:
    data, operation = way
    await client.write("f", data)
    handle = await client.open("f", os.O_RDWR)
    await client.fs.write(handle, 0, b"EDIT")
    store.before = slow(30, operation)
    await client.release(handle)
    await trio.sleep(1)
    await client.rename("f", "g")
    await client.unlink("g")
    await settled(client, store)
    assert contents(store) == {}


async def test_a_file_unlinked_while_its_directory_is_renamed_does_not_reappear(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    """The copy of a multipart object has another ETag."""
    await client.mkdir("d")
    await client.write("d/f", LARGE)
    assert not await client.fs.drain(MINUTE)
    store.before = slow(30, "CopyObject")
    await client.rename("d", "e")
    await trio.sleep(1)
    await client.unlink("e/f")
    await settled(client, store)
    assert contents(store) == {"e/": b""}


async def test_a_file_unlinked_while_two_directories_above_it_are_renamed_does_not_reappear(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.mkdir("d")
    await client.mkdir("d/x")
    await client.write("d/x/f", LARGE)
    assert not await client.fs.drain(MINUTE)
    store.before = slow(30, "CopyObject")
    await client.rename("d", "e")
    await trio.sleep(1)
    await client.rename("e/x", "y")
    await client.unlink("y/f")
    await settled(client, store)
    assert contents(store) == {"e/": b"", "y/": b""}


async def test_a_lost_put_is_not_mistaken_for_the_chmod_before_it(
    config: MountConfig, autojump_clock: MockClock
) -> None:
    """A chmod takes the newest attributes along, and the new bytes may be as many as the old."""
    store = memory_store()
    async with mounted(store, config) as client:
        await client.write("f", SMALL)
        await client.setattr("f", mode=0o600)  # not begun yet
        handle = await client.open("f", os.O_RDWR | os.O_TRUNC)
        await client.fs.write(handle, 0, bytes(len(SMALL)))
        store.before = Loses("PutObject")
        await client.close(handle)
        assert store.before.left == 0
        await settled(client, store)
        assert contents(store) == {"f": bytes(len(SMALL))}


async def test_a_long_copy_in_parts_is_progress(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """Each part copied counts; fsync waits for as long as that goes on."""
    config = with_writeback(config, max_copy_size=8 * 1024, copy_part_size=4 * 1024)
    async with mounted(store, config) as client:
        await client.write("f", LARGE * 10)  # 74 parts, 16 at once
        handle = await client.open("f", os.O_RDWR)
        store.before = slow(50, "UploadPartCopy", "UploadPart")
        started = trio.current_time()
        await client.rename("f", "g")
        await client.fs.fsync(handle, False)
        assert trio.current_time() - started > 120
        store.before = None
        await settled(client, store)
        assert contents(store) == {"g": LARGE * 10}


async def test_a_delete_that_arrives_after_the_next_put_was_due_deletes_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    await client.write("f", SMALL)
    arrived = trio.Event()
    send = store.delete

    async def late(key: str) -> None:
        await trio.sleep(5.0)
        await send(key)
        arrived.set()

    async def first(key: str) -> None:
        store.delete = send  # type: ignore[method-assign]
        trio.lowlevel.spawn_system_task(late, key)
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("reset", operation="DeleteObject", key=key, ambiguous=True)

    store.delete = first  # type: ignore[method-assign]
    await client.unlink("f")
    await trio.sleep(0.7)  # the delete was sent
    await client.write("f", LARGE)
    await arrived.wait()
    await settled(client, store)
    assert contents(store) == {"f": LARGE}


async def test_a_put_that_arrives_after_the_next_delete_was_due_restores_nothing(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    arrived = trio.Event()
    send = store.put

    async def late(key: str, body: bytes, headers: base.WriteHeaders) -> None:
        await trio.sleep(5.0)
        await send(key, body, headers)
        arrived.set()

    async def first(
        key: str,
        body: base.Body,
        headers: base.WriteHeaders,
        *,
        condition: base.Condition = base.ALWAYS,
        check: base.Check | None = None,
    ) -> base.PutResult:
        store.put = send  # type: ignore[method-assign]
        assert not isinstance(body, base.SlicedBody)
        trio.lowlevel.spawn_system_task(late, key, bytes(body), headers)
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("reset", operation="PutObject", key=key, ambiguous=True)

    store.put = first  # type: ignore[method-assign]
    handle = await client.create("f")
    await client.fs.write(handle, 0, SMALL)
    await client.release(handle)
    await trio.sleep(0.5)
    await client.unlink("f")
    await settled(client, store)
    await arrived.wait()
    assert contents(store) == {}


async def test_a_conflict_file_whose_answer_is_lost_is_one_file(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    async with mounted(store, config) as client:
        await client.write("f", SMALL)
        handle = await client.open("f", os.O_RDWR)
        assert await client.read_all(handle) == SMALL
        await client.fs.write(handle, 0, b"OURS")
        store.put_foreign("f", THEIRS)

        def lost(what: str, key: str) -> None:
            if what == "PutObject" and ".conflict-" in key:
                store.after = None
                raise ConnectionLost("reset", operation=what, key=key, ambiguous=True)

        store.after = lost
        with pytest.raises(FilesystemError, match="ESTALE"):
            await client.fs.flush(handle)
        await client.release(handle)
        kept = [stored.data for key, stored in store.objects.items() if ".conflict-" in key]
        assert kept == [b"OURS" + SMALL[4:]]


async def test_a_lost_abort_is_repeated(
    client: Client, store: MemoryStore, autojump_clock: MockClock
) -> None:
    handle = await client.create("f")
    await client.fs.write(handle, 0, LARGE)
    await trio.sleep(1)
    assert store.uploads
    store.before = Loses("AbortMultipartUpload", 2)
    before = store.counts()
    await client.unlink("f")
    await client.release(handle)
    await trio.sleep(10)
    assert requests(before, store.counts())["AbortMultipartUpload"] == 3
    await settled(client, store)


async def test_an_upload_whose_creation_had_no_answer_is_aborted_an_hour_later(
    store: MemoryStore, config: MountConfig, autojump_clock: MockClock
) -> None:
    """Though another one was begun in its place, and the file is long in the bucket."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        async with mounted(store, config) as client:
            store.after = Loses("CreateMultipartUpload", 3)
            await client.write("f", LARGE)
            assert len(store.uploads) == 3
            assert len(client.fs.state.journal.load().uploads) == 3
            await trio.sleep(90 * MINUTE)
            assert store.uploads == {}
            assert client.fs.state.journal.load().uploads == {}
            assert contents(store) == {"f": LARGE}
